//! What a decision costs by the number of rules: it must not be asked of each.

use std::{fmt::Write, hint::black_box, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use warifu_agent::{
    authority::rules::{Facts, Rules},
    config,
};

use crate::{
    Result,
    report::{Bar, Row},
};

/// Rules, and how much more a decision among them may cost than among [`FEW`].
const SIZES: [(usize, &str, Bar); 3] = [
    (100, "a decision among 100 rules", Bar::Ratio(2.0)),
    (1_000, "a decision among 1,000 rules", Bar::Ratio(2.0)),
    (10_000, "a decision among 10,000 rules", Bar::Goal(2.0)),
];
const FEW: usize = 10;

/// Accounts the roles are in. Rules name them, so one fact leads to many rules.
const ACCOUNTS: usize = 20;

/// Workloads that are decided on in turn: a few for every rule of the larger sets, as caches would have it.
const WORKLOADS: usize = 1_000;

/// Rules as they are written for an organisation, and those they are for.
struct World {
    rules: Rules,
    workloads: Vec<(&'static str, Facts)>,
}

/// CPU time a decision, in rounds in which every size has its turn.
pub(super) fn run(quick: bool) -> Result<Vec<Row>> {
    let (rounds, time) = match quick {
        true => (3, Duration::from_millis(100)),
        false => (11, Duration::from_millis(500)),
    };
    let few = World::new(FEW)?;
    let many = SIZES.map(|(size, ..)| World::new(size));
    let many: Vec<World> = many.into_iter().collect::<Result<_>>()?;
    let mut ours = vec![Vec::new(); many.len()];
    let mut base = Vec::new();
    for _ in 0..rounds {
        base.push(few.decide_for(time));
        for (world, figures) in many.iter().zip(&mut ours) {
            figures.push(world.decide_for(time));
        }
    }
    let rows = SIZES.into_iter().zip(&ours);
    let rows = rows.map(|((_, measure, bar), ours)| {
        Row::beside(measure, "µs", ours, ("10 rules", &base), bar)
    });
    Ok(rows.collect())
}

impl World {
    fn new(size: usize) -> Result<Self> {
        let config = config::parse_authority(&yaml(size)?, "bench.yaml")?;
        let rules = Rules::compile(&config.trust_domain, &config.rules, &config.attestors, &[])?;
        // The rules in an order that has nothing to do with theirs.
        let workloads: Vec<(&str, Facts)> =
            (0..WORKLOADS).map(|n| workload(n * 7919 % size)).collect();
        if let Some((attestor, facts)) = workloads.iter().find(|(a, f)| rules.decide(a, f).is_err())
        {
            return Err(format!("no rule of {size} is for {facts:?} of {attestor}").into());
        }
        Ok(Self { rules, workloads })
    }

    /// Microseconds a decision, over about `time` of CPU.
    fn decide_for(&self, time: Duration) -> f64 {
        let start = cpu();
        let mut decisions = 0_u32;
        loop {
            for (attestor, facts) in &self.workloads {
                let _ = black_box(self.rules.decide(attestor, black_box(facts)));
                decisions += 1;
            }
            let spent = cpu().saturating_sub(start);
            if spent >= time {
                return spent.as_secs_f64() * 1e6 / f64::from(decisions);
            }
        }
    }
}

/// A third each: one role, roles by the beginning of their names, a namespace of a cluster.
fn yaml(size: usize) -> Result<String> {
    let mut text = "trust_domain: example.org\nlisten: 127.0.0.1:0\nadmin: unix:/authority.sock\n\
                    ca: {key: memory}\nstate: memory\nattestors:\n  \
                    prod: {kind: kubernetes, issuer: 'https://prod.example', audience: attest}\n  \
                    aws: {kind: aws-caller-identity, accounts: ["
        .to_owned();
    for number in 0..ACCOUNTS {
        write!(text, "'{}', ", account(number))?;
    }
    text.push_str("]}\nrules:\n");
    for number in 0..size {
        let account = account(number);
        match number % 3 {
            0 => writeln!(
                text,
                "- {{attestor: aws, match: {{account: '{account}', role: svc-{number}}}, id: '/svc/{account}/{{role}}'}}"
            )?,
            1 => writeln!(
                text,
                "- {{attestor: aws, match: {{account: '{account}', role: 'team-{number}-*'}}, id: '/team/{account}/{{role}}'}}"
            )?,
            _ => writeln!(
                text,
                "- {{attestor: prod, match: {{namespace: ns-{number}}}, id: '/prod/{{namespace}}/{{service_account}}'}}"
            )?,
        }
    }
    Ok(text)
}

/// Somebody whom rule `number` is for.
fn workload(number: usize) -> (&'static str, Facts) {
    let account = account(number);
    let (attestor, facts) = match number % 3 {
        0 => (
            "aws",
            [("account", account), ("role", format!("svc-{number}"))],
        ),
        1 => (
            "aws",
            [
                ("account", account),
                ("role", format!("team-{number}-orders")),
            ],
        ),
        _ => (
            "prod",
            [
                ("namespace", format!("ns-{number}")),
                ("service_account", "orders".to_owned()),
            ],
        ),
    };
    let facts = facts.into_iter().chain([
        ("partition", "aws".to_owned()),
        ("pod", format!("orders-{number}-7c9d8")),
    ]);
    (
        attestor,
        facts
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

fn account(number: usize) -> String {
    format!("{:012}", 111_111_111_111 + number % ACCOUNTS)
}

/// CPU time of this process, which does nothing else.
pub(super) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_somebody_for_every_rule() {
        assert!(World::new(FEW).is_ok() && World::new(100).is_ok());
    }
}

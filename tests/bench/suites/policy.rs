//! What a decision on a request costs by the number of rules: it must not be asked of each. And what it costs where Rego
//! makes it.

use std::{
    hint::black_box,
    net::IpAddr,
    sync::{Arc, mpsc},
    time::Duration,
};

use http::{HeaderMap, Method};
use warifu::{
    Caller,
    caller::{Peer, Subject},
};
use warifu_agent::{
    config::{
        inbound::{Rule, SubjectMatch},
        value::{AnyOf, ClaimValue},
    },
    http::headers::Filter,
    policy::{Decision, Evidence, Policy, Question, Rego, Request, Threads, Undecided, Verdict},
};

use super::rules::cpu;
use crate::{
    Result,
    report::{Bar, Row},
};

/// A small set of rules, and a large one.
const FEW: usize = 10;
const MANY: usize = 1_000;

/// Callers that are decided on in turn: as many as there are rules in the large set.
const CALLERS: usize = 1_000;

/// Long enough for any answer on a machine that is busy.
const REGO_TIMEOUT: Duration = Duration::from_secs(5);

/// What tells one rule from the next.
#[derive(Debug, Clone, Copy)]
enum By {
    SpiffeId,
    /// Role, each for a name of its own.
    Role,
    /// Role, by what names begin with.
    RoleGlob,
    /// Claim, all for the callers of one trust domain.
    Claim,
    Scope,
    /// Path, all for one caller.
    Path,
    /// Addresses that are denied, beside a rule that allows.
    DeniedSource,
    /// Claims that are denied, the same.
    DeniedClaim,
}

const KINDS: [(By, &str); 8] = [
    (By::SpiffeId, "among 1,000 rules by SPIFFE ID"),
    (By::Role, "among 1,000 rules by role"),
    (By::RoleGlob, "among 1,000 rules by role with *"),
    (By::Claim, "among 1,000 rules by claim"),
    (By::Scope, "among 1,000 rules by scope"),
    (By::Path, "among 1,000 rules by path"),
    (By::DeniedSource, "among 1,000 that deny by address"),
    (By::DeniedClaim, "among 1,000 that deny by claim"),
];

/// What a rule by claim says, in Rego. `TENANTS` are those who may.
const REGO: &str = r#"package warifu

tenants := {TENANTS}

allow if {
    input.request.method == "GET"
    input.request.segments[0] == "charges"
    input.subject.claims.tenant_id in tenants
}
"#;

/// How many tenants it knows.
const TENANTS: [(usize, &str); 2] = [
    (FEW, "asked of Rego, of 10 names"),
    (MANY, "asked of Rego, of 1,000 names"),
];

/// Rules, and those who ask.
struct World {
    policy: Policy,
    requests: Vec<Asked>,
    headers: HeaderMap,
    threads: Threads,
}

struct Asked {
    caller: Caller,
    evidence: Evidence,
    path: String,
    source: IpAddr,
}

/// CPU time a decision, in rounds in which every set of rules has its turn.
pub(super) fn run(quick: bool) -> Result<Vec<Row>> {
    let (rounds, time) = match quick {
        true => (3, Duration::from_millis(50)),
        false => (11, Duration::from_millis(200)),
    };
    let mut rows = Vec::new();
    for (by, measure) in KINDS {
        let (few, many) = (World::new(by, FEW)?, World::new(by, MANY)?);
        let (mut base, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            base.push(few.decide_for(time));
            ours.push(many.decide_for(time));
        }
        let bar = Bar::Ratio(2.0);
        rows.push(Row::beside(measure, "µs", &ours, ("10 rules", &base), bar));
    }
    for (tenants, measure) in TENANTS {
        let rego = World::of_rego(tenants)?;
        let ours: Vec<f64> = (0..rounds).map(|_| rego.decide_for(time)).collect();
        rows.push(Row::alone(measure, "µs", &ours, Bar::None));
    }
    Ok(rows)
}

impl World {
    /// No rules, and a policy that knows so many tenants.
    fn of_rego(tenants: usize) -> Result<Self> {
        let names: Vec<_> = (0..tenants).map(|n| format!("{:?}", tenant(n))).collect();
        // Rego takes no line of more than 1,024 characters.
        let source = REGO.replace("TENANTS", &names.join(",\n"));
        let sources = vec![("bench.rego".to_owned(), source)];
        let hidden = Filter::to_policy([]);
        let rego = Rego::compile(sources, "data.warifu.allow", REGO_TIMEOUT, hidden)?;
        Self::with(Policy::new(&[], &[]).with_rego(rego), By::Claim, tenants)
    }

    fn new(by: By, size: usize) -> Result<Self> {
        let made: Vec<Rule> = (0..size).map(|n| rule(by, n)).collect::<Result<_>>()?;
        let policy = match by {
            By::DeniedSource | By::DeniedClaim => {
                let anybody = Rule {
                    peer: Some("spiffe://example.org/**".parse()?),
                    to: vec!["* /**".parse()?],
                    ..Rule::default()
                };
                Policy::new(&[anybody], &made)
            }
            _ => Policy::new(&made, &[]),
        };
        Self::with(policy, by, size)
    }

    fn with(policy: Policy, by: By, size: usize) -> Result<Self> {
        // In an order that has nothing to do with the rules'.
        let requests = (0..CALLERS).map(|n| asked(by, n * 7919 % size));
        let world = Self {
            policy,
            requests: requests.collect::<Result<_>>()?,
            headers: [
                ("host", "payments"),
                ("accept", "*/*"),
                ("user-agent", "bench"),
            ]
            .into_iter()
            .map(|(name, value)| Ok((name.parse()?, value.parse()?)))
            .collect::<Result<_>>()?,
            threads: Threads::new(1),
        };
        let refused = world.requests.iter().find(|asked| !world.allows(asked));
        match refused {
            Some(asked) => Err(format!("no rule of {size} {by:?} allows {}", asked.path).into()),
            None => Ok(world),
        }
    }

    fn allows(&self, asked: &Asked) -> bool {
        let request = Request {
            method: &Method::GET,
            path: &asked.path,
            host: Some("payments"),
            headers: &self.headers,
            source: Some(asked.source),
            now: std::time::SystemTime::UNIX_EPOCH,
        };
        let (caller, evidence) = (&asked.caller, &asked.evidence);
        let verdict = self.policy.decide(caller, evidence, request);
        let question = self.policy.question(caller, evidence, request, &verdict);
        let verdict = question.map_or(verdict, |question| answer(question, &self.threads));
        matches!(verdict.decision, Decision::Allow(_))
    }

    /// Microseconds a decision, over about `time` of CPU.
    fn decide_for(&self, time: Duration) -> f64 {
        let start = cpu();
        let mut decisions = 0_u32;
        loop {
            for asked in &self.requests {
                let _ = black_box(self.allows(black_box(asked)));
                decisions += 1;
            }
            let spent = cpu().saturating_sub(start);
            if spent >= time {
                return spent.as_secs_f64() * 1e6 / f64::from(decisions);
            }
        }
    }
}

/// What Rego says, on another thread as ever.
fn answer(question: Question, threads: &Threads) -> Verdict {
    let question = Arc::new(question);
    let (tell, told) = mpsc::sync_channel(1);
    let then = move |said| drop(tell.send(said));
    Arc::clone(&question).ask(threads, REGO_TIMEOUT, then);
    question.settle(told.recv().unwrap_or(Err(Undecided::Gone)))
}

/// Rule `number`.
fn rule(by: By, number: usize) -> Result<Rule> {
    let mut rule = Rule {
        to: vec!["GET /charges/*".parse()?],
        ..Rule::default()
    };
    let mut subject = SubjectMatch::default();
    let claim = |subject: &mut SubjectMatch| {
        let wanted = AnyOf(vec![ClaimValue::Text(tenant(number))]);
        subject.claims.insert("tenant_id".to_owned(), wanted);
    };
    match by {
        By::SpiffeId => rule.peer = Some(id(number).parse()?),
        By::Role => subject.role = Some(role(number).parse()?),
        By::RoleGlob => subject.role = Some(format!("111111111111:role/svc-{number}*").parse()?),
        By::Claim => {
            rule.peer = Some("spiffe://example.org/**".parse()?);
            claim(&mut subject);
        }
        By::Scope => subject.scope = Some(format!("charges.{number}")),
        By::Path => {
            rule.peer = Some("spiffe://example.org/**".parse()?);
            rule.to = vec![format!("GET /charges-{number}/*").parse()?];
        }
        By::DeniedSource => {
            rule.source = vec![format!("10.{}.{}.0/24", number / 250, number % 250).parse()?]
        }
        By::DeniedClaim => claim(&mut subject),
    }
    let about_subject = !matches!(by, By::SpiffeId | By::Path | By::DeniedSource);
    rule.subject = about_subject.then_some(subject);
    Ok(rule)
}

/// Whom rule `number` is for, or (where rules deny) whom none is for.
fn asked(by: By, number: usize) -> Result<Asked> {
    let denied = matches!(by, By::DeniedClaim);
    let evidence = Evidence {
        claims: [
            ("iss", "https://issuer.example".to_owned()),
            ("aud", "payments".to_owned()),
            ("sub", format!("user-{number}")),
            (
                "tenant_id",
                if denied {
                    "other".to_owned()
                } else {
                    tenant(number)
                },
            ),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect(),
        accept: Some("oidc".to_owned()),
        role: Some(role(number)),
    };
    Ok(Asked {
        caller: Caller {
            peer: Some(Peer {
                spiffe_id: id(number).parse()?,
                cert_sha256: String::new(),
            }),
            subject: Some(Subject {
                proof: "oidc".to_owned(),
                subject: format!("user-{number}"),
                issuer: None,
                scopes: vec!["openid".to_owned(), format!("charges.{number}")],
                claims: Default::default(),
            }),
        },
        evidence,
        path: match by {
            By::Path => format!("/charges-{number}/1"),
            _ => format!("/charges/{number}"),
        },
        source: IpAddr::from([192, 0, 2, 7]),
    })
}

fn id(number: usize) -> String {
    format!("spiffe://example.org/ns/shop/sa/svc-{number}")
}

fn role(number: usize) -> String {
    format!("111111111111:role/svc-{number}")
}

fn tenant(number: usize) -> String {
    format!("tenant-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_caller_is_allowed_by_a_rule() {
        for (by, _) in KINDS {
            World::new(by, FEW).unwrap();
            World::new(by, 100).unwrap();
        }
        for (tenants, _) in TENANTS {
            World::of_rego(tenants).unwrap();
        }
    }
}

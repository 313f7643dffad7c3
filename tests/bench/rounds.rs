//! Interleaved runs: every proxy once a round, so that what the machine does meanwhile meets all.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    Result, checks,
    load::{self, Drive, Sample, Target},
    proxies::{self, Kind, Setting},
    stats::median,
};

/// How often and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Runs of each proxy.
    pub(crate) rounds: usize,
    /// Time of a run.
    pub(crate) time: Duration,
}

/// The samples of every proxy that took part, a sample for each round.
pub(crate) struct Samples {
    by_proxy: BTreeMap<&'static str, Vec<Sample>>,
}

impl Plan {
    /// Seven runs of 3 s, or three of 1 s.
    pub(crate) fn new(quick: bool) -> Self {
        match quick {
            false => Self {
                rounds: 7,
                time: Duration::from_secs(3),
            },
            true => Self {
                rounds: 3,
                time: Duration::from_secs(1),
            },
        }
    }
}

impl Samples {
    /// One figure of a proxy's samples, by round; empty where the proxy did not take part.
    pub(crate) fn figures(&self, kind: Kind, figure: fn(&Sample) -> f64) -> Vec<f64> {
        self.by_proxy
            .get(kind.name())
            .into_iter()
            .flatten()
            .map(figure)
            .collect()
    }
}

/// Starts every proxy of `kinds` and drives each in every round.
pub(crate) async fn run(
    kinds: &[Kind],
    plan: Plan,
    drive: &Drive,
    at: Setting<'_>,
) -> Result<Samples> {
    let mut proxies = proxies::start_all(kinds, at).await?;
    let samples = interleaved(&mut proxies, plan, drive).await?;
    for proxy in &proxies {
        checks::has_logged(proxy).await?;
    }
    Ok(samples)
}

/// Drives each of `targets` in every round.
pub(crate) async fn interleaved<T: Target>(
    targets: &mut [T],
    plan: Plan,
    drive: &Drive,
) -> Result<Samples> {
    let mut by_proxy: BTreeMap<_, Vec<Sample>> = BTreeMap::new();
    for round in 0..plan.rounds {
        for target in &mut *targets {
            let sample = load::sample(target, drive, plan.time).await?;
            by_proxy.entry(target.name()).or_default().push(sample);
        }
        // Nobody always runs after the same neighbour's heat.
        targets.rotate_left(1);
        progress(round + 1, plan.rounds, &by_proxy);
    }
    Ok(Samples { by_proxy })
}

fn progress(round: usize, of: usize, by_proxy: &BTreeMap<&'static str, Vec<Sample>>) {
    eprint!("round {round}/{of}, median µs CPU per request:");
    for (name, samples) in by_proxy {
        let cpu: Vec<f64> = samples.iter().map(|sample| sample.cpu_us).collect();
        eprint!(" {name} {:.1}", median(&cpu).unwrap_or(f64::NAN));
    }
    eprintln!();
}

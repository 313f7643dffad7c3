//! Open-loop load: requests are due at times nobody's answers change, and their own times count from then.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Drive, connections};
use crate::{Result, client::Client};

/// How long each request took through `client`, from kept connections that together send `rate` requests a second
/// for `time`.
///
/// Each connection is a caller of its own, whose requests are due at random times (a Poisson process, the same
/// at every call): one is sent when it is due, or as soon as the answer before it is there. Its time counts from when
/// it was due, so that what waits for a slow answer is slow, too.
///
/// Nothing here sleeps: timers are exact to a millisecond, which would send the requests in bursts and
/// measure how they queue behind each other; and a core that slept answers late.
pub(crate) async fn latencies(
    client: &Client,
    drive: &Drive,
    rate: f64,
    time: Duration,
) -> Result<Vec<Duration>> {
    let between = drive.concurrency as f64 / rate;
    let connections = connections(client, drive.concurrency, drive.turn(0).next()).await?;
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        let (seed, mut turn) = (number as u64 + 1, drive.turn(number));
        callers.spawn(async move {
            let mut took = Vec::new();
            for due in Arrivals::new(seed, between).take_while(|due| *due < time) {
                let due = start + due;
                while Instant::now() < due {
                    // Backend and other callers go on meanwhile, and sockets are looked after.
                    tokio::task::yield_now().await;
                }
                connection.exchange(turn.next()).await?;
                took.push(due.elapsed());
            }
            connection.close().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(took)
        });
    }
    let mut all = Vec::new();
    while let Some(took) = callers.join_next().await {
        all.extend(took??);
    }
    Ok(all)
}

/// When one caller's requests are due, from its start.
struct Arrivals {
    state: u64,
    /// Seconds on average.
    between: f64,
    at: f64,
}

impl Arrivals {
    fn new(seed: u64, between: f64) -> Self {
        let (state, at) = (seed, 0.0);
        Self { state, between, at }
    }

    /// From 0 up to, and without, 1: splitmix64, which is enough for times.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // As many bits as an f64 has room for.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.at -= (1.0 - self.uniform()).ln() * self.between;
        Duration::try_from_secs_f64(self.at).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_have_the_rate_asked_for_and_no_rhythm() {
        let count = 100_000;
        let times: Vec<f64> = Arrivals::new(1, 0.001)
            .take(count)
            .map(|at| at.as_secs_f64())
            .collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean / 0.001 - 1.0).abs() < 0.02, "{mean}");
        // A Poisson process: gaps deviate by as much as they are long, and 1 - 1/e of them are shorter than the mean.
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{variance}");
        let short = gaps.iter().filter(|gap| **gap < mean).count() as f64 / gaps.len() as f64;
        assert!((short - 0.632).abs() < 0.01, "{short}");
    }

    #[test]
    fn callers_come_at_different_times() {
        let first = |seed| Arrivals::new(seed, 1.0).next();
        assert_ne!(first(1), first(2));
        assert_eq!(first(1), first(1));
    }
}

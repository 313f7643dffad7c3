//! What two proxies between two apps cost, and what they add to the time of an answer.

use std::time::Duration;

use super::{KEPT_CONNECTIONS, beside};
use crate::{
    Result,
    client::Client,
    load::{self, Drive, Pattern, Target},
    outbound::Way,
    proxies::{Kind, Setting},
    report::{Bar, Row},
    rounds::{self, Plan},
    stats::median,
};

/// Connections while times are taken: few, so that an answer waits for its own way and not for others'.
const TIMED_CONNECTIONS: usize = 8;

/// Plain, mTLS, plain; then the same at half the rate that ours can do, beside no proxy at all.
pub(super) async fn run(
    subject: Kind,
    kinds: &[Kind],
    plan: Plan,
    at: Setting<'_>,
) -> Result<Vec<Row>> {
    let mut ways = Vec::new();
    for kind in kinds {
        ways.push(Way::two_hops(*kind, at).await?);
    }
    let drive = Drive::get(Pattern::KeepAlive, KEPT_CONNECTIONS);
    let samples = rounds::interleaved(&mut ways, plan, &drive).await?;
    let bar = |peer| match peer {
        Kind::Envoy => Bar::Ratio(0.45),
        Kind::Bare | Kind::HaProxy | Kind::Warifu => Bar::None,
    };
    let measure = "CPU per request, both hops";
    let mut rows = beside(subject, &samples, measure, "µs", |s| s.cpu_us, bar);

    let rate = median(&samples.figures(subject, |s| s.rate)).ok_or("no rate")? / 2.0;
    let direct = Client::plain(at.backend);
    let drive = Drive::get(Pattern::KeepAlive, TIMED_CONNECTIONS);
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let without = p50(&direct, &drive, rate, plan.time).await?;
        for way in &ways {
            let added = p50(way.client(), &drive, rate, plan.time).await? - without;
            if way.name() == subject.name() {
                ours.push(added);
            } else {
                peer.push(added);
            }
        }
    }
    let measure = "added by both hops, p50 at half load";
    let bar = if subject == Kind::Warifu {
        Bar::Ours(0.25)
    } else {
        Bar::None
    };
    rows.push(Row::alone(measure, "ms", &ours, bar));
    if let Some(other) = kinds.iter().find(|kind| **kind != subject) {
        rows.push(Row::beside(
            measure,
            "ms",
            &ours,
            (other.name(), &peer),
            Bar::None,
        ));
    }
    Ok(rows)
}

/// Milliseconds.
async fn p50(client: &Client, drive: &Drive, rate: f64, time: Duration) -> Result<f64> {
    let took = load::latencies(client, drive, rate, time).await?;
    let took: Vec<f64> = took.iter().map(|it| it.as_secs_f64() * 1e3).collect();
    median(&took).ok_or_else(|| "nothing was answered".into())
}

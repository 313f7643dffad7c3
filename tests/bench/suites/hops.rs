//! What two proxies between two apps cost, and what they add to the time of an answer.

use std::{collections::BTreeMap, time::Duration};

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

/// Plain, mTLS, plain; then the same at half the rate each reached, beside no proxy at all.
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

    let drive = Drive::get(Pattern::KeepAlive, TIMED_CONNECTIONS);
    let direct = Client::plain(at.backend);
    let mut added: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    // Fewer connections fill a proxy less, so it is asked anew what each can do.
    let most = rounds::interleaved(&mut ways, plan, &drive).await?;
    for _ in 0..plan.rounds {
        for kind in kinds {
            // By name: driving them has changed their order.
            let way = ways.iter().find(|way| way.name() == kind.name());
            let way = way.ok_or("no way")?;
            let most = most.figures(*kind, |s| s.rate);
            let rate = median(&most).ok_or("no rate")? / 2.0;
            let without = p50(&direct, &drive, rate, plan.time).await?;
            let through = p50(way.client(), &drive, rate, plan.time).await?;
            added
                .entry(kind.name())
                .or_default()
                .push(through - without);
        }
    }
    let mut of = |kind: Kind| added.remove(kind.name()).unwrap_or_default();
    let ours = of(subject);
    let measure = "added by both hops, p50 at half load";
    let bar = if subject == Kind::Warifu {
        Bar::Ours(0.25)
    } else {
        Bar::None
    };
    rows.push(Row::alone(measure, "ms", &ours, bar));
    if let Some(other) = kinds.iter().find(|kind| **kind != subject) {
        let peer = (other.name(), &*of(*other));
        rows.push(Row::beside(measure, "ms", &ours, peer, Bar::None));
    }
    Ok(rows)
}

/// Milliseconds.
async fn p50(client: &Client, drive: &Drive, rate: f64, time: Duration) -> Result<f64> {
    let took = load::latencies(client, drive, rate, time).await?;
    let took: Vec<f64> = took.iter().map(|it| it.as_secs_f64() * 1e3).collect();
    median(&took).ok_or_else(|| "nothing was answered".into())
}

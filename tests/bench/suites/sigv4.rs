//! What a signature costs.

use super::{KEPT_CONNECTIONS, beside};
use crate::{
    Result, backend,
    client::post,
    load::{Drive, Pattern},
    outbound::{Keys, Way},
    proxies::{Kind, Setting},
    report::{Bar, Row},
    rounds::{self, Plan},
};

/// Bodies, what their row is called, and the bar.
const BODIES: [(usize, &str, f64); 2] = [
    (1 << 10, "CPU per signed request of 1 KiB", 0.40),
    (64 << 10, "CPU per signed request of 64 KiB", 0.45),
];

/// Every proxy signs the same requests with the same keys, and is first seen to do so.
pub(super) async fn run(
    subject: Kind,
    kinds: &[Kind],
    plan: Plan,
    at: Setting<'_>,
) -> Result<Vec<Row>> {
    // Not AWS's example key: a proxy might know that one.
    let keys = Keys {
        id: "AKIDBENCHBENCHBENCH0".to_owned(),
        secret: "benchbenchbenchbenchbenchbenchbenchbench".to_owned(),
    };
    let mut ways = Vec::new();
    for kind in kinds {
        ways.push(Way::signing(*kind, &keys, at).await?);
    }
    let mut rows = Vec::new();
    for (bytes, measure, most) in BODIES {
        let message = post(backend::PATH, "", &vec![b'x'; bytes]);
        let drive = Drive {
            pattern: Pattern::KeepAlive,
            concurrency: KEPT_CONNECTIONS,
            messages: vec![message].into(),
        };
        let samples = rounds::interleaved(&mut ways, plan, &drive).await?;
        let bar = move |peer| match peer {
            Kind::Envoy => Bar::Ratio(most),
            Kind::Bare | Kind::HaProxy | Kind::Warifu => Bar::None,
        };
        rows.extend(beside(subject, &samples, measure, "µs", |s| s.cpu_us, bar));
    }
    Ok(rows)
}

//! Resident memory over a proxy's day: idle, with many idle callers, busy, afterwards.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{
    Result, backend,
    client::request,
    load::{self, Drive, Load, Pattern},
    proxies::{self, Kind, Proxy, Setting},
    report::{Bar, Row},
};

/// Callers that have asked once and then stay connected.
const IDLE_CONNECTIONS: usize = 1_000;

/// Callers that ask as fast as they can, for [`BUSY`].
const BUSY_CONNECTIONS: usize = 100;
const BUSY: Duration = Duration::from_secs(5);

/// How long memory has to settle after starting, and after connecting.
const SETTLE: Duration = Duration::from_secs(1);

/// The moments, with what ours may need then, MiB.
const MOMENTS: [(&str, Bar); 4] = [
    ("resident, idle", Bar::Ours(10.0)),
    ("resident, 1,000 idle connections", Bar::Ours(40.0)),
    ("resident, 100 busy connections", Bar::None),
    ("resident, after load", Bar::Ours(14.0)),
];

/// MiB at each of [`MOMENTS`], by proxy, a value for each round.
type Figures = BTreeMap<&'static str, [Vec<f64>; MOMENTS.len()]>;

/// Three rounds, each with fresh processes; one if quick.
pub(super) async fn run(
    subject: Kind,
    kinds: &[Kind],
    quick: bool,
    at: Setting<'_>,
) -> Result<Vec<Row>> {
    let rounds = if quick { 1 } else { 3 };
    let after_load = Duration::from_secs(if quick { 5 } else { 60 });
    let mut figures = Figures::new();
    for round in 0..rounds {
        let directory: PathBuf = at.directory.join(format!("round-{round}"));
        std::fs::create_dir(&directory)?;
        let at = Setting {
            directory: &directory,
            ..at
        };
        let mut proxies = proxies::start_all(kinds, at).await?;
        let mut note = |name: &'static str, moment: usize, mib: f64| {
            if let Some(values) = figures.entry(name).or_default().get_mut(moment) {
                values.push(mib);
            }
        };

        tokio::time::sleep(SETTLE).await;
        for proxy in &proxies {
            note(proxy.name, 0, resident_mib(proxy)?);
        }
        for proxy in &mut proxies {
            note(proxy.name, 1, with_idle_callers(proxy).await?);
            note(proxy.name, 2, while_busy(proxy).await?);
        }
        eprintln!(
            "round {}/{rounds}: waiting {after_load:?} after the load",
            round + 1
        );
        tokio::time::sleep(after_load).await;
        for proxy in &proxies {
            note(proxy.name, 3, resident_mib(proxy)?);
        }
    }
    Ok(rows(subject, &figures))
}

async fn with_idle_callers(proxy: &mut Proxy) -> Result<f64> {
    let connections =
        load::connections(&proxy.caller, IDLE_CONNECTIONS, &request(backend::PATH, "")).await?;
    tokio::time::sleep(SETTLE).await;
    let resident = resident_mib(proxy)?;
    for connection in connections {
        connection.close().await?;
    }
    Ok(resident)
}

/// The most seen while it is under load.
async fn while_busy(proxy: &mut Proxy) -> Result<f64> {
    let mut load = Load::start(
        &proxy.caller,
        &Drive::get(Pattern::KeepAlive, BUSY_CONNECTIONS),
    )
    .await?;
    let mut most = 0.0_f64;
    for _ in 0..50 {
        tokio::time::sleep(BUSY / 50).await;
        most = most.max(resident_mib(proxy)?);
    }
    load.stop().await?;
    Ok(most)
}

fn resident_mib(proxy: &Proxy) -> Result<f64> {
    Ok(proxy.process.resident_kib()? as f64 / 1_024.0)
}

/// Our own bars are absolute, so each moment is a row of ours alone, then one beside each peer.
fn rows(subject: Kind, figures: &Figures) -> Vec<Row> {
    let mut rows = Vec::new();
    for (moment, (measure, bar)) in MOMENTS.into_iter().enumerate() {
        let of = |kind: Kind| {
            figures
                .get(kind.name())
                .and_then(|moments| moments.get(moment))
        };
        let Some(ours) = of(subject) else { continue };
        if let (Kind::Warifu, Bar::Ours(_)) = (subject, bar) {
            rows.push(Row::alone(measure, "MiB", ours, bar));
        }
        for peer in Kind::ALL.into_iter().filter(|peer| *peer != subject) {
            if let Some(figures) = of(peer) {
                let peer = (peer.name(), figures.as_slice());
                rows.push(Row::beside(measure, "MiB", ours, peer, Bar::None));
            }
        }
    }
    rows
}

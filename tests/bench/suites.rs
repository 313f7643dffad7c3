//! The benchmarks by name, and what each demands.

mod authority;
mod hops;
mod memory;
mod policy;
mod rules;
mod sigv4;
mod workload_api;

use std::path::PathBuf;

use crate::{
    Result, backend,
    load::{Drive, Pattern, Sample},
    process::{self, Cores},
    proxies::{Kind, Setting},
    report::{self, Bar, Outcome, Row},
    rounds::{self, Plan, Samples},
    tokens::Tokens,
};

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Agents that attest, one after the other.
    Authority,
    /// A new connection for each request.
    Handshake,
    /// From app to app: plain, mTLS, plain.
    Hops,
    /// Requests on kept connections.
    Inbound,
    /// The same, each with a token.
    InboundJwt,
    /// Resident memory.
    Memory,
    /// Agents that attest, all at once.
    Stampede,
    /// A listener's rules, in this process.
    Policy,
    /// The authority's rules, in this process.
    Rules,
    /// Requests that are signed on their way out.
    SigV4,
    /// What an app waits for its identity.
    WorkloadApi,
}

/// Connections at once, kept: enough that the proxy always has something to do.
const KEPT_CONNECTIONS: usize = 32;

/// Connections being made at once: a handshake keeps a core busy a hundred times longer than a
/// request, so fewer suffice.
const NEW_CONNECTIONS: usize = 8;

impl Suite {
    /// All of them, in the order `list` shows.
    pub(crate) const ALL: [Self; 11] = [
        Self::Inbound,
        Self::InboundJwt,
        Self::Handshake,
        Self::SigV4,
        Self::Hops,
        Self::Memory,
        Self::Authority,
        Self::Stampede,
        Self::Policy,
        Self::Rules,
        Self::WorkloadApi,
    ];

    /// What the command line calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Handshake => "handshake",
            Self::Hops => "hops",
            Self::Inbound => "inbound",
            Self::InboundJwt => "inbound-jwt",
            Self::Memory => "memory",
            Self::Policy => "policy",
            Self::SigV4 => "sigv4",
            Self::Stampede => "stampede",
            Self::Rules => "rules",
            Self::WorkloadApi => "workload-api",
        }
    }

    /// What it measures, in a line.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Authority => {
                "CPU per agent attested: TLS handshake, evidence, certificate, audit"
            }
            Self::Handshake => "CPU per connection: a full mTLS handshake and one request",
            Self::Hops => "CPU per request of both proxies between two apps, and the time they add",
            Self::Inbound => "CPU per request and requests a second: mTLS, rules, headers, audit",
            Self::InboundJwt => "the same, with one of a thousand tokens in each request",
            Self::Memory => "resident memory: idle, under load, with idle connections, afterwards",
            Self::SigV4 => "CPU per request that is signed for AWS, of 1 KiB and of 64 KiB",
            Self::Stampede => {
                "time until 10,000 agents that attest at once are served, on all cores"
            }
            Self::Policy => "CPU per decision on a request, by the number of a listener's rules",
            Self::Rules => "CPU per decision of the authority, by the number of its rules",
            Self::WorkloadApi => "what an app waits for an answer, and for its first identity",
        }
    }

    /// Runs it with `subject` as "ours", prints the table, writes `target/bench/NAME.json`.
    pub(crate) fn run(self, subject: Kind, quick: bool) -> Result<Outcome> {
        if cfg!(debug_assertions) {
            eprintln!("bench: this is a debug build; its figures mean nothing (use --release)");
        }
        // In this process alone: no proxies, no cores to share out.
        let alone = match self {
            Self::Policy => Some(policy::run(quick)?),
            Self::Rules => Some(rules::run(quick)?),
            _ => None,
        };
        if let Some(rows) = alone {
            return self.finish(Kind::Warifu, &rows, true);
        }
        let mut kinds = self.kinds().to_vec();
        for absent in self.kinds().iter().filter_map(|kind| kind.locate().err()) {
            eprintln!("bench: {absent}");
            kinds.retain(|kind| kind.name() != absent.name);
        }
        if !kinds.contains(&subject) {
            return Ok(Outcome::Absent);
        }
        process::raise_open_files();
        let cores = Cores::claim()?;
        let directory = tempfile::Builder::new().prefix("warifu-bench-").tempdir()?;
        let runtime = match self {
            // Ten thousand agents want more than a core.
            Self::Stampede => {
                cores.release()?;
                tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()?
            }
            _ => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        };
        let rows = runtime.block_on(async {
            let tokens = match self {
                Self::InboundJwt => Some(Tokens::new().await?),
                _ => None,
            };
            let at = Setting {
                cores,
                backend: backend::start().await?,
                directory: directory.path(),
                tokens: tokens.as_ref(),
            };
            tokio::select! {
                rows = self.rows(subject, &kinds, quick, at) => rows,
                // Ended by an error rather than by the signal, so that the proxies are, too.
                () = told_to_stop() => Err("stopped before the end".into()),
            }
        })?;
        self.finish(subject, &rows, kinds.len() == self.kinds().len())
    }

    /// Who can be compared. No other proxy is an authority, too.
    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Authority | Self::Policy | Self::Rules | Self::Stampede | Self::WorkloadApi => {
                &[Kind::Warifu]
            }
            Self::Hops | Self::InboundJwt => &[Kind::Warifu, Kind::Envoy],
            Self::SigV4 => &[Kind::Warifu, Kind::Envoy, Kind::Bare],
            Self::Handshake | Self::Inbound | Self::Memory => &Kind::ALL,
        }
    }

    async fn rows(
        self,
        subject: Kind,
        kinds: &[Kind],
        quick: bool,
        at: Setting<'_>,
    ) -> Result<Vec<Row>> {
        let plan = Plan::new(quick);
        match self {
            Self::Handshake => {
                let drive = Drive::get(Pattern::NewConnections, NEW_CONNECTIONS);
                let samples = rounds::run(kinds, plan, &drive, at).await?;
                Ok(handshake_rows(subject, &samples))
            }
            Self::Inbound => {
                let drive = Drive::get(Pattern::KeepAlive, KEPT_CONNECTIONS);
                let samples = rounds::run(kinds, plan, &drive, at).await?;
                Ok(inbound_rows(subject, &samples))
            }
            Self::InboundJwt => {
                let requests = at.tokens.map(Tokens::requests).unwrap_or_default();
                let drive = Drive {
                    messages: requests.into(),
                    ..Drive::get(Pattern::KeepAlive, KEPT_CONNECTIONS)
                };
                let samples = rounds::run(kinds, plan, &drive, at).await?;
                Ok(inbound_jwt_rows(subject, &samples))
            }
            Self::Hops => hops::run(subject, kinds, plan, at).await,
            Self::SigV4 => sigv4::run(subject, kinds, plan, at).await,
            Self::Memory => memory::run(subject, kinds, quick, at).await,
            Self::Authority => authority::run(quick, at).await,
            Self::Stampede => authority::stampede(quick, at).await,
            Self::Policy => policy::run(quick),
            Self::Rules => rules::run(quick),
            Self::WorkloadApi => workload_api::run(quick, at).await,
        }
    }

    fn finish(self, subject: Kind, rows: &[Row], complete: bool) -> Result<Outcome> {
        report::print(subject, rows);
        let path = results_directory()?.join(format!("{}.json", self.name()));
        report::write(rows, &path)?;
        println!("\nwritten to {}", path.display());
        if rows.iter().any(Row::fails) {
            return Ok(Outcome::Missed);
        }
        Ok(if complete {
            Outcome::Met
        } else {
            Outcome::Absent
        })
    }
}

fn inbound_rows(subject: Kind, samples: &Samples) -> Vec<Row> {
    let bar = |peer| match peer {
        Kind::Envoy => Bar::Ratio(0.40),
        Kind::HaProxy => Bar::Ratio(1.05),
        Kind::Bare | Kind::Warifu => Bar::None,
    };
    [
        cpu_rows(subject, samples, "CPU per request", bar),
        rate_rows(subject, samples, "requests"),
    ]
    .concat()
}

fn inbound_jwt_rows(subject: Kind, samples: &Samples) -> Vec<Row> {
    let bar = |peer| match peer {
        Kind::Envoy => Bar::Ratio(0.45),
        Kind::Bare | Kind::HaProxy | Kind::Warifu => Bar::None,
    };
    [
        cpu_rows(subject, samples, "CPU per request with a token", bar),
        rate_rows(subject, samples, "requests with a token"),
    ]
    .concat()
}

fn handshake_rows(subject: Kind, samples: &Samples) -> Vec<Row> {
    let bar = |peer| match peer {
        Kind::Envoy => Bar::Goal(0.80),
        Kind::Bare | Kind::HaProxy | Kind::Warifu => Bar::None,
    };
    [
        cpu_rows(subject, samples, "CPU per handshake and request", bar),
        rate_rows(subject, samples, "handshakes and requests"),
    ]
    .concat()
}

fn cpu_rows(
    subject: Kind,
    samples: &Samples,
    measure: &'static str,
    bar: fn(Kind) -> Bar,
) -> Vec<Row> {
    beside(subject, samples, measure, "µs", |s| s.cpu_us, bar)
}

fn rate_rows(subject: Kind, samples: &Samples, measure: &'static str) -> Vec<Row> {
    beside(subject, samples, measure, "1/s", |s| s.rate, |_| Bar::None)
}

/// A row for each peer that took part. Bars are for Warifu: another subject has none.
fn beside(
    subject: Kind,
    samples: &Samples,
    measure: &'static str,
    unit: &'static str,
    figure: fn(&Sample) -> f64,
    bar: impl Fn(Kind) -> Bar,
) -> Vec<Row> {
    let ours = samples.figures(subject, figure);
    Kind::ALL
        .into_iter()
        .filter(|peer| *peer != subject)
        .map(|peer| (peer, samples.figures(peer, figure)))
        .filter(|(_, figures)| !figures.is_empty())
        .map(|(peer, figures)| {
            let bar = if subject == Kind::Warifu {
                bar(peer)
            } else {
                Bar::None
            };
            Row::beside(measure, unit, &ours, (peer.name(), &figures), bar)
        })
        .collect()
}

/// Ctrl-C, or a plain kill.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        // Then the signal ends this process at once, as ever.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// `target/bench`, beside the profile's directory this program was built into.
fn results_directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program
        .ancestors()
        .nth(2)
        .ok_or("this program lies in no target directory")?;
    Ok(target.join("bench"))
}

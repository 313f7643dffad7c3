//! The proxies that are compared, all set to do the same work.

pub(crate) mod bare;
mod envoy;
mod haproxy;
pub(crate) mod warifu;

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use thiserror::Error;
use warifu_tests::peers;

pub(crate) use envoy::command as envoy_command;

use crate::{
    Result, backend,
    certificates::{Ca, Credential},
    checks,
    client::{Client, request},
    load::Target,
    process::{Cores, Process},
    tokens::Tokens,
};

/// Everyone's trust domain.
pub(crate) const TRUST_DOMAIN: &str = "bench.test";

/// How long a proxy may take until it answers its first request.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// hyper and rustls with nothing between them: the floor.
    Bare,
    /// Envoy.
    Envoy,
    /// HAProxy.
    HaProxy,
    /// Ours: `warifu agent` beside a `warifu authority`.
    Warifu,
}

/// Where proxies run in this run of the program.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    /// Which core is theirs.
    pub(crate) cores: Cores,
    /// The app behind each.
    pub(crate) backend: SocketAddr,
    /// Each makes a directory of its own in here.
    pub(crate) directory: &'a Path,
    /// What callers show beside their certificates; nothing where absent.
    pub(crate) tokens: Option<&'a Tokens>,
}

/// A proxy that runs and answers.
pub(crate) struct Proxy {
    /// Its name in tables.
    pub(crate) name: &'static str,
    /// Its process.
    pub(crate) process: Process,
    /// The caller its rules allow.
    pub(crate) caller: Client,
    /// A caller of the same trust domain that no rule allows.
    pub(crate) stranger: Client,
    /// A caller without a certificate.
    pub(crate) anonymous: Client,
    /// A caller with the allowed name, from a root nobody trusts.
    pub(crate) outsider: Client,
    /// The header by which the caller is allowed, beside its certificate.
    pub(crate) proof: String,
    /// Its access log, a line for each request; the bare proxy has none.
    pub(crate) log: Option<PathBuf>,
    /// Requests it has answered.
    pub(crate) requests: u64,
    /// Whom it gets its identity from, where that must stay up.
    _issuer: Option<warifu::Issuer>,
}

/// A proxy that can't take part.
#[derive(Debug, Error)]
#[error("no {name} to measure: {why}")]
pub(crate) struct Absent {
    /// The proxy's name.
    pub(crate) name: &'static str,
    why: String,
}

/// What a proxy needs to know to be started.
struct Place<'a> {
    program: PathBuf,
    directory: &'a Path,
    listen: SocketAddr,
    backend: SocketAddr,
    tokens: Option<&'a Tokens>,
}

/// What a proxy's module says about starting it.
struct Start {
    command: Command,
    log: Option<PathBuf>,
}

/// Starts each of `kinds`.
pub(crate) async fn start_all(kinds: &[Kind], at: Setting<'_>) -> Result<Vec<Proxy>> {
    let mut proxies = Vec::with_capacity(kinds.len());
    for kind in kinds {
        proxies.push(kind.start(at).await?);
    }
    Ok(proxies)
}

/// A proxy ready to be started, and those who will call it.
struct Prepared {
    start: Start,
    orders: Credential,
    stranger: Credential,
    issuer: Option<warifu::Issuer>,
}

impl Kind {
    /// All of them, in the order they are started and shown.
    pub(crate) const ALL: [Self; 4] = [Self::Warifu, Self::Envoy, Self::HaProxy, Self::Bare];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Envoy => "envoy",
            Self::HaProxy => "haproxy",
            Self::Warifu => "warifu",
        }
    }

    /// The program it is, or what to do to have it.
    pub(crate) fn locate(self) -> std::result::Result<PathBuf, Absent> {
        let program = match self {
            Self::Bare => std::env::current_exe().map_err(|e| e.to_string()),
            Self::Envoy => peers::envoy_binary().map_err(|e| e.to_string()),
            Self::HaProxy => {
                on_path("haproxy").ok_or("it is not on PATH: apt-get install haproxy".to_owned())
            }
            Self::Warifu => warifu::locate(),
        };
        program.map_err(|why| Absent {
            name: self.name(),
            why,
        })
    }

    /// Starts it, waits until it answers, and has it show that it does the work.
    async fn start(self, at: Setting<'_>) -> Result<Proxy> {
        let program = self.locate()?;
        let directory = at.directory.join(self.name());
        std::fs::create_dir(&directory)?;
        let listen = free_port()?;
        let place = Place {
            program,
            directory: &directory,
            listen,
            backend: at.backend,
            tokens: at.tokens,
        };

        let Prepared {
            start: Start { command, log },
            orders,
            stranger,
            issuer,
        } = match self {
            Self::Bare => peer(place, bare::start)?,
            Self::Envoy => peer(place, envoy::start)?,
            Self::HaProxy => peer(place, haproxy::start)?,
            Self::Warifu => ours(place).await?,
        };
        let output = directory.join("stdout");
        let errors = directory.join("stderr");
        let mut proxy = Proxy {
            name: self.name(),
            process: Process::start(command, at.cores, &output, &errors)?,
            caller: Client::new(listen, Some(&orders))?,
            stranger: Client::new(listen, Some(&stranger))?,
            anonymous: Client::new(listen, None)?,
            outsider: Client::new(listen, Some(&Ca::new()?.issue(TRUST_DOMAIN, "orders")?))?,
            proof: at.tokens.map(Tokens::allowed).unwrap_or_default(),
            log,
            requests: 0,
            _issuer: issuer,
        };
        proxy.await_first_answer().await?;
        if self != Self::Bare {
            checks::does_the_work(&mut proxy).await?;
        }
        if let Some(tokens) = at.tokens {
            checks::verifies_tokens(&mut proxy, tokens).await?;
        }
        Ok(proxy)
    }
}

/// With certificates of this program's making, the server's in files.
fn peer(place: Place<'_>, start: fn(Place<'_>) -> Result<Start>) -> Result<Prepared> {
    let ca = Ca::new()?;
    ca.write_server(TRUST_DOMAIN, "payments", place.directory)?;
    Ok(Prepared {
        start: start(place)?,
        orders: ca.issue(TRUST_DOMAIN, "orders")?,
        stranger: ca.issue(TRUST_DOMAIN, "stranger")?,
        issuer: None,
    })
}

/// With X.509-SVIDs of an authority, the agent's obtained by itself.
async fn ours(place: Place<'_>) -> Result<Prepared> {
    let issuer = warifu::Issuer::start(place.directory).await?;
    Ok(Prepared {
        start: issuer.start_agent(place).await?,
        orders: issuer.issue("orders").await?,
        stranger: issuer.issue("stranger").await?,
        issuer: Some(issuer),
    })
}

impl Target for Proxy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn client(&self) -> &Client {
        &self.caller
    }

    fn processes(&self) -> &[Process] {
        std::slice::from_ref(&self.process)
    }

    fn answered(&mut self, requests: u64) {
        self.requests += requests;
    }
}

impl Proxy {
    async fn await_first_answer(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            self.process
                .still_runs()
                .map_err(|e| format!("{}: {e}", self.name))?;
            let Err(error) = self.first_answer().await else {
                return Ok(());
            };
            if Instant::now() > deadline {
                let said = self.process.last_words();
                return Err(format!("{} does not answer: {error}\n{said}", self.name).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn first_answer(&self) -> Result<()> {
        self.caller
            .connect()
            .await?
            .exchange(&request(backend::PATH, &self.proof))
            .await
    }
}

/// Envoy's side of the backend, for another of them to call: what [`Kind::Envoy`] starts.
pub(crate) fn envoy_inbound(
    program: PathBuf,
    directory: &Path,
    listen: SocketAddr,
    backend: SocketAddr,
) -> Result<Command> {
    let place = Place {
        program,
        directory,
        listen,
        backend,
        tokens: None,
    };
    Ok(envoy::start(place)?.command)
}

/// An executable on PATH.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|p| p.is_file())
}

/// A loopback port nobody has now. Another process could take it before the proxy does; then the
/// proxy says so and the run ends.
pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

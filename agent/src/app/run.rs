//! The processes: runtimes, signals, the end.

use std::{io, path::Path, thread, time::Duration};

use thiserror::Error;
use tokio::{
    runtime::{self, Runtime},
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use super::{
    AuthorityStartError, StartError, memory, reload::Reload, start_agent, start_authority,
};
use crate::{
    config::{AgentFile, AuthorityConfig},
    inbound,
};

/// Why a process ended with an error.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The agent could not start.
    #[error(transparent)]
    Agent(#[from] StartError),
    /// The authority could not start.
    #[error(transparent)]
    Authority(#[from] AuthorityStartError),
    /// The system gave no thread, or no signal handler.
    #[error("starting the runtime: {0}")]
    Runtime(#[from] io::Error),
}

impl RunError {
    /// Whether a file that the configuration names is wrong.
    pub fn is_of_configuration(&self) -> bool {
        matches!(
            self,
            Self::Agent(StartError::Inbound(inbound::StartError::Policy(_)))
        )
    }
}

/// Runs an agent until SIGTERM, SIGINT or a drain over the admin socket; a second signal ends it at
/// once. SIGHUP has it read `path` again, where `file` is from, and the policies it names, as does a change there.
///
/// # Errors
/// See [`RunError`].
pub fn run_agent(path: &Path, file: AgentFile) -> Result<(), RunError> {
    let data = DataPlane::start(file.config.workers)?;
    control_runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let mut reload = Reload::new(path, file)?;
        let agent = start_agent(reload.config(), data.handle()).await?;
        tokio::spawn(memory::give_back());
        tracing::info!(
            inbound = %listed(&agent.inbound),
            outbound = %listed(&agent.outbound),
            probes = %listed(&agent.probes),
            "the agent is listening"
        );
        loop {
            tokio::select! {
                name = signals.next() => {
                    tracing::info!(signal = name, "draining");
                    break;
                }
                () = agent.drain_wanted() => {
                    tracing::info!("draining, as the admin socket asked");
                    break;
                }
                () = reload.next(&agent) => {}
            }
        }
        tokio::select! {
            cut = agent.drain() => tracing::info!(cut, "drained"),
            name = signals.next() => tracing::warn!(signal = name, "ending at once"),
        }
        Ok(())
    })
}

/// Runs an authority until SIGTERM or SIGINT; a second signal ends it at once.
///
/// # Errors
/// See [`RunError`].
pub fn run_authority(config: &AuthorityConfig) -> Result<(), RunError> {
    runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let mut signals = Signals::new()?;
            let authority = tokio::select! {
                started = start_authority(config) => started?,
                name = signals.next() => {
                    tracing::info!(signal = name, "ended before it was ready");
                    return Ok(());
                }
            };
            tracing::info!(
                address = %authority.issuer.address(),
                admin = %authority.issuer.admin(),
                probes = %listed(&authority.probes),
                "the authority is listening"
            );
            tokio::spawn(memory::give_back());
            let name = signals.next().await;
            tracing::info!(signal = name, "draining");
            tokio::select! {
                () = authority.drain() => tracing::info!("drained"),
                name = signals.next() => tracing::warn!(signal = name, "ending at once"),
            }
            Ok(())
        })
}

/// Everything but the requests runs on the main thread.
fn control_runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

/// The threads that carry requests.
struct DataPlane {
    handle: runtime::Handle,
    /// Ends the runtime when dropped.
    _until: oneshot::Sender<()>,
}

impl DataPlane {
    /// One worker is a runtime of its own on a thread of its own: it shares nothing, so it pays for no
    /// work stealing. More share a work-stealing runtime.
    fn start(workers: usize) -> io::Result<Self> {
        let mut builder = match workers {
            0 | 1 => runtime::Builder::new_current_thread(),
            _ => runtime::Builder::new_multi_thread(),
        };
        if workers > 1 {
            builder.worker_threads(workers);
        }
        let runtime = builder.enable_all().thread_name("warifu-data").build()?;
        let handle = runtime.handle().clone();
        let (until, ended) = oneshot::channel::<()>();
        thread::Builder::new()
            .name("warifu-data".to_owned())
            .spawn(move || {
                let _ = runtime.block_on(ended);
                // Connections that outlived the drain are cut; nothing they do may hold the process.
                runtime.shutdown_timeout(Duration::from_millis(100));
            })?;
        Ok(Self {
            handle,
            _until: until,
        })
    }

    fn handle(&self) -> &runtime::Handle {
        &self.handle
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn listed<'a, T: std::fmt::Display + 'a>(addresses: impl IntoIterator<Item = &'a T>) -> String {
    let addresses: Vec<String> = addresses.into_iter().map(ToString::to_string).collect();
    if addresses.is_empty() {
        "-".to_owned()
    } else {
        addresses.join(", ")
    }
}

//! The configuration file and the Rego policies it names, read again while the agent runs.
//!
//! A file that is wrong changes nothing, nor does one that names what can't be used: what served goes on serving, and
//! the log says where the mistake is. What can't change while the agent runs is named, and waits for a restart.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval},
};

use super::Agent;
use crate::config::{AgentConfig, AgentFile, FileVersion};

/// How often the files are looked at. Kubernetes takes up to a minute to put a changed ConfigMap in place; a look is
/// one system call.
const LOOK: Duration = Duration::from_secs(2);

/// Waits for reasons to read the file again, and does it.
pub(super) struct Reload {
    path: PathBuf,
    /// What it names that is read again with it.
    policies: Vec<PathBuf>,
    /// As it was when the agent started: what a restart would change is told against it.
    started_with: AgentFile,
    /// The file, then its policies.
    seen: Vec<Option<FileVersion>>,
    /// Something changed, and may be half written: it is read when it was the same twice.
    unsettled: Option<&'static str>,
    hangup: Signal,
    look: Interval,
}

impl Reload {
    /// Of the file at `path`, which is `started_with`. From now on SIGHUP ends nothing.
    pub(super) fn new(path: &Path, started_with: AgentFile) -> io::Result<Self> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let policies = policies(&started_with.config);
        Ok(Self {
            path: path.to_owned(),
            seen: versions(started_with.version, &policies),
            policies,
            started_with,
            unsettled: None,
            hangup: signal(SignalKind::hangup())?,
            look,
        })
    }

    /// What the agent starts with.
    pub(super) fn config(&self) -> &AgentConfig {
        &self.started_with.config
    }

    /// Waits until the file should be read again, and has `agent` serve by it. Dropped, it changed all or nothing.
    pub(super) async fn next(&mut self, agent: &Agent) {
        let why = self.wanted().await;
        self.run(why, agent).await;
    }

    /// Waits until the file should be read again; says why. Nothing is lost when dropped.
    async fn wanted(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    self.seen = versions(FileVersion::of(&self.path), &self.policies);
                    self.unsettled = None;
                    return "SIGHUP";
                }
                _ = self.look.tick() => {}
            }
            let file = FileVersion::of(&self.path);
            // While it is being replaced it may be absent for a moment; that is no new version.
            if file.is_none() {
                continue;
            }
            let now = versions(file, &self.policies);
            if now != self.seen {
                let own = now.first() != self.seen.first();
                let why = if own {
                    "the file changed"
                } else {
                    "a policy changed"
                };
                (self.seen, self.unsettled) = (now, Some(why));
            } else if let Some(why) = self.unsettled.take() {
                return why;
            }
        }
    }

    /// Reads it, and applies what can be.
    async fn run(&mut self, why: &str, agent: &Agent) {
        let path = self.path.clone();
        let file = path.display();
        let new = match AgentFile::load(&self.path) {
            Ok(new) => new,
            Err(errors) => {
                for error in errors.to_string().lines() {
                    tracing::error!(why, "refused: {error}");
                }
                tracing::error!(why, %file, "the configuration is wrong; the one before stays in force");
                return;
            }
        };
        // Before they are read: a later version is not taken for the one that was.
        self.policies = policies(&new.config);
        self.seen = versions(new.version, &self.policies);
        if let Err(error) = agent.reload(&new.config).await {
            tracing::error!(why, "refused: {error}");
            tracing::error!(why, %file, "the configuration can't be served; the one before stays in force");
            return;
        }
        tracing::info!(why, %file, "the configuration was read again");
        let changed = self.started_with.changed_for_restart(&new);
        if !changed.is_empty() {
            let fields = changed.join(", ");
            tracing::warn!(%file, fields, "changed, and takes effect when the agent is restarted");
        }
    }
}

/// The files of Rego policies.
fn policies(config: &AgentConfig) -> Vec<PathBuf> {
    let rego = config.inbound.iter().filter_map(|it| it.rego.as_ref());
    rego.flat_map(|rego| rego.files.iter().cloned()).collect()
}

/// Of the file, and of its policies. One that is not there has a version, too: without it the policy is wrong.
fn versions(file: Option<FileVersion>, policies: &[PathBuf]) -> Vec<Option<FileVersion>> {
    let policies = policies.iter().map(|path| FileVersion::of(path));
    std::iter::once(file).chain(policies).collect()
}

//! The configuration file, read again while the agent runs.
//!
//! A file that is wrong changes nothing: the old rules go on deciding, and the log says where the mistake is.
//! What can't change while the agent runs is named, and waits for a restart.

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

/// How often the file is looked at. Kubernetes takes up to a minute to put a changed ConfigMap in place; a look is
/// one system call.
const LOOK: Duration = Duration::from_secs(2);

/// Waits for reasons to read the file again, and does it.
pub(super) struct Reload {
    path: PathBuf,
    /// As it was when the agent started: what a restart would change is told against it.
    started_with: AgentFile,
    seen: Option<FileVersion>,
    /// It changed, and may be half written: it is read when it was the same twice.
    unsettled: bool,
    hangup: Signal,
    look: Interval,
}

impl Reload {
    /// Of the file at `path`, which is `started_with`. From now on SIGHUP ends nothing.
    pub(super) fn new(path: &Path, started_with: AgentFile) -> io::Result<Self> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            path: path.to_owned(),
            seen: started_with.version,
            started_with,
            unsettled: false,
            hangup: signal(SignalKind::hangup())?,
            look,
        })
    }

    /// What the agent starts with.
    pub(super) fn config(&self) -> &AgentConfig {
        &self.started_with.config
    }

    /// Waits until the file should be read again; says why. Nothing is lost when dropped.
    pub(super) async fn wanted(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    self.seen = FileVersion::of(&self.path);
                    self.unsettled = false;
                    return "SIGHUP";
                }
                _ = self.look.tick() => {}
            }
            let now = FileVersion::of(&self.path);
            // While it is being replaced it may be absent for a moment; that is no new version.
            if now.is_none() {
                continue;
            }
            if now != self.seen {
                (self.seen, self.unsettled) = (now, true);
            } else if self.unsettled {
                self.unsettled = false;
                return "the file changed";
            }
        }
    }

    /// Reads it, and applies what can be.
    pub(super) fn run(&self, why: &str, agent: &Agent) {
        let file = self.path.display();
        let new = match AgentFile::load(&self.path) {
            Ok(new) => new,
            Err(errors) => {
                for error in errors.to_string().lines() {
                    tracing::error!(why, "refused: {error}");
                }
                tracing::error!(why, %file, "the configuration is wrong; the rules stay as they were");
                return;
            }
        };
        agent.replace_rules(&new.config);
        tracing::info!(why, %file, "the rules were read again");
        let changed = self.started_with.changed_for_restart(&new);
        if !changed.is_empty() {
            let fields = changed.join(", ");
            tracing::warn!(%file, fields, "changed, and takes effect when the agent is restarted");
        }
    }
}

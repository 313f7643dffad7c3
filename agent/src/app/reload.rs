//! The configuration file, read again while the agent runs.
//!
//! A file that is wrong changes nothing: the old rules go on deciding, and the log says where the mistake is.
//! What can't change while the agent runs is named, and waits for a restart.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval},
};

use super::Agent;
use crate::config::AgentFile;

/// How often the file is looked at. Kubernetes takes up to a minute to put a changed ConfigMap in place; a look is
/// one system call.
const LOOK: Duration = Duration::from_secs(2);

/// Waits for reasons to read the file again, and does it.
pub(super) struct Reload {
    path: PathBuf,
    /// As it was when the agent started: what a restart would change is told against it.
    started_with: AgentFile,
    seen: Option<Seen>,
    /// It changed, and may be half written: it is read when it was the same twice.
    unsettled: bool,
    hangup: Signal,
    look: Interval,
}

/// What tells a version of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: (u64, u64),
    length: u64,
    modified: Option<SystemTime>,
}

impl Reload {
    /// Of the file at `path`, which is `started_with`.
    pub(super) fn new(path: &Path, started_with: AgentFile) -> io::Result<Self> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            path: path.to_owned(),
            started_with,
            seen: Seen::at(path),
            unsettled: false,
            hangup: signal(SignalKind::hangup())?,
            look,
        })
    }

    /// Waits until the file should be read again; says why. Nothing is lost when dropped.
    pub(super) async fn wanted(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    self.seen = Seen::at(&self.path);
                    self.unsettled = false;
                    return "SIGHUP";
                }
                _ = self.look.tick() => {}
            }
            let now = Seen::at(&self.path);
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

impl Seen {
    fn at(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            inode: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }
}

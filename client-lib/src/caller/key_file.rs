//! The agent's public context keys, read from the file the agent wrote.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use thiserror::Error;

use super::context::CONTEXT_KEY_USE;
use crate::jwt::{JwtError, KeySet};

/// How often the file is looked at while its keys serve: a key the agent gave up is trusted no
/// longer than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Largest key file: an agent has one key, or two while it changes them.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Why there are no keys to verify a signed context with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the agent's context keys in {}: {why}", path.display())]
pub struct KeyFileError {
    path: PathBuf,
    why: String,
}

/// The file and what was read from it last.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last good keys: a file that cannot be read does not take them away.
    keys: Option<Arc<KeySet>>,
    /// Which file was read last, good or bad.
    seen: Option<Stamp>,
    /// What was wrong when it was read last.
    problem: Option<KeyFileError>,
    looked: Option<Instant>,
}

/// Tells one state of a file from another: replaced files differ in `ino`, rewritten ones in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    dev: u64,
    ino: u64,
    len: u64,
    changed: (i64, i64),
}

impl KeyFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            state: Mutex::default(),
        }
    }

    /// The current keys. Looks at the file when that was last done [`LOOK_EVERY`] ago, and always
    /// with `look` set, for a token whose key is not among them: looking is one `stat`, cheap
    /// enough to need no further limit, and the file is read only when it changed.
    pub(super) fn keys(&self, now: Instant, look: bool) -> Result<Arc<KeySet>, KeyFileError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let due = state
            .looked
            .is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_EVERY);
        if due || look {
            state.looked = Some(now);
            self.look(&mut state);
        }
        match (&state.keys, &state.problem) {
            (Some(keys), _) => Ok(Arc::clone(keys)),
            (None, Some(problem)) => Err(problem.clone()),
            (None, None) => Err(self.error("not read yet")),
        }
    }

    /// Reads the file if it changed. A small local file: read in place, without a thread for it.
    fn look(&self, state: &mut State) {
        let file = match fs::metadata(&self.path) {
            Ok(file) => file,
            Err(error) => {
                state.seen = None;
                state.problem = Some(self.error(format!("{error}; has the agent started?")));
                return;
            }
        };
        let stamp = Stamp::of(&file);
        if state.seen == Some(stamp) {
            return;
        }
        match self.read() {
            Ok((keys, read)) => {
                state.keys = Some(Arc::new(keys));
                state.seen = Some(read);
                state.problem = None;
            }
            Err(problem) => {
                state.seen = Some(stamp);
                state.problem = Some(problem);
            }
        }
    }

    fn read(&self) -> Result<(KeySet, Stamp), KeyFileError> {
        let file = File::open(&self.path).map_err(|error| self.error(error))?;
        // Of the opened file, not of what the path names by now.
        let about = file.metadata().map_err(|error| self.error(error))?;
        if !about.is_file() {
            return Err(self.error("not a regular file"));
        }
        // Whoever may write this file may name any caller.
        if about.mode() & 0o022 != 0 {
            return Err(self.error(format!(
                "its mode is {:o}, so others than its owner may write it; set it to 644",
                about.mode() & 0o777
            )));
        }
        let json = read_bounded(file).map_err(|error| self.error(error))?;
        let keys = KeySet::from_jwks(&json, CONTEXT_KEY_USE)
            .map_err(|error: JwtError| self.error(error))?;
        Ok((keys, Stamp::of(&about)))
    }

    fn error(&self, why: impl ToString) -> KeyFileError {
        KeyFileError {
            path: self.path.clone(),
            why: why.to_string(),
        }
    }
}

impl KeyFileError {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            dev: file.dev(),
            ino: file.ino(),
            len: file.len(),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

fn read_bounded(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "larger than {MAX_FILE_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

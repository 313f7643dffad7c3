//! The audit log: one JSON line per decision.
//!
//! [`Audit::write`] never makes a request wait, and may lose a line; [`Audit::write_and_wait`] is for what must
//! not be released before its line is out.
//!
//! A caller serialises its line into a buffer of its thread, and copies it into a shared one under a
//! lock held for the copy only. A thread of its own writes batches out. When the destination
//! stalls, lines are kept up to `MAX_PENDING` and dropped beyond, counted in
//! `warifu_audit_dropped_total` and said in the log.

mod sink;

use std::{
    cell::RefCell,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::oneshot;

use sink::Sink;

/// Bytes kept for a destination that stalls: about 30,000 lines, a second or more at full load.
const MAX_PENDING: usize = 16 << 20;

/// Bytes that are written at once without waiting for [`LINGER`].
const BATCH: usize = 64 << 10;

/// How long a line may wait for company: bounds wake-ups at 50 a second, and is short enough for
/// someone who watches.
const LINGER: Duration = Duration::from_millis(20);

/// How long the last handle waits for the rest to be written when the process ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A buffer larger than this is given back after a burst.
const KEEP_CAPACITY: usize = 2 * BATCH;

/// A handle to the audit log; cheap to clone. The last one to go flushes.
#[derive(Clone)]
pub struct Audit {
    to: To,
    dropped: Counter,
}

/// The lines of [`Audit::memory`], for tests.
#[derive(Debug, Clone)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

/// Why there is no audit log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The file can't be opened for appending.
    #[error("opening the audit log {path}: {source}; its directory must exist and be writable")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No thread to write it.
    #[error("starting the audit log's thread: {0}")]
    Thread(io::Error),
}

/// A line did not reach its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the audit log cannot be written")]
pub struct NotWritten;

#[derive(Clone)]
enum To {
    Nowhere,
    Memory(Lines),
    Writer(Arc<Writer>),
}

impl Audit {
    /// Writes to standard output.
    ///
    /// # Errors
    /// When the writing thread can't be started.
    pub fn stdout() -> Result<Self, AuditError> {
        Self::start(Sink::stdout())
    }

    /// Appends to the file `path` (created 0600), and reopens it after it was renamed or removed.
    ///
    /// # Errors
    /// When the file can't be opened, or the writing thread can't be started.
    pub fn file(path: &Path) -> Result<Self, AuditError> {
        let sink = Sink::file(path).map_err(|source| AuditError::Open {
            path: path.to_owned(),
            source,
        })?;
        Self::start(sink)
    }

    /// Keeps every line, for tests to read.
    pub fn memory() -> (Self, Lines) {
        let lines = Lines(Arc::default());
        let audit = Self {
            to: To::Memory(lines.clone()),
            dropped: Counter::default(),
        };
        (audit, lines)
    }

    /// Writes nothing.
    pub fn discard() -> Self {
        Self {
            to: To::Nowhere,
            dropped: Counter::default(),
        }
    }

    /// Registers `audit_dropped` (as `warifu_audit_dropped_total`).
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "audit_dropped",
            "Audit lines lost because their destination stalled or failed",
            self.dropped.clone(),
        );
    }

    /// Writes one line.
    pub fn write(&self, line: &impl Serialize) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with(|buffer| match buffer.try_borrow_mut() {
            Ok(mut buffer) => self.write_with(line, &mut buffer),
            // A line whose serialisation writes an audit line itself.
            Err(_) => self.write_with(line, &mut Vec::new()),
        });
    }

    /// Writes one line, and returns when its destination has it: handed to the system, that is, which
    /// keeps it if this process dies. Lines written at the same time share one write.
    ///
    /// # Errors
    /// When the destination is full, failed, or has stalled for so long that there is no room.
    pub async fn write_and_wait(&self, line: &impl Serialize) -> Result<(), NotWritten> {
        let mut text = serde_json::to_vec(line).map_err(|_| NotWritten)?;
        text.push(b'\n');
        match &self.to {
            To::Nowhere => Ok(()),
            To::Memory(lines) => {
                lock(&lines.0).extend_from_slice(&text);
                Ok(())
            }
            To::Writer(writer) => {
                let written = writer.shared.push_and_tell(&text).ok_or(NotWritten)?;
                match written.await {
                    Ok(true) => Ok(()),
                    Ok(false) | Err(_) => Err(NotWritten),
                }
            }
        }
    }

    /// Waits until every line written before is out, at most `timeout`; false if it was too short.
    /// Blocks: for the end of the process and for tests.
    pub fn flush(&self, timeout: Duration) -> bool {
        match &self.to {
            To::Nowhere | To::Memory(_) => true,
            To::Writer(writer) => writer.shared.flush(timeout),
        }
    }

    fn start(sink: Sink) -> Result<Self, AuditError> {
        let dropped = Counter::default();
        let writer = Writer::start(sink, dropped.clone()).map_err(AuditError::Thread)?;
        Ok(Self {
            to: To::Writer(Arc::new(writer)),
            dropped,
        })
    }

    fn write_with(&self, line: &impl Serialize, buffer: &mut Vec<u8>) {
        if matches!(self.to, To::Nowhere) {
            return;
        }
        buffer.clear();
        if serde_json::to_writer(&mut *buffer, line).is_err() {
            self.dropped.inc();
            return;
        }
        buffer.push(b'\n');
        let kept = match &self.to {
            To::Nowhere => true,
            To::Memory(lines) => {
                lock(&lines.0).extend_from_slice(buffer);
                true
            }
            To::Writer(writer) => writer.shared.push(buffer),
        };
        if !kept {
            self.dropped.inc();
        }
        if buffer.capacity() > KEEP_CAPACITY {
            *buffer = Vec::new();
        }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

impl Lines {
    /// Every line so far, parsed.
    pub fn all(&self) -> Vec<serde_json::Value> {
        lock(&self.0)
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }
}

/// What the handles and the writing thread share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the writing thread.
    work: Condvar,
    /// Wakes those who flush.
    written: Condvar,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    /// Lines refused since the log last said so.
    refused: u64,
    /// The writing thread has nothing to do and waits for a first line.
    idle: bool,
    /// Bytes ever accepted, and ever handed to the destination.
    accepted: u64,
    done: u64,
    /// Someone waits: don't linger.
    hurry: bool,
    /// Told whether the pending lines were written.
    waiting: Vec<oneshot::Sender<bool>>,
    closed: bool,
}

/// Lines to be written together.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    waiting: Vec<oneshot::Sender<bool>>,
    /// Lines refused before, for want of room.
    refused: u64,
}

impl Shared {
    /// Appends a line; false if there is no room.
    fn push(&self, line: &[u8]) -> bool {
        let mut state = lock(&self.state);
        let before = state.pending.len();
        if !state.append(line) {
            return false;
        }
        let full = before < BATCH && state.pending.len() >= BATCH;
        if state.idle || full {
            state.idle = false;
            drop(state);
            self.work.notify_one();
        }
        true
    }

    /// Appends a line at whose fate the receiver tells; `None` if there is no room.
    fn push_and_tell(&self, line: &[u8]) -> Option<oneshot::Receiver<bool>> {
        let mut state = lock(&self.state);
        if !state.append(line) {
            return None;
        }
        let (tell, told) = oneshot::channel();
        state.waiting.push(tell);
        let was_told = std::mem::replace(&mut state.hurry, true);
        state.idle = false;
        drop(state);
        // Whoever hurried it before has woken it, and it takes this line along.
        if !was_told {
            self.work.notify_one();
        }
        Some(told)
    }

    fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = lock(&self.state);
        let goal = state.accepted;
        while state.done < goal {
            state.hurry = true;
            self.work.notify_one();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self
                .written
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Waits for lines and swaps them with the empty `batch`. False when closed and all is written.
    fn take(&self, batch: &mut Batch) -> bool {
        let mut state = lock(&self.state);
        while state.pending.is_empty() {
            if state.closed {
                return false;
            }
            state.idle = true;
            state = wait(&self.work, state);
        }
        state.idle = false;
        let deadline = Instant::now() + LINGER;
        while state.pending.len() < BATCH && !state.hurry && !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self
                .work
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.hurry = false;
        std::mem::swap(&mut state.pending, &mut batch.bytes);
        std::mem::swap(&mut state.waiting, &mut batch.waiting);
        batch.refused = std::mem::take(&mut state.refused);
        true
    }

    fn wrote(&self, bytes: usize) {
        lock(&self.state).done += bytes as u64;
        self.written.notify_all();
    }
}

impl State {
    /// False if there is no room.
    fn append(&mut self, line: &[u8]) -> bool {
        if self.pending.len() + line.len() > MAX_PENDING {
            self.refused += 1;
            return false;
        }
        self.pending.extend_from_slice(line);
        self.accepted += line.len() as u64;
        true
    }
}

/// Owns the writing thread.
struct Writer {
    shared: Arc<Shared>,
}

impl Writer {
    fn start(mut sink: Sink, dropped: Counter) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                let mut batch = Batch::default();
                while theirs.take(&mut batch) {
                    if batch.refused > 0 {
                        tracing::error!(
                            lines = batch.refused,
                            "audit lines were dropped: their destination stalled"
                        );
                    }
                    let written = sink.write(&batch.bytes);
                    for waiting in batch.waiting.drain(..) {
                        let _ = waiting.send(written.is_ok());
                    }
                    if let Err(error) = written {
                        let lines =
                            batch.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                        dropped.inc_by(lines);
                        tracing::error!(lines, %error, "audit lines were dropped: writing failed");
                    }
                    theirs.wrote(batch.bytes.len());
                    batch.bytes.clear();
                    batch.bytes.shrink_to(KEEP_CAPACITY);
                }
            })?;
        Ok(Self { shared })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.work.notify_one();
        // The thread is not joined: a destination that stalls must not keep the process alive.
        if !self.shared.flush(CLOSE_TIMEOUT) {
            tracing::error!("the audit log's destination stalled: its last lines may be lost");
        }
    }
}

/// A panic elsewhere must not end the audit log; what the lock guards is whole after every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::mpsc};

    use super::*;

    #[derive(Serialize)]
    struct Line<'a> {
        n: u32,
        path: &'a str,
    }

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn lines_are_whole_and_in_order() {
        let (audit, lines) = Audit::memory();
        for n in 0..3 {
            audit.write(&Line { n, path: "/a\nb" });
        }
        let numbers: Vec<_> = lines.all().iter().map(|line| line["n"].clone()).collect();
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(lines.all()[0]["path"], "/a\nb");
    }

    #[test]
    fn s12_a_file_is_private_and_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        for n in 0..2 {
            let audit = Audit::file(&path).unwrap();
            audit.write(&Line { n, path: "/" });
            // Dropping the last handle flushes.
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"n\":0,\"path\":\"/\"}\n{\"n\":1,\"path\":\"/\"}\n");
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_renamed_file_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("audit.log"), dir.path().join("audit.log.1"));
        let audit = Audit::file(&path).unwrap();
        audit.write(&1);
        assert!(audit.flush(LONG));
        std::fs::rename(&path, &old).unwrap();
        audit.write(&2);
        assert!(audit.flush(LONG));
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "1\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2\n");
    }

    #[test]
    fn a_missing_directory_is_an_error_that_says_what_to_do() {
        let error = Audit::file(Path::new("/nonexistent/audit.log")).unwrap_err();
        assert!(
            error.to_string().contains("its directory must exist"),
            "{error}"
        );
    }

    #[test]
    fn s14_a_stalled_destination_costs_lines_that_are_counted_never_a_wait() {
        let (reached, is_reached) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let audit = Audit::start(Sink::test(move |_| {
            let _ = reached.send(());
            let _ = released.recv();
            Ok(())
        }))
        .unwrap();
        audit.write(&"first");
        is_reached.recv().unwrap();
        let line = "x".repeat(1 << 20);
        for _ in 0..20 {
            audit.write(&line);
        }
        assert_eq!(audit.dropped.get(), 5, "15 lines of 1 MiB and a bit fit");
        assert!(!audit.flush(Duration::from_millis(1)));
        drop(release);
        assert!(audit.flush(LONG));
        audit.write(&line);
        assert_eq!(
            audit.dropped.get(),
            5,
            "there is room again after the stall"
        );
    }

    #[test]
    fn a_failed_write_counts_its_lines_as_dropped() {
        let audit = Audit::start(Sink::test(|_| Err(io::ErrorKind::StorageFull.into()))).unwrap();
        audit.write(&1);
        audit.write(&2);
        assert!(audit.flush(LONG));
        assert_eq!(audit.dropped.get(), 2);
    }

    #[tokio::test]
    async fn a_line_that_is_waited_for_is_out_when_the_wait_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let audit = Audit::file(&path).unwrap();
        for n in 1..=3 {
            audit.write(&"in passing");
            audit.write_and_wait(&n).await.unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.ends_with(&format!("{n}\n")), "{text}");
        }
    }

    #[tokio::test]
    async fn who_waits_learns_that_a_line_was_lost() {
        let audit = Audit::start(Sink::test(|_| Err(io::ErrorKind::StorageFull.into()))).unwrap();
        assert_eq!(audit.write_and_wait(&1).await, Err(NotWritten));

        let (reached, is_reached) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let audit = Audit::start(Sink::test(move |_| {
            let _ = reached.send(());
            let _ = released.recv();
            Ok(())
        }))
        .unwrap();
        audit.write(&"first");
        is_reached.recv().unwrap();
        audit.write(&"x".repeat(MAX_PENDING - 8));
        assert_eq!(
            audit.write_and_wait(&"no room for it").await,
            Err(NotWritten)
        );
        drop(release);
    }
}

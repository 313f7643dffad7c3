//! A process that runs, what it writes, and how it ended.

use std::{
    io::Read,
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a test waits for what should take moments: other tests and builds run on the same cores.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often an end that cannot be waited for is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// A process. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// A process that ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// What a stream brought so far.
#[derive(Debug, Clone, Default)]
struct Output(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Running {
    /// Starts `command`.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(mut command: std::process::Command) -> Self {
        let what = format!("{command:?}");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|why| panic!("starting {what}: {why}"));
        let (stdout, stderr) = (Output::default(), Output::default());
        stdout.follow(child.stdout.take().expect("a pipe"));
        stderr.follow(child.stderr.take().expect("a pipe"));
        Self {
            what,
            child,
            stdout,
            stderr,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits for a line of standard error (the log) that contains `text`, and returns the first.
    ///
    /// # Panics
    /// When it ends, or [`DEADLINE`] passes, without one; with all it said.
    pub fn wait_for(&self, text: &str) -> Value {
        let found = self.stderr.wait(|said| {
            let line = said.lines().find(|line| line.contains(text))?;
            match serde_json::from_str(line) {
                Ok(line) => Some(line),
                // The rest of it is on its way.
                Err(_) if line.starts_with('{') => None,
                Err(_) => Some(line.into()),
            }
        });
        found.unwrap_or_else(|| panic!("{} never said {text:?}:\n{}", self.what, self.said()))
    }

    /// As [`Running::wait_for`], on standard output (the audit log).
    ///
    /// # Panics
    /// As [`Running::wait_for`].
    pub fn wait_for_audit(&self, text: &str) -> Value {
        let found = self.stdout.wait(|said| {
            let line = said.lines().find(|line| line.contains(text))?;
            serde_json::from_str(line).ok()
        });
        found.unwrap_or_else(|| panic!("{} never wrote {text:?}:\n{}", self.what, self.said()))
    }

    /// As [`Running::wait_for`], on standard output, any text.
    ///
    /// # Panics
    /// As [`Running::wait_for`].
    pub fn wait_for_output(&self, text: &str) -> String {
        let found = self.stdout.wait(|said| {
            let line = said.lines().find(|line| line.contains(text))?;
            Some(line.to_owned())
        });
        found.unwrap_or_else(|| panic!("{} never said {text:?}:\n{}", self.what, self.said()))
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal)
            .unwrap_or_else(|why| panic!("signalling {}: {why}", self.what));
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When that takes longer than [`DEADLINE`].
    pub fn ended(mut self) -> Finished {
        let status = self.wait();
        let said = self.said();
        let status = status.unwrap_or_else(|| panic!("{} does not end:\n{said}", self.what));
        // The readers end with the pipes, a moment after the process.
        for output in [&self.stdout, &self.stderr] {
            let _ = output.wait(|_| None::<()>);
        }
        Finished {
            code: status.code(),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    fn wait(&mut self) -> Option<ExitStatus> {
        let began = Instant::now();
        while began.elapsed() < DEADLINE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(LOOK);
        }
        None
    }

    fn said(&self) -> String {
        format!(
            "{}\n--- on standard output:\n{}",
            self.stderr(),
            self.stdout()
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended; nothing here could do more about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    fn follow(&self, mut stream: impl Read + Send + 'static) {
        let output = self.clone();
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let read = stream.read(&mut buffer).unwrap_or(0);
                let (state, told) = &*output.0;
                let mut state = state.lock().expect("no panic while it is held");
                state.bytes.extend(buffer.iter().take(read));
                state.ended = read == 0;
                told.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
    }

    fn text(&self) -> String {
        let (state, _) = &*self.0;
        let state = state.lock().expect("no panic while it is held");
        String::from_utf8_lossy(&state.bytes).into_owned()
    }

    /// What `find` finds in the text, looked for whenever there is more of it.
    fn wait<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (state, told) = &*self.0;
        let until = Instant::now() + DEADLINE;
        let mut state = state.lock().expect("no panic while it is held");
        loop {
            if let Some(found) = find(&String::from_utf8_lossy(&state.bytes)) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = told
                .wait_timeout(state, left)
                .expect("no panic while it is held")
                .0;
        }
    }
}

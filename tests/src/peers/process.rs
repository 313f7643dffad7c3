//! A peer's process: in a group of its own, tied to ours, its output in a file.

use std::{
    ffi::OsStr,
    fmt,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Unavailable, python, script, venv};

/// How much of a log is shown when a test fails.
const SHOWN_LINES: usize = 60;

/// Killing takes milliseconds; this is for a machine that is very busy.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A process that ends, children and all, when this is dropped or when the test process dies.
pub struct Tied {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Tied {
    /// Runs `program` with `args` and exactly the environment `env`, beside `PATH` and `LANG`.
    /// Standard output and error go to a file, which is shown if the test panics.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn run<A: AsRef<OsStr>>(
        name: &'static str,
        program: &Path,
        args: &[A],
        env: &[(&str, &OsStr)],
    ) -> Result<Self, Unavailable> {
        let fail = |why: String| Unavailable::new(name, why);
        let log = log_file(name).map_err(fail)?;
        let out =
            File::create(&log).map_err(|e| fail(format!("creating {}: {e}", log.display())))?;
        let err = out.try_clone().map_err(|e| fail(e.to_string()))?;
        let mut command = Command::new(python()?);
        command
            .arg(script("tied.py"))
            .arg(program)
            .args(args)
            .env_clear()
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        for inherited in ["PATH", "LANG"] {
            if let Some(value) = std::env::var_os(inherited) {
                command.env(inherited, value);
            }
        }
        let child = command
            .spawn()
            .map_err(|e| fail(format!("starting {}: {e}", program.display())))?;
        Ok(Self { name, child, log })
    }

    /// The process group's leader.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn exited(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The end of what it wrote.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(SHOWN_LINES);
        lines.get(from..).unwrap_or(&[]).join("\n")
    }
}

impl fmt::Debug for Tied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.pid(), self.log.display())
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        // `tied.py` kills the command, waits for it, then kills its group and so itself.
        drop(self.child.stdin.take());
        let deadline = Instant::now() + GONE_WITHIN;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                // Not yet waited for, so the number is still that process's.
                let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if std::thread::panicking() {
            eprintln!("--- {} said ({}):", self.name, self.log.display());
            eprintln!("{}\n---", self.log_tail());
        } else {
            let _ = fs::remove_file(&self.log);
        }
    }
}

fn log_file(name: &str) -> Result<PathBuf, String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let dir = venv::target_dir()?.join("peers/logs");
    fs::create_dir_all(&dir).map_err(|e| format!("creating {}: {e}", dir.display()))?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(dir.join(format!("{name}-{}-{count}.log", std::process::id())))
}

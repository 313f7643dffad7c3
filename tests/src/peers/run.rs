//! A peer that does one thing and ends.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{Unavailable, python, script};

/// The slowest does two calls of 30 s each at worst.
const ENDS_WITHIN: Duration = Duration::from_secs(90);

/// How a peer ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Whether its exit code was 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `program` to its end with `input` as its standard input. It inherits no environment but `PATH`:
/// no proxy and no credential of this machine takes part.
///
/// # Errors
/// When it can't be started, or does not end in time (it is killed then).
pub async fn run<A: AsRef<OsStr>>(
    name: &'static str,
    program: &Path,
    args: &[A],
    input: impl AsRef<[u8]>,
) -> Result<Ended, Unavailable> {
    let fail = |what: &str, why: &dyn std::fmt::Display| {
        Unavailable::new(name, format!("{what} {}: {why}", program.display()))
    };
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|why| fail("starting", &why))?;
    let stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // Who ends before it has read everything has read enough.
            let _ = stdin.write_all(input.as_ref()).await;
        }
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    let output = timeout(ENDS_WITHIN, both)
        .await
        .map_err(|_| fail("running", &format!("it did not end within {ENDS_WITHIN:?}")))?
        .map_err(|why| fail("running", &why))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ended {
        success: output.status.success(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    })
}

/// Runs a script of `tests/peers/` with the Python peers.
///
/// # Errors
/// As [`run`], and when the Python peers can't be had.
pub async fn run_python<A: AsRef<OsStr>>(
    name: &'static str,
    args: &[A],
) -> Result<Ended, Unavailable> {
    let python = tokio::task::spawn_blocking(python)
        .await
        .map_err(|why| Unavailable::new("the Python peers", why))??;
    let script = script(name);
    let all: Vec<&OsStr> = std::iter::once(script.as_os_str())
        .chain(args.iter().map(AsRef::as_ref))
        .collect();
    run(name, &python, &all, "").await
}

/// A program of this machine: `openssl`, `curl`.
///
/// # Errors
/// When no directory of `PATH` has it.
pub fn installed(program: &'static str) -> Result<PathBuf, Unavailable> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| Unavailable::new(program, "it is in no directory of PATH; install it"))
}

impl Ended {
    /// Standard output as JSON.
    ///
    /// # Panics
    /// When the peer failed, or said something else; with all that it said.
    #[track_caller]
    #[allow(clippy::panic, reason = "what the peer said is why the test fails")]
    pub fn json(&self) -> serde_json::Value {
        let read = serde_json::from_str(&self.stdout);
        match read {
            Ok(value) if self.success => value,
            _ => panic!("the peer failed:\n{}{}", self.stdout, self.stderr),
        }
    }
}

//! What happens when the files changed: a program is told, or one is run.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    fs::OFlags,
    process::{Pid, Signal, getpid, kill_process, kill_process_group},
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::timeout,
};

use crate::config::local;

/// A reload takes a moment; what takes longer hangs.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// What a command says is kept up to this length, of each stream.
const MAX_OUTPUT: u64 = 4 * 1024;

/// What a command left running may hold its output open; the command itself has ended.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);

/// PostgreSQL's has eight lines.
const MAX_PID_FILE: u64 = 4 * 1024;

/// Why nobody was told.
#[derive(Debug, Error)]
pub(super) enum AfterError {
    #[error("reading the pid file {path}: {why}; is its program running?")]
    PidFile { path: PathBuf, why: io::Error },
    #[error("the pid file {path} {why}; nothing was signalled")]
    Pid { path: PathBuf, why: &'static str },
    #[error(
        "signalling process {pid} of the pid file {path}: {why}; the agent needs the right to signal it (the same \
         user, or CAP_KILL), and the same process namespace"
    )]
    Signal {
        pid: i32,
        path: PathBuf,
        why: io::Error,
    },
    #[error("running {program}: {why}")]
    Start { program: String, why: io::Error },
    #[error("{program} did not end within {COMMAND_TIMEOUT:?}, and was killed; it said: {said:?}")]
    Hung { program: String, said: String },
    #[error("{program} failed ({status}); it said: {said:?}")]
    Failed {
        program: String,
        status: ExitStatus,
        said: String,
    },
}

/// Does what the configuration says.
pub(super) async fn run(after: &local::After) -> Result<(), AfterError> {
    match after {
        local::After::Signal { pid_file, signal } => {
            let (path, signal) = (pid_file.clone(), *signal);
            // A file may be on a disk that hangs.
            let signalled = tokio::task::spawn_blocking(move || self::signal(&path, signal)).await;
            signalled.unwrap_or_else(|why| {
                let (path, why) = (pid_file.clone(), io::Error::other(why));
                Err(AfterError::PidFile { path, why })
            })
        }
        local::After::Command(command) => self::command(command, COMMAND_TIMEOUT).await,
    }
}

fn signal(path: &Path, signal: local::Signal) -> Result<(), AfterError> {
    let number = read_pid(path)?;
    let error = |why| AfterError::Pid {
        path: path.to_owned(),
        why,
    };
    let pid = Pid::from_raw(number).ok_or_else(|| error("holds no process number"))?;
    if pid == getpid() {
        return Err(error("names this agent itself"));
    }
    let (name, signal) = match signal {
        local::Signal::Hup => ("HUP", Signal::HUP),
        local::Signal::Usr1 => ("USR1", Signal::USR1),
        local::Signal::Usr2 => ("USR2", Signal::USR2),
    };
    match kill_process(pid, signal) {
        Ok(()) => {
            tracing::info!(pid = number, signal = name, "told the program of new files");
            Ok(())
        }
        Err(rustix::io::Errno::SRCH) => Err(error("names a process that does not exist")),
        Err(why) => Err(AfterError::Signal {
            pid: number,
            path: path.to_owned(),
            why: why.into(),
        }),
    }
}

/// The number in the first line of a pid file. 0 and 1 are no program's: the one means all of this process's group,
/// the other the machine or the container. Nor is what is negative: a group.
fn read_pid(path: &Path) -> Result<i32, AfterError> {
    let failed = |why| AfterError::PidFile {
        path: path.to_owned(),
        why,
    };
    let wrong = |why| AfterError::Pid {
        path: path.to_owned(),
        why,
    };
    let mut options = OpenOptions::new();
    // Whoever puts a pipe there must not hold us up.
    options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(wrong("is not a file"));
    }
    let mut text = Vec::new();
    file.take(MAX_PID_FILE)
        .read_to_end(&mut text)
        .map_err(failed)?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.trim_ascii();
    let digits = std::str::from_utf8(line).ok();
    let digits = digits.filter(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse::<i32>().ok());
    match number {
        None => Err(wrong("holds no process number")),
        Some(0 | 1) => Err(wrong("names process 0 or 1")),
        Some(number) => Ok(number),
    }
}

async fn command(command: &[String], limit: Duration) -> Result<(), AfterError> {
    let [program, arguments @ ..] = command else {
        return Ok(());
    };
    let start_error = |why| AfterError::Start {
        program: program.clone(),
        why,
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        // What the agent was told of its environment, credentials of AWS among it, is not for its children.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(start_error)?;
    let mut group = Group::of(&child);
    let stdout = tokio::spawn(read(child.stdout.take()));
    let stderr = tokio::spawn(read(child.stderr.take()));
    let ended = timeout(limit, child.wait()).await;
    let status = match ended {
        Ok(status) => {
            group.ended();
            Some(status.map_err(start_error)?)
        }
        Err(_) => {
            group.kill();
            let _ = child.wait().await;
            None
        }
    };
    let said = [text(stdout).await, text(stderr).await].concat();
    let program = program.clone();
    match status {
        None => Err(AfterError::Hung { program, said }),
        Some(status) if !status.success() => Err(AfterError::Failed {
            program,
            status,
            said,
        }),
        Some(status) => {
            tracing::info!(program, %status, ?said, "ran the command for new files");
            Ok(())
        }
    }
}

/// The beginning of a stream. The rest is read, too: who writes must not wait for us.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(stream) = stream {
        let mut stream = stream.take(MAX_OUTPUT);
        let _ = stream.read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut stream.into_inner(), &mut tokio::io::sink()).await;
    }
    kept
}

async fn text(mut reading: tokio::task::JoinHandle<Vec<u8>>) -> String {
    match timeout(OUTPUT_TIMEOUT, &mut reading).await {
        Ok(read) => String::from_utf8_lossy(&read.unwrap_or_default()).into_owned(),
        Err(_) => {
            reading.abort();
            "(what it started holds its output open)".to_owned()
        }
    }
}

/// A command and what it started: killed when this is dropped, unless it ended by itself.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        Self(pid.and_then(Pid::from_raw))
    }

    /// What it left running is its own business: reloads start servers.
    fn ended(&mut self) {
        self.0 = None;
    }

    fn kill(&mut self) {
        if let Some(pid) = self.0.take() {
            // The leader has not been waited for: the number is still its group's.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, time::Instant};

    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_pid_file_that_holds_garbage_is_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let us = std::process::id().to_string();
        for garbage in [
            "",
            "\n",
            "0",
            "1",
            "-1",
            "+7",
            "12a",
            "0x10",
            "99999999999",
            " \n12",
            "one",
            us.as_str(),
            // The most that a process number can be: nobody has it.
            "4194304\n",
        ] {
            fs::write(&path, garbage).unwrap();
            let refused = signal(&path, local::Signal::Hup).unwrap_err();
            assert!(
                matches!(refused, AfterError::Pid { .. }),
                "{garbage:?}: {refused}"
            );
            assert!(refused.to_string().ends_with("nothing was signalled"));
        }
        fs::write(&path, [b'7'; 10_000]).unwrap();
        assert!(signal(&path, local::Signal::Hup).is_err());
        fs::remove_file(&path).unwrap();
        let missing = signal(&path, local::Signal::Hup).unwrap_err();
        assert!(
            missing.to_string().contains("is its program running?"),
            "{missing}"
        );
        symlink(dir.path(), &path).unwrap();
        assert!(signal(&path, local::Signal::Hup).is_err(), "a directory");
    }

    #[test]
    fn the_first_line_of_a_pid_file_names_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postmaster.pid");
        fs::write(
            &path,
            "4711\n/var/lib/postgresql/15/main\n1763662440\n5432\n",
        )
        .unwrap();
        assert_eq!(read_pid(&path).unwrap(), 4711);
        fs::write(&path, " 4711 ").unwrap();
        assert_eq!(read_pid(&path).unwrap(), 4711);
    }

    #[tokio::test]
    async fn a_command_gets_its_arguments_as_they_are_and_no_environment() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut command = shell("printf %s \"$1\" > \"$2\"; env >> \"$2\"; pwd >> \"$2\"");
        command.extend(["sh", "$(id); `id` *", out.to_str().unwrap()].map(str::to_owned));
        self::command(&command, COMMAND_TIMEOUT).await.unwrap();
        let said = fs::read_to_string(&out).unwrap();
        assert!(said.starts_with("$(id); `id` *"), "{said}");
        assert!(said.contains("PATH="), "{said}");
        assert!(!said.contains("CARGO") && !said.contains("HOME="), "{said}");
        assert!(said.ends_with("/\n"), "{said}");
    }

    #[tokio::test]
    async fn a_command_that_fails_or_is_not_there_is_an_error_that_says_why() {
        let failed = command(&shell("echo no good >&2; exit 3"), COMMAND_TIMEOUT).await;
        let failed = failed.unwrap_err().to_string();
        assert!(
            failed.contains("exit status: 3") && failed.contains("no good"),
            "{failed}"
        );
        let missing = command(&["/nonexistent/reload".to_owned()], COMMAND_TIMEOUT).await;
        let missing = missing.unwrap_err().to_string();
        assert!(
            missing.starts_with("running /nonexistent/reload: "),
            "{missing}"
        );
    }

    #[tokio::test]
    async fn s14_a_command_that_hangs_is_killed_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let began = Instant::now();
        let hung = command(&shell(&script), Duration::from_millis(500)).await;
        assert!(matches!(hung, Err(AfterError::Hung { .. })), "{hung:?}");
        assert!(began.elapsed() < Duration::from_secs(20));
        let child = fs::read_to_string(&pid).unwrap().trim().to_owned();
        let is_gone = || {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        while !is_gone() {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{child} lives on"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn s14_what_a_command_says_is_kept_up_to_a_bound_and_never_waited_for() {
        let loud = "head -c 1000000 /dev/zero | tr '\\0' x; exit 1";
        let AfterError::Failed { said, .. } =
            command(&shell(loud), COMMAND_TIMEOUT).await.unwrap_err()
        else {
            panic!("it ended with 1");
        };
        assert_eq!(said.len() as u64, MAX_OUTPUT);
        let began = Instant::now();
        command(&shell("sleep 5 & true"), COMMAND_TIMEOUT)
            .await
            .unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "waited for what it left running"
        );
    }
}

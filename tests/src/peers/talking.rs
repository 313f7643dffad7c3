//! A peer that answers questions, each a line of JSON, for as long as it is held.

use std::{ffi::OsStr, path::Path, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{Unavailable, python, script};

/// A running one.
#[derive(Debug)]
pub struct Talking {
    name: &'static str,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Killed when dropped; it also ends by itself when its input does.
    _child: Child,
}

impl Talking {
    /// A script of `tests/peers/` with the Python peers.
    ///
    /// # Errors
    /// When the Python peers can't be had.
    pub async fn python<A: AsRef<OsStr>>(
        name: &'static str,
        args: &[A],
    ) -> Result<Self, Unavailable> {
        let python = tokio::task::spawn_blocking(python)
            .await
            .map_err(|why| Unavailable::new("the Python peers", why))??;
        let mut command = alone(&python);
        command.arg(script(name)).args(args);
        Self::start(name, command)
    }

    /// A command of the Go peer.
    ///
    /// # Errors
    /// When the Go peer can't be had.
    #[cfg(feature = "peers-go")]
    pub async fn go<A: AsRef<OsStr>>(
        command: &'static str,
        args: &[A],
    ) -> Result<Self, Unavailable> {
        let mut peer = alone(&super::go::binary().await?);
        peer.args([command, "-trust-domain", crate::mesh::TRUST_DOMAIN]);
        peer.args(args);
        Self::start(command, peer)
    }

    /// Starts `command`, whose environment is the caller's to clear.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(name: &'static str, mut command: Command) -> Result<Self, Unavailable> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|why| Unavailable::new(name, why))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Unavailable::new(name, "its pipes are missing"));
        };
        Ok(Self {
            name,
            input,
            output: BufReader::new(output).lines(),
            _child: child,
        })
    }

    /// What it answers.
    ///
    /// # Errors
    /// When it ended, or said something else.
    pub async fn ask(&mut self, question: &Value) -> Result<Value, Unavailable> {
        let exchange = async {
            let question = format!("{question}\n");
            self.input.write_all(question.as_bytes()).await?;
            let Some(line) = self.output.next_line().await? else {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            };
            Ok(serde_json::from_str(&line)?)
        };
        let answer: std::io::Result<Value> = exchange.await;
        answer.map_err(|why| Unavailable::new(self.name, why))
    }
}

/// No proxy and no credential of this machine takes part.
fn alone(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

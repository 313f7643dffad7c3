//! AWS SDKs and the AWS CLI as apps use them: their default credential chain, and nothing of ours.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

use super::{Unavailable, python, script, talking::Talking};

/// Above the SDKs' own time-outs, with their attempts.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);

/// Variables for the SDK.
pub type Environment = BTreeMap<&'static str, String>;

/// One SDK.
#[derive(Debug)]
pub struct AwsSdk {
    /// Which.
    pub name: &'static str,
    home: TempDir,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A process that answers questions.
    Talks(Box<Talking>),
    /// A process for each question.
    Cli(PathBuf),
    /// This test binary again, with the test that asks.
    Rust(&'static str),
}

/// Says, in the environment of a test binary that was run again, that it is to ask.
pub const RUST_ASKS: &str = "WARIFU_TEST_ASK_AWS";

impl AwsSdk {
    /// boto3.
    ///
    /// # Errors
    /// When the Python peers can't be had.
    pub async fn boto3() -> Result<Self, Unavailable> {
        let python = interpreter().await?;
        let mut command = Command::new(python);
        command.arg(script("aws_client.py"));
        Self::talking("boto3", command)
    }

    /// The AWS CLI.
    ///
    /// # Errors
    /// When the Python peers can't be had.
    pub async fn cli() -> Result<Self, Unavailable> {
        let program = interpreter().await?.with_file_name("aws");
        Self::new("the AWS CLI", Kind::Cli(program))
    }

    /// The AWS SDK for Rust, in a process that is this test binary's: it runs `test`, which asks where [`RUST_ASKS`]
    /// says so.
    ///
    /// # Errors
    /// When there is no directory for it.
    pub fn rust(test: &'static str) -> Result<Self, Unavailable> {
        Self::new("the AWS SDK for Rust", Kind::Rust(test))
    }

    /// The AWS SDK for JavaScript v3.
    ///
    /// # Errors
    /// When the JavaScript peers can't be had.
    #[cfg(feature = "peers-js")]
    pub async fn js() -> Result<Self, Unavailable> {
        let modules = tokio::task::spawn_blocking(super::js::modules)
            .await
            .map_err(|why| Unavailable::new("the JavaScript peers", why))??;
        let mut command = Command::new("node");
        command
            .arg(script("js/aws_client.cjs"))
            .env("NODE_PATH", modules);
        Self::talking("the AWS SDK for JavaScript", command)
    }

    /// The AWS SDK for Go v2.
    ///
    /// # Errors
    /// When the Go peers can't be had.
    #[cfg(feature = "peers-go")]
    pub async fn go() -> Result<Self, Unavailable> {
        let mut command = Command::new(super::go::binary().await?);
        command.args(["aws", "-trust-domain", "example.org"]);
        Self::talking("the AWS SDK for Go", command)
    }

    /// Whether its clients live on.
    pub fn keeps_clients(&self) -> bool {
        matches!(self.kind, Kind::Talks(_))
    }

    fn new(name: &'static str, kind: Kind) -> Result<Self, Unavailable> {
        let home = tempfile::tempdir().map_err(|why| Unavailable::new(name, why))?;
        Ok(Self { name, home, kind })
    }

    fn talking(name: &'static str, command: Command) -> Result<Self, Unavailable> {
        let fail = |why: &dyn std::fmt::Display| Unavailable::new(name, why);
        let node_path = command
            .as_std()
            .get_envs()
            .find_map(|(name, value)| Some((name == "NODE_PATH").then_some(value?)?.to_owned()));
        let home = tempfile::tempdir().map_err(|why| fail(&why))?;
        let mut command = command;
        clean(&mut command, home.path());
        if let Some(path) = node_path {
            command.env("NODE_PATH", path);
        }
        let talking = Talking::start(name, command)?;
        let kind = Kind::Talks(Box::new(talking));
        Ok(Self { name, home, kind })
    }

    /// Asks who it is (`sts:GetCallerIdentity`), with this environment. `kept`: with the client of this name, which is
    /// made once and lives on, where the SDK has a process that does; else with a new one. The answer has `arn`; or
    /// `error`, what the SDK says.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn ask(
        &mut self,
        environment: &Environment,
        kept: Option<&str>,
    ) -> Result<Value, Unavailable> {
        let name = self.name;
        let answer = async {
            match &mut self.kind {
                Kind::Talks(process) => {
                    let question = json!({"env": environment, "kept": kept});
                    process.ask(&question).await.map_err(std::io::Error::other)
                }
                Kind::Cli(program) => {
                    let mut command = Command::new(program);
                    clean(&mut command, self.home.path());
                    command.envs(environment).args([
                        "sts",
                        "get-caller-identity",
                        "--output",
                        "json",
                    ]);
                    let output = command.kill_on_drop(true).output().await?;
                    Ok(match output.status.success() {
                        true => {
                            let said: Value = serde_json::from_slice(&output.stdout)?;
                            json!({"arn": said.get("Arn")})
                        }
                        false => json!({"error": String::from_utf8_lossy(&output.stderr)}),
                    })
                }
                Kind::Rust(test) => {
                    let mut command = Command::new(std::env::current_exe()?);
                    clean(&mut command, self.home.path());
                    command.envs(environment).env(RUST_ASKS, "who").args([
                        "--exact",
                        "--nocapture",
                        test,
                    ]);
                    let output = command.kill_on_drop(true).output().await?;
                    let said = String::from_utf8_lossy(&output.stdout).into_owned();
                    let line = said.lines().find_map(|line| {
                        // What the test harness writes may stand before it.
                        line.get(line.find('{')?..)
                    });
                    Ok(serde_json::from_str(line.unwrap_or_default())?)
                }
            }
        };
        timeout(ANSWER_WITHIN, answer)
            .await
            .map_err(|_| Unavailable::new(name, "it did not answer in time"))?
            .map_err(|why: std::io::Error| Unavailable::new(name, why))
    }
}

/// No credentials, profile or endpoint of this machine may take part.
fn clean(command: &mut Command, home: &Path) {
    command.env_clear().env("HOME", home);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
}

async fn interpreter() -> Result<PathBuf, Unavailable> {
    tokio::task::spawn_blocking(python)
        .await
        .map_err(|why| Unavailable::new("the Python peers", why))?
}

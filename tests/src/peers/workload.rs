//! Clients of the Workload API that hold sources for as long as they run, and do what they are asked.

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::Value;
use warifu::Client;

use super::{Unavailable, process::Tied, python, script};
use crate::mesh::{TRUST_DOMAIN, until};

/// A running client. Ended when dropped.
#[derive(Debug)]
pub struct WorkloadClient {
    control: SocketAddr,
    process: Tied,
}

/// Whose client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// go-spiffe.
    #[cfg(feature = "peers-go")]
    Go,
    /// java-spiffe.
    #[cfg(feature = "peers-java")]
    Java,
    /// `spiffe` and `spiffe-tls` of PyPI.
    Python,
}

impl WorkloadClient {
    /// Starts a client of the socket at `socket`, with a file of its own in `dir`, which must exist. It need not find
    /// anybody at the socket.
    ///
    /// # Errors
    /// When the peer can't be had.
    pub async fn start(language: Language, dir: &Path, socket: &Path) -> Result<Self, Unavailable> {
        let file = dir.join(format!(
            "{}-client-address",
            socket.file_stem().unwrap_or_default().to_string_lossy()
        ));
        let _ = fs::remove_file(&file);
        let (name, program, args) = command(language, socket, &file).await?;
        let mut process = Tied::run(name, &program, &args, &[])?;
        let listens = until("the client listens", async || {
            if let Some(how) = process.exited() {
                let why = format!("it ended, {how}:\n{}", process.log_tail());
                return Some(Err(Unavailable::new(name, why)));
            }
            let address = fs::read_to_string(&file).ok()?;
            address.trim().parse().ok().map(Ok)
        });
        Ok(Self {
            control: listens.await?,
            process,
        })
    }

    /// What it has: `ready`, `id`, `serial`, `serves`; `failures` counts its calls that failed, `said` is of the last;
    /// `ended` says why it gave up, if it did.
    ///
    /// # Panics
    /// When it does not answer.
    #[allow(clippy::panic, reason = "a client that is gone fails the test")]
    pub async fn state(&self) -> Value {
        let state = self.ask("state").await;
        state.unwrap_or_else(|why| panic!("{why}"))
    }

    /// Calls the server `to` over mTLS and a new connection: who answered, and what it told.
    ///
    /// # Errors
    /// What the client says of its failure.
    pub async fn call(&self, to: &str, expect: &str) -> Result<Value, String> {
        self.ask(&format!("call?url=https://{to}/&expect={expect}"))
            .await
    }

    /// A JWT-SVID for `audience`, validated with the bundle of its source.
    ///
    /// # Errors
    /// As [`WorkloadClient::call`].
    pub async fn token(&self, audience: &str) -> Result<Value, String> {
        self.ask(&format!("token?audience={audience}")).await
    }

    /// How many `roots` and `keys` it has of a trust domain.
    ///
    /// # Errors
    /// As [`WorkloadClient::call`].
    pub async fn bundle(&self, trust_domain: &str) -> Result<Value, String> {
        self.ask(&format!("bundle?trust_domain={trust_domain}"))
            .await
    }

    async fn ask(&self, what: &str) -> Result<Value, String> {
        let client = Client::new(&format!("http://{}", self.control)).map_err(|e| e.to_string())?;
        let answer = client.get(&format!("http://client/{what}")).send().await;
        let answer = answer.map_err(|why| format!("{why}\n{}", self.process.log_tail()))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|why| why.to_string())?;
        match status.is_success() {
            true => serde_json::from_slice(&body).map_err(|why| format!("{why}: {body:?}")),
            false => Err(String::from_utf8_lossy(&body).into_owned()),
        }
    }
}

async fn command(
    language: Language,
    socket: &Path,
    file: &Path,
) -> Result<(&'static str, PathBuf, Vec<OsString>), Unavailable> {
    let os = |all: &[&OsStr]| all.iter().map(|it| (*it).to_owned()).collect();
    match language {
        #[cfg(feature = "peers-go")]
        Language::Go => {
            let peer = super::go::binary().await?;
            let url = format!("unix://{}", socket.display());
            let flags = ["workload", "-trust-domain", TRUST_DOMAIN, "-socket", &url];
            let mut args = flags.map(OsStr::new).to_vec();
            args.extend([OsStr::new("-address-file"), file.as_os_str()]);
            Ok(("go-spiffe", peer, os(&args)))
        }
        #[cfg(feature = "peers-java")]
        Language::Java => {
            let program = tokio::task::spawn_blocking(super::java::program).await;
            let program = program.map_err(|why| Unavailable::new("java-spiffe", why))?;
            let (java, class_path) = program?;
            let url = format!("unix:{}", socket.display());
            let flags = ["-Xmx128m", "-cp", &class_path, "Peer", &url];
            let mut args = flags.map(OsStr::new).to_vec();
            args.extend([file.as_os_str(), OsStr::new(TRUST_DOMAIN)]);
            Ok(("java-spiffe", java, os(&args)))
        }
        Language::Python => {
            let python = tokio::task::spawn_blocking(python).await;
            let python = python.map_err(|why| Unavailable::new("spiffe-tls", why))??;
            let url = format!("unix://{}", socket.display());
            let script = script("workload.py");
            let args = [script.as_os_str(), OsStr::new(&url), file.as_os_str()];
            let args = [&args[..], &[OsStr::new(TRUST_DOMAIN)]].concat();
            Ok(("spiffe-tls", python, os(&args)))
        }
    }
}

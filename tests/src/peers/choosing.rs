//! Programs that choose one of their workload's identities, and say what they have for as long as they run.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Unavailable, process::Tied};
#[cfg(feature = "peers-go")]
use crate::mesh::TRUST_DOMAIN;
use crate::mesh::until;

/// The audience of the tokens they ask for.
pub const AUDIENCE: &str = "ledger";

/// A program that chooses. Ended when dropped.
#[derive(Debug)]
pub struct Choosing {
    events: PathBuf,
    process: Tied,
}

impl Choosing {
    /// go-spiffe, by hint. What it says: `tests/peers/go/several.go`.
    ///
    /// # Errors
    /// When the peer can't be had.
    #[cfg(feature = "peers-go")]
    pub async fn go(dir: &Path, socket: &Path, hint: &str) -> Result<Self, Unavailable> {
        let peer = super::go::binary().await?;
        let events = dir.join("go-events");
        let url = format!("unix://{}", socket.display());
        let args = ["several", "-trust-domain", TRUST_DOMAIN, "-socket", &url];
        let more = ["-audience", AUDIENCE, "-hint", hint, "-address-file"];
        let args = args.iter().chain(&more).map(OsString::from);
        let args: Vec<OsString> = args.chain([events.clone().into()]).collect();
        let process = Tied::run("go-spiffe", &peer, &args, &[])?;
        Ok(Self { events, process })
    }

    /// The Python library, by SPIFFE ID. What it says: `tests/peers/several.py`.
    ///
    /// # Errors
    /// When the peer can't be had.
    pub async fn python(dir: &Path, socket: &Path, id: &str) -> Result<Self, Unavailable> {
        let python = tokio::task::spawn_blocking(super::python).await;
        let python = python.map_err(|why| Unavailable::new("python", why))??;
        let events = dir.join("python-events");
        let args: [OsString; 4] = [
            super::script("several.py").into(),
            socket.into(),
            events.clone().into(),
            id.into(),
        ];
        let process = Tied::run("spiffe-python", &python, &args, &[])?;
        Ok(Self { events, process })
    }

    /// Waits until the last it said `is` so, and returns it.
    ///
    /// # Panics
    /// When it never is, or the program ended.
    #[allow(clippy::panic, reason = "a program that is gone fails the test")]
    pub async fn says(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let (events, process) = (&self.events, &mut self.process);
        let mut said = Value::Null;
        until(what, async || {
            if let Some(how) = process.exited() {
                panic!("it ended, {how}:\n{}", process.log_tail());
            }
            let text = fs::read_to_string(events).unwrap_or_default();
            // The last line may not be whole yet.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let last = whole.lines().last().unwrap_or_default();
            let now: Value = serde_json::from_str(last).unwrap_or_default();
            if now != said {
                println!("{now}");
                said = now.clone();
            }
            is(&now).then_some(now)
        })
        .await
    }
}

//! `local.files`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use warifu::SpiffeId;

use crate::config::value::{self, As, name};

/// Certificate, key and bundle as files, replaced whole at every change.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The directory they are in. It must exist.
    #[serde(deserialize_with = "value::one::<name::AbsolutePath, _>")]
    #[schemars(with = "As<name::AbsolutePath>")]
    pub directory: PathBuf,
    /// Which of the workload's identities they are of, where it has several; the first where absent.
    #[serde(default, deserialize_with = "value::option::<name::Id, _>")]
    #[schemars(with = "Option<As<name::Id>>")]
    pub spiffe_id: Option<SpiffeId>,
    /// What they are called.
    #[serde(default)]
    pub names: FileNames,
    /// The user who owns them, by number; the agent's where absent.
    pub uid: Option<u32>,
    /// The group they belong to, by number; the agent's where absent. It may read the key.
    pub gid: Option<u32>,
    /// What to do when they changed.
    pub after: Option<After>,
}

/// What the files are called.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FileNames {
    /// The certificate chain, leaf first, PEM.
    pub certificate: String,
    /// The private key, PKCS#8, PEM.
    pub key: String,
    /// The root certificates of the trust domain, PEM.
    pub bundle: String,
}

impl Default for FileNames {
    fn default() -> Self {
        Self {
            certificate: "svid.pem".to_owned(),
            key: "svid-key.pem".to_owned(),
            bundle: "bundle.pem".to_owned(),
        }
    }
}

/// What to do when the files changed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum After {
    /// `{signal: {pid_file: /run/nginx.pid, signal: HUP}}`.
    Signal {
        /// The file with the process's number; read anew each time.
        #[serde(deserialize_with = "value::one::<name::AbsolutePath, _>")]
        #[schemars(with = "As<name::AbsolutePath>")]
        pid_file: PathBuf,
        /// Which signal.
        #[serde(default)]
        signal: Signal,
    },
    /// `{command: [/usr/sbin/nginx, -s, reload]}`: a program and its arguments; no shell reads them.
    Command(Vec<String>),
}

/// A signal that programs reload on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Signal {
    /// `SIGHUP`.
    #[default]
    #[serde(rename = "HUP")]
    Hup,
    /// `SIGUSR1`.
    #[serde(rename = "USR1")]
    Usr1,
    /// `SIGUSR2`.
    #[serde(rename = "USR2")]
    Usr2,
}

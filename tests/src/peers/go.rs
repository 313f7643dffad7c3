//! go-spiffe, as the program of `tests/peers/go`.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::{
    Unavailable,
    process::Tied,
    run::{Ended, run},
    venv,
};
use crate::mesh::{TRUST_DOMAIN, until};

/// A go-spiffe server that runs.
#[derive(Debug)]
pub struct GoServer {
    /// Where it listens.
    pub address: SocketAddr,
    _process: Tied,
}

/// Runs `peer COMMAND -dir DIR ARGS…` to its end.
///
/// # Errors
/// When the peer can't be had.
pub async fn go(command: &str, dir: &Path, args: &[&str]) -> Result<Ended, Unavailable> {
    let peer = binary().await?;
    run("go-spiffe", &peer, &all(command, dir, args), "").await
}

impl GoServer {
    /// Serves with the files in `dir`, to the client `expect` alone; waits until it listens.
    ///
    /// # Errors
    /// When the peer can't be had.
    pub async fn start(dir: &Path, expect: &str) -> Result<Self, Unavailable> {
        let peer = binary().await?;
        let file = dir.join(format!("address-{}", expect.replace(['/', ':'], "-")));
        let address_file = file.to_string_lossy().into_owned();
        let args = ["-expect", expect, "-address-file", &address_file];
        let mut process = Tied::run("go-spiffe", &peer, &all("serve", dir, &args), &[])?;
        let listening = until("go-spiffe listens", async || {
            if let Some(how) = process.exited() {
                let why = format!("it ended, {how}:\n{}", process.log_tail());
                return Some(Err(Unavailable::new("go-spiffe", why)));
            }
            fs::read_to_string(&file)
                .ok()
                .and_then(|text| text.parse().ok())
                .map(Ok)
        });
        Ok(Self {
            address: listening.await?,
            _process: process,
        })
    }
}

fn all<'a>(command: &'a str, dir: &'a Path, args: &'a [&str]) -> Vec<&'a OsStr> {
    let mut all = ["-trust-domain", TRUST_DOMAIN, "-dir"]
        .map(OsStr::new)
        .to_vec();
    all.insert(0, command.as_ref());
    all.push(dir.as_os_str());
    all.extend(args.iter().map(OsStr::new));
    all
}

/// The program.
pub(super) async fn binary() -> Result<PathBuf, Unavailable> {
    tokio::task::spawn_blocking(build)
        .await
        .map_err(|why| Unavailable::new("go-spiffe", why))?
}

/// Builds it, once a process; Go's own cache makes it quick when nothing changed.
fn build() -> Result<PathBuf, Unavailable> {
    static BINARY: OnceLock<Result<PathBuf, Unavailable>> = OnceLock::new();
    BINARY
        .get_or_init(|| try_build().map_err(|why| Unavailable::new("go-spiffe", why)))
        .clone()
}

fn try_build() -> Result<PathBuf, String> {
    let dir = venv::target_dir()?.join("peers/go");
    fs::create_dir_all(&dir).map_err(|e| format!("creating {}: {e}", dir.display()))?;
    // Test binaries run at the same time: one builds, the others wait. The lock goes with the file.
    let lock = dir.join("build.lock");
    let lock = File::create(&lock).map_err(|e| format!("creating {}: {e}", lock.display()))?;
    lock.lock()
        .map_err(|e| format!("waiting for another test run: {e}"))?;

    // A name of its own, so that nobody's running binary is overwritten.
    let draft = dir.join(format!("peer.{}", std::process::id()));
    let binary = dir.join("peer");
    // Where modules come from is for this machine's Go environment to say; what they are, for go.sum.
    venv::run(
        Command::new("go")
            .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly"])
            .arg("-o")
            .arg(&draft)
            .arg(".")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/go"))
            .env("CGO_ENABLED", "0"),
    )
    .map_err(|why| {
        format!(
            "{why}\nGo 1.24 or later is needed, and a module proxy (or cache) that has \
             tests/peers/go/go.sum; `go env GOPROXY` shows which one it uses"
        )
    })?;
    fs::rename(&draft, &binary).map_err(|e| format!("naming {}: {e}", binary.display()))?;
    Ok(binary)
}

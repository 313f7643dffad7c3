//! The npm packages of `tests/peers/js`, installed under the target directory.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    sync::OnceLock,
};

use aws_lc_rs::digest;

use super::{Unavailable, venv};

const PACKAGE: &str = include_str!("../../peers/js/package.json");
/// What is installed: names, versions, hashes.
const LOCK: &str = include_str!("../../peers/js/package-lock.json");

/// Written last: a directory without it was interrupted half-way and is made anew.
const MARKER: &str = "complete";

/// The directory for `NODE_PATH`, made if need be; once a process.
pub(super) fn modules() -> Result<PathBuf, Unavailable> {
    static MODULES: OnceLock<Result<PathBuf, Unavailable>> = OnceLock::new();
    MODULES
        .get_or_init(|| install().map_err(|why| Unavailable::new("the JavaScript peers", why)))
        .clone()
}

fn install() -> Result<PathBuf, String> {
    // Another list of packages is another directory.
    let hash = digest::digest(&digest::SHA256, LOCK.as_bytes());
    let hash: String = hash
        .as_ref()
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect();
    let dir = venv::target_dir()?.join("peers").join(format!("js-{hash}"));
    fs::create_dir_all(&dir).map_err(|e| format!("creating {}: {e}", dir.display()))?;

    // Test binaries run at the same time: one installs, the others wait. The lock goes with the file.
    let lock = dir.join("install.lock");
    let lock = File::create(&lock).map_err(|e| format!("creating {}: {e}", lock.display()))?;
    lock.lock()
        .map_err(|e| format!("waiting for another test run: {e}"))?;
    let modules = dir.join("node_modules");
    if dir.join(MARKER).is_file() {
        return Ok(modules);
    }
    let write = |name: &str, content: &str| {
        fs::write(dir.join(name), content).map_err(|e| format!("writing {name}: {e}"))
    };
    write("package.json", PACKAGE)?;
    write("package-lock.json", LOCK)?;
    // Where packages come from is for this machine's npm configuration to say; what they are, for the hashes of the
    // lock file. No package's script runs.
    venv::run(
        Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .arg("--loglevel=error")
            .current_dir(&dir),
    )
    .map_err(|why| {
        format!(
            "{why}\nNode.js 20 or later with npm is needed, and a registry that has \
             tests/peers/js/package-lock.json; `npm config get registry` shows which one it uses"
        )
    })?;
    write(MARKER, "")?;
    Ok(modules)
}

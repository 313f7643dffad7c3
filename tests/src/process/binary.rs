//! The `warifu` binary that belongs to this build of the tests.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::Value;

/// The binary: built on first use, which takes no longer than asking cargo where nothing changed.
///
/// # Panics
/// When it can't be built.
pub fn warifu() -> &'static Path {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BINARY.get_or_init(build) {
        Ok(path) => path,
        Err(why) => panic!("the warifu binary cannot be had: {why}"),
    }
}

/// Cargo tells tests where the binaries of their own package are, and `warifu` is of another. So cargo
/// is asked again, for the same profile and place; its own lock lets one test process build at a time.
fn build() -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(cargo);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["build", "--frozen", "--quiet"])
        .arg("--message-format=json-render-diagnostics")
        // The whole workspace with an example: that turns on the features which its dev-dependencies ask
        // for, so that what `cargo test --workspace` built is used, not built again without them.
        .args(["--workspace", "--bin", "warifu", "--example", "call"])
        .args(all_features())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .args(where_we_are()?);
    let built = command
        .output()
        .map_err(|why| format!("running {command:?}: {why}"))?;
    if !built.status.success() {
        let said = String::from_utf8_lossy(&built.stderr);
        return Err(format!("{command:?}: {}\n{said}", built.status));
    }
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "warifu")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| format!("{command:?} named no executable"))
}

/// `--all-features` where these tests were built with it, as CI builds them: other features would be another build.
fn all_features() -> Option<&'static str> {
    let all = cfg!(all(
        feature = "peers-go",
        feature = "peers-java",
        feature = "peers-js",
        feature = "peers-system"
    ));
    all.then_some("--all-features")
}

/// This test is `TARGET_DIR[/TRIPLE]/PROFILE/deps/NAME`: the arguments that lead cargo there again.
fn where_we_are() -> Result<Vec<String>, String> {
    let exe = env::current_exe().map_err(|why| format!("our own path: {why}"))?;
    let named = |dir: &Path| Some(dir.file_name()?.to_str()?.to_owned());
    let place = || {
        let profile = exe.parent()?.parent()?;
        let above = profile.parent()?;
        let target = above
            .ancestors()
            .find(|dir| dir.join("CACHEDIR.TAG").is_file())?;
        let mut arguments = vec!["--target-dir".to_owned(), target.to_str()?.to_owned()];
        if above != target {
            arguments.extend(["--target".to_owned(), named(above)?]);
        }
        let profile = named(profile)?;
        let profile = if profile == "debug" { "dev" } else { &profile };
        arguments.extend(["--profile".to_owned(), profile.to_owned()]);
        Some(arguments)
    };
    place().ok_or_else(|| format!("{} is in no cargo target directory", exe.display()))
}

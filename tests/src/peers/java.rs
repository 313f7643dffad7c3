//! java-spiffe, as the program of `tests/peers/java`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::{Unavailable, run::installed, venv};

/// The `java` to run, and the class path of the program. Blocks.
pub(super) fn program() -> Result<(PathBuf, String), Unavailable> {
    static LIBRARIES: OnceLock<Result<String, Unavailable>> = OnceLock::new();
    let class_path = LIBRARIES
        .get_or_init(|| build().map_err(|why| Unavailable::new("java-spiffe", why)))
        .clone()?;
    Ok((installed("java")?, class_path))
}

/// Builds it, once a process; Maven compiles what changed, and takes from its own cache what did not.
fn build() -> Result<String, String> {
    let dir = venv::target_dir()?.join("peers/java");
    fs::create_dir_all(&dir).map_err(|e| format!("creating {}: {e}", dir.display()))?;
    // Test binaries run at the same time: one builds, the others wait. The lock goes with the file.
    let lock = dir.join("build.lock");
    let lock = File::create(&lock).map_err(|e| format!("creating {}: {e}", lock.display()))?;
    lock.lock()
        .map_err(|e| format!("waiting for another test run: {e}"))?;

    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/java");
    // What was built of the same files is not built again: starting Maven takes seconds, and may ask its repository.
    let made_of = ["pom.xml", "src/main/java/Peer.java"]
        .map(|name| fs::read_to_string(project.join(name)).unwrap_or_default())
        .join("\n");
    let made = dir.join("made-of");
    if fs::read_to_string(&made).is_ok_and(|before| before == made_of) {
        return Ok(class_path(&dir));
    }
    let _ = fs::remove_file(&made);
    // Where Maven takes artifacts from is for this machine's settings to say; which ones, for pom.xml.
    venv::run(
        Command::new("mvn")
            .args(["--batch-mode", "--quiet", "package"])
            .arg(format!("-Dpeer.target={}", dir.display()))
            .current_dir(&project),
    )
    .map_err(|why| {
        format!("{why}\na JDK 17 or later and Maven 3.8 are needed, and a repository that has tests/peers/java/pom.xml's artifacts")
    })?;
    fs::write(&made, made_of).map_err(|e| format!("writing {}: {e}", made.display()))?;
    Ok(class_path(&dir))
}

fn class_path(dir: &Path) -> String {
    format!("{dir}/peer.jar:{dir}/lib/*", dir = dir.display())
}

//! java-spiffe, as the program of `tests/peers/java`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use aws_lc_rs::digest;

use super::{Unavailable, run::installed, venv};

/// What may be run: names and hashes.
const CHECKSUMS: &str = include_str!("../../peers/java/checksums.txt");

/// The `java` to run, and the class path of the program. Blocks.
pub(super) fn program() -> Result<(PathBuf, String), Unavailable> {
    static LIBRARIES: OnceLock<Result<String, Unavailable>> = OnceLock::new();
    let class_path = LIBRARIES
        .get_or_init(|| build().map_err(|why| Unavailable::new("java-spiffe", why)))
        .clone()?;
    Ok((installed("java")?, class_path))
}

/// Builds it, once a process; Maven takes from its own cache what it has.
fn build() -> Result<String, String> {
    let dir = venv::target_dir()?.join("peers/java");
    fs::create_dir_all(&dir).map_err(|e| format!("creating {}: {e}", dir.display()))?;
    // Test binaries run at the same time: one builds, the others wait. The lock goes with the file.
    let lock = dir.join("build.lock");
    let lock = File::create(&lock).map_err(|e| format!("creating {}: {e}", lock.display()))?;
    lock.lock()
        .map_err(|e| format!("waiting for another test run: {e}"))?;

    // What was built of the same files is not built again: starting Maven takes seconds, and may ask its repository.
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/java");
    let made_of = ["pom.xml", "checksums.txt", "Peer.java"]
        .map(|name| fs::read_to_string(project.join(name)).unwrap_or_default())
        .join("\n");
    let (made, libraries, classes) = (dir.join("made-of"), dir.join("lib"), dir.join("classes"));
    let class_path = format!("{}:{}/*", classes.display(), libraries.display());
    if fs::read_to_string(&made).is_ok_and(|before| before == made_of) {
        return Ok(class_path);
    }
    for old in [&libraries, &classes] {
        let _ = fs::remove_dir_all(old);
    }
    let _ = fs::remove_file(&made);
    // Where Maven takes artifacts from is for this machine's settings to say; which ones, for pom.xml; what they are,
    // for checksums.txt.
    venv::run(
        Command::new("mvn")
            .args(["--batch-mode", "--quiet", "--strict-checksums"])
            .arg("dependency:copy-dependencies")
            .arg(format!("-Dpeer.target={}", dir.display()))
            .current_dir(&project),
    )
    .map_err(|why| {
        format!("{why}\na JDK 17 or later and Maven 3.8 are needed, and a repository that has tests/peers/java/pom.xml's artifacts")
    })?;
    verify(&libraries, CHECKSUMS)?;
    fs::create_dir(&classes).map_err(|e| format!("creating {}: {e}", classes.display()))?;
    venv::run(
        Command::new("javac")
            .args(["--release", "17", "-encoding", "UTF-8", "-proc:none"])
            .arg("-cp")
            .arg(format!("{}/*", libraries.display()))
            .arg("-d")
            .arg(&classes)
            .arg(project.join("Peer.java")),
    )?;
    fs::write(&made, made_of).map_err(|e| format!("writing {}: {e}", made.display()))?;
    Ok(class_path)
}

/// Whether `dir` has just the files of `list`, lines as `sha256sum` writes them, with just these contents.
fn verify(dir: &Path, list: &str) -> Result<(), String> {
    let wanted = list.lines().filter(|line| !line.starts_with('#'));
    let wanted: BTreeMap<String, &str> = wanted
        .filter_map(|line| line.split_once("  "))
        .map(|(hash, name)| (name.to_owned(), hash))
        .collect();
    let reading = |why: std::io::Error| format!("reading {}: {why}", dir.display());
    let mut missing: BTreeSet<&String> = wanted.keys().collect();
    for file in fs::read_dir(dir).map_err(reading)? {
        let file = file.map_err(reading)?;
        let name = file.file_name().to_string_lossy().into_owned();
        let content = fs::read(file.path()).map_err(reading)?;
        let hash = digest::digest(&digest::SHA256, &content);
        let hash: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        match wanted.get(&name) {
            Some(expected) if *expected == hash => missing.remove(&name),
            Some(expected) => {
                return Err(format!(
                    "{name} is not what tests/peers/java/checksums.txt says: expected SHA-256 {expected}, found {hash}"
                ));
            }
            None => {
                return Err(format!(
                    "{name} (SHA-256 {hash}) is not in tests/peers/java/checksums.txt"
                ));
            }
        };
    }
    match missing.first() {
        None => Ok(()),
        Some(name) => Err(format!(
            "{name} of tests/peers/java/checksums.txt was not resolved"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_files_with_the_listed_contents_pass() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
        let list = "# SHA-256\n\
            ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  abc.jar\n\
            e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  empty.jar\n";
        let says = |what: &str| {
            let why = verify(dir.path(), list).unwrap_err();
            assert!(why.contains(what), "{why}");
        };
        write("abc.jar", "abc");
        says("empty.jar of tests/peers/java/checksums.txt was not resolved");
        write("empty.jar", "");
        verify(dir.path(), list).unwrap();
        write("more.jar", "");
        says("more.jar (SHA-256 e3b0c44");
        fs::remove_file(dir.path().join("more.jar")).unwrap();
        write("abc.jar", "abd");
        says("abc.jar is not what");
    }
}

//! The virtual environment of the Python peers.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use aws_lc_rs::digest;

use super::Unavailable;

/// What is installed: names, versions, hashes.
const REQUIREMENTS: &str = include_str!("../../peers/requirements.txt");

/// Interpreters to look for; the plain name first.
const INTERPRETERS: &[&str] = &[
    "python3",
    "python3.11",
    "python3.12",
    "python3.13",
    "python3.14",
];

/// Written last: an environment without it was interrupted half-way and is made anew.
const MARKER: &str = "complete";

/// A complete virtual environment.
#[derive(Debug, Clone)]
pub(super) struct Venv {
    dir: PathBuf,
    /// `3.11`
    version: String,
}

/// The environment, made if need be; once a process.
pub(super) fn get() -> Result<&'static Venv, Unavailable> {
    static VENV: OnceLock<Result<Venv, Unavailable>> = OnceLock::new();
    VENV.get_or_init(|| make().map_err(|why| Unavailable::new("the Python peers", why)))
        .as_ref()
        .map_err(Clone::clone)
}

/// The target directory this test binary was built into: it is marked by cargo.
pub(super) fn target_dir() -> Result<PathBuf, String> {
    let exe =
        std::env::current_exe().map_err(|e| format!("this program's own path is unknown: {e}"))?;
    exe.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} is in no cargo target directory", exe.display()))
}

impl Venv {
    pub(super) fn python(&self) -> PathBuf {
        self.dir.join("bin/python")
    }

    pub(super) fn site_packages(&self) -> PathBuf {
        self.dir
            .join("lib")
            .join(format!("python{}", self.version))
            .join("site-packages")
    }
}

fn make() -> Result<Venv, String> {
    let (interpreter, version, base) = interpreter()?;
    let peers = target_dir()?.join("peers");
    fs::create_dir_all(&peers).map_err(|e| format!("creating {}: {e}", peers.display()))?;

    // Another list of packages or another interpreter is another environment.
    let identity = format!("{REQUIREMENTS}\n{version}\n{base}");
    let hash = digest::digest(&digest::SHA256, identity.as_bytes());
    let hash: String = hash
        .as_ref()
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect();
    let dir = peers.join(format!("venv-{hash}"));
    let venv = Venv { dir, version };

    // Test binaries run at the same time: one makes it, the others wait. The lock goes with the file.
    let lock = venv.dir.with_extension("lock");
    let lock = File::create(&lock).map_err(|e| format!("creating {}: {e}", lock.display()))?;
    lock.lock()
        .map_err(|e| format!("waiting for another test run: {e}"))?;
    if venv.dir.join(MARKER).is_file() {
        return Ok(venv);
    }
    install(&venv, interpreter)?;
    Ok(venv)
}

fn install(venv: &Venv, interpreter: &str) -> Result<(), String> {
    let dir = &venv.dir;
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(|e| format!("removing {}: {e}", dir.display()))?;
    }
    run(Command::new(interpreter).args(["-m", "venv"]).arg(dir)).map_err(|why| {
        format!("{why}\n`{interpreter} -m venv` must work; on Debian: apt-get install python3-venv")
    })?;

    let requirements = dir.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)
        .map_err(|e| format!("writing {}: {e}", requirements.display()))?;
    // Where packages come from is for this machine's pip configuration to say. What they are is
    // fixed by hashes; wheels only, so that nothing unhashed is downloaded to build one.
    run(Command::new(venv.python())
        .args(["-m", "pip", "install", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--require-hashes"])
        .args(["--only-binary", ":all:", "-r"])
        .arg(&requirements))
    .map_err(|why| {
        format!(
            "{why}\npip must reach a package index that has tests/peers/requirements.txt; \
             `pip config list` shows which one it uses"
        )
    })?;

    let marker = dir.join(MARKER);
    fs::write(&marker, "").map_err(|e| format!("writing {}: {e}", marker.display()))
}

/// The first Python that is new enough: its name, its version, where it lives.
fn interpreter() -> Result<(&'static str, String, String), String> {
    let probe = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.base_prefix); \
                 sys.exit(sys.version_info < (3, 11))";
    let mut tried = Vec::new();
    for name in INTERPRETERS {
        let found = run(Command::new(name).args(["-c", probe]));
        match found.map_err(|why| why.replace(probe, "…")) {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                let mut lines = said.lines();
                let mut line = || lines.next().unwrap_or_default().to_owned();
                return Ok((name, line(), line()));
            }
            Err(why) => tried.push(why),
        }
    }
    Err(format!(
        "Python 3.11 or later is needed:\n{}",
        tried.join("\n")
    ))
}

/// Runs a command to its end; the error has the end of what it said.
pub(super) fn run(command: &mut Command) -> Result<Output, String> {
    let shown = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("`{shown}`: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let said: Vec<&str> = said.lines().collect();
    let end = said.get(said.len().saturating_sub(20)..).unwrap_or(&[]);
    Err(format!("`{shown}`: {}\n{}", output.status, end.join("\n")))
}

//! A wrong clock for one process: a shared object between it and the C library.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/clock.c");

/// What `LD_PRELOAD` takes; the file that `CLOCK_OFFSET_FILE` names says how far off, in seconds. Made on
/// first use by the C compiler that the build needs anyway.
///
/// # Panics
/// When it can't be made.
pub(super) fn preload() -> &'static Path {
    static MADE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = MADE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("clock.so");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let made = Command::new(compiler)
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([path.as_path(), Path::new(SOURCE)])
            .output()
            .expect("a C compiler");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "compiling {SOURCE}: {said}");
        assert!(fs::metadata(&path).is_ok_and(|made| made.len() > 0));
        (dir, path)
    });
    path
}

//! Has the linker put side by side what an agent runs, in a released program (docs/adr/0018).

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=layout.ld");
    let is = |name: &str, wanted: &str| env::var(name).is_ok_and(|value| value == wanted);
    // Other profiles have other functions, and macOS another linker.
    let released = is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux");
    // Whoever overrides .cargo/config.toml has other names, and perhaps a linker that takes no such list.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if released && flags.contains("symbol-mangling-version=v0") {
        let root = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        let layout = PathBuf::from(root).join("layout.ld");
        println!("cargo::rustc-link-arg-bin=warifu=-T{}", layout.display());
    }
}

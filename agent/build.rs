//! Has the linker put side by side what an agent runs, in a released program (docs/adr/0018).

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=layout.ld");
    let is = |name: &str, wanted: &str| env::var(name).is_ok_and(|value| value == wanted);
    // Other profiles have other functions, and macOS another linker.
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        let layout =
            PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("layout.ld");
        println!("cargo::rustc-link-arg-bin=warifu=-T{}", layout.display());
    }
}

//! A scenario that `main.rs` forgets would neither run nor be missed.

use std::{fs, path::Path};

#[test]
fn every_file_of_this_directory_is_a_module_of_main() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let main = fs::read_to_string(dir.join("main.rs")).unwrap();
    let is_named = |name: &str| main.lines().any(|line| line == format!("mod {name};"));
    let files = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let forgotten: Vec<String> = files
        .filter(|file| file.extension().is_some_and(|it| it == "rs"))
        .map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "main" && !is_named(name))
        .collect();
    assert!(forgotten.is_empty(), "not in main.rs: {forgotten:?}");
}

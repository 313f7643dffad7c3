//! A file one can read in one sitting: none over 700 lines.

use std::{fs, path::Path};

#[test]
fn no_source_file_is_longer_than_700_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut long = Vec::new();
    for part in ["agent/src", "client-lib/src", "examples", "tests"] {
        visit(&root.join(part), &mut |path, text| {
            let lines = text.lines().count();
            if lines > 700 {
                long.push(format!("{} has {lines} lines", path.display()));
            }
        });
    }
    assert!(long.is_empty(), "split these:\n{}", long.join("\n"));
}

fn visit(dir: &Path, check: &mut dyn FnMut(&Path, &str)) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.ends_with("local/generated") {
            // Generated; nobody reads it in one sitting.
        } else if path.is_dir() {
            visit(&path, check);
        } else if path.extension().is_some_and(|e| e == "rs") {
            check(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

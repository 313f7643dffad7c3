//! The modules of the agent are storeys: a `use` may point to a lower storey, never to a higher one,
//! and services on the same storey meet in `app` only.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Storeys from the top. A module may use what stands on a lower line.
const STOREYS: &[&[&str]] = &[
    &["main", "cli"],
    &["demo"],
    &["app"],
    &["inbound", "outbound", "local", "authority", "admin"],
    &["identity", "token"],
    &["secrets"],
    &["attest", "aws", "policy"],
    &["http", "revocation"],
    &["config", "telemetry"],
];

#[test]
fn no_module_of_the_agent_uses_one_above_or_beside_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/src");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in rust_files(&source) {
        let text = fs::read_to_string(&file).unwrap();
        let relative = file.strip_prefix(&source).unwrap();
        let module = top_module(relative);
        if module == "lib" {
            continue;
        }
        for used in used_modules(&text) {
            seen += 1;
            if !allowed(&module, &used) {
                wrong.push(format!("{}: {module} uses {used}", relative.display()));
            }
        }
    }
    assert!(
        seen > 50,
        "only {seen} imports were found: does this test still read them?"
    );
    assert!(
        wrong.is_empty(),
        "arrows that point up or sideways:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn an_arrow_that_points_up_is_seen() {
    assert!(!allowed("policy", "inbound"));
    assert!(!allowed("inbound", "outbound"));
    assert!(!allowed("config", "http"));
    assert!(allowed("inbound", "policy"));
    assert!(allowed("identity", "attest"));
    let text = "use crate::{\n    policy::{Decision, Policy},\n    http::path,\n};\nuse crate::aws;\nfn f() { crate::token::g(); }";
    assert_eq!(used_modules(text), ["aws", "http", "policy", "token"]);
}

fn storey(module: &str) -> usize {
    STOREYS
        .iter()
        .position(|modules| modules.contains(&module))
        .unwrap_or_else(|| {
            panic!("module {module} has no storey: add it to STOREYS and the design")
        })
}

fn allowed(from: &str, to: &str) -> bool {
    from == to || storey(to) > storey(from)
}

/// `inbound/forward.rs` and `inbound.rs` are both `inbound`.
fn top_module(relative: &Path) -> String {
    let first = relative
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Every `crate::NAME` in the text, including the names of a `use crate::{…}` list.
fn used_modules(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        // `warifu_agent_crate::` would be another name; `$crate::` is this one.
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(list_heads(list)),
            None => names.extend(identifier(rest)),
        }
    }
    // Items of the crate root are not modules.
    names.retain(|name| name.chars().next().is_some_and(char::is_lowercase));
    names.sort();
    names.dedup();
    names
}

/// The first identifier of each item of a braced list that has just been opened.
fn list_heads(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut heads = Vec::new();
    let mut at_item_start = true;
    for (index, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_item_start = true,
            c if at_item_start && depth == 0 && !c.is_whitespace() => {
                heads.extend(identifier(&list[index..]));
                at_item_start = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

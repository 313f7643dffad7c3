//! Reading documents and sources, as far as the tests beside need it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

type Names = BTreeSet<String>;

/// Files that register wherever they are told, and where that is.
const TOLD: [(&str, &[&str]); 4] = [
    ("inbound/issuers.rs", &["inbound"]),
    ("http/tunnel.rs", &["inbound", "outbound"]),
    ("local/calls.rs", &["sds", "workload_api"]),
    (
        "local/endpoint/metrics.rs",
        &["local_aws_credentials", "local_oauth"],
    ),
];

/// What a file registers, as it is exposed but for the type's suffix. Where it registers under a
/// prefix it is handed, that is each of `handed`, or what [`TOLD`] has for the file.
pub(super) fn metrics(path: &Path, text: &str, handed: &Names) -> Names {
    let told = TOLD.iter().find(|(file, _)| path.ends_with(file));
    let told =
        told.map(|(_, prefixes)| Names::from_iter(prefixes.iter().map(|it| (*it).to_owned())));
    let text = text.split("mod tests {").next().unwrap();
    let mut found = Names::new();
    for function in text.split("fn ") {
        let literal = |after: &str| {
            let rest = function.split(after).nth(1)?;
            Some(rest.split('"').nth(1)?.to_owned())
        };
        let root = literal("Registry::with_prefix(").unwrap_or_else(|| "warifu".to_owned());
        let sub = |sub: &String| format!("{root}_{sub}");
        let prefixes: Vec<String> = match literal("sub_registry_with_prefix(") {
            _ if told.is_some() => told.iter().flatten().map(sub).collect(),
            _ if function.contains("sub_registry_with_prefix(prefix)") => {
                handed.iter().map(sub).collect()
            }
            Some(literal) => vec![sub(&literal)],
            None => vec![root],
        };
        for with_unit in [false, true] {
            let call = if with_unit {
                ".register_with_unit("
            } else {
                ".register("
            };
            for call in function.split(call).skip(1) {
                let Some(rest) = call.trim_start().strip_prefix('"') else {
                    continue;
                };
                let name = rest.split('"').next().unwrap();
                let unit = match call.split("Unit::").nth(1).filter(|_| with_unit) {
                    Some(unit) => {
                        format!("_{}", unit.split(',').next().unwrap().to_lowercase())
                    }
                    None => String::new(),
                };
                found.extend(
                    prefixes
                        .iter()
                        .map(|prefix| format!("{prefix}_{name}{unit}")),
                );
            }
        }
        // What is counted only when it is asked for.
        for call in function.split(".encode_descriptor(").skip(1) {
            let call = call.split(")?").next().unwrap();
            let name = call.split('"').nth(1).unwrap();
            let unit = match call.contains("Some(&Unit::Seconds") {
                true => "_seconds",
                false => "",
            };
            found.extend(
                prefixes
                    .iter()
                    .map(|prefix| format!("{prefix}_{name}{unit}")),
            );
        }
    }
    found
}

/// The prefixes a file hands to what registers under one.
pub(super) fn handed_prefixes(text: &str) -> Names {
    let calls = text.split(".register(&mut registry, \"").skip(1);
    calls
        .filter_map(|rest| Some(rest.split('"').next()?.to_owned()))
        .collect()
}

/// Reason and status of every `StatusCode::STATUS, "reason"`.
pub(super) fn reasons(text: &str) -> BTreeSet<(String, String)> {
    let text: String = text.split_whitespace().collect();
    let pairs = text.split("StatusCode::").skip(1).filter_map(|rest| {
        let (status, rest) = rest.split_once(",\"")?;
        let reason = rest.split('"').next()?;
        let is_word = |c: char| c.is_ascii_uppercase() || c == '_';
        status.chars().all(is_word).then_some((reason, status))
    });
    pairs
        .map(|(reason, status)| {
            let number = match status {
                "BAD_REQUEST" => 400,
                "UNAUTHORIZED" => 401,
                "FORBIDDEN" => 403,
                "METHOD_NOT_ALLOWED" => 405,
                "REQUEST_TIMEOUT" => 408,
                "PAYLOAD_TOO_LARGE" => 413,
                "TOO_MANY_REQUESTS" => 429,
                "REQUEST_HEADER_FIELDS_TOO_LARGE" => 431,
                "NOT_IMPLEMENTED" => 501,
                "BAD_GATEWAY" => 502,
                "SERVICE_UNAVAILABLE" => 503,
                "GATEWAY_TIMEOUT" => 504,
                other => panic!("a status this test does not know: {other}"),
            };
            (reason.to_owned(), number.to_string())
        })
        .collect()
}

/// The variants of an enum of subcommands, as they are typed.
pub(super) fn variants(text: &str, name: &str) -> Names {
    let body = text.split(name).nth(1).unwrap();
    let body = body.split('}').next().unwrap();
    let variants = body.lines().filter_map(|line| line.trim().split_once('('));
    variants
        .map(|(variant, _)| {
            let mut word = String::new();
            for c in variant.chars() {
                if c.is_uppercase() && !word.is_empty() {
                    word.push('-');
                }
                word.extend(c.to_lowercase());
            }
            word
        })
        .collect()
}

/// Every property of a JSON Schema with its default, where that is a text.
pub(super) fn properties(schema: &serde_json::Value) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    let mut open = vec![schema];
    while let Some(node) = open.pop() {
        if let Some(properties) = node.get("properties").and_then(|it| it.as_object()) {
            for (name, property) in properties {
                let default = property.get("default").and_then(|it| it.as_str());
                found.push((name.clone(), default.map(str::to_owned)));
            }
        }
        match node {
            serde_json::Value::Object(members) => open.extend(members.values()),
            serde_json::Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    assert!(found.len() > 15, "{found:?}");
    found
}

/// Relative link targets outside code blocks.
pub(super) fn links(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2);
    let targets = prose.flat_map(|it| it.split("](").skip(1));
    targets
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://"))
        .map(str::to_owned)
        .collect()
}

/// The anchors that a renderer makes of a document's headings.
pub(super) fn anchors(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

pub(super) fn table_rows(text: &str) -> impl Iterator<Item = Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let rows = rows.filter(|line| !line.starts_with("| ---"));
    rows.map(|line| {
        let inner = line.trim_matches('|').replace("\\|", "\u{0}");
        let cells = inner.split('|');
        cells
            .map(|cell| cell.replace('\u{0}', "|").trim().to_owned())
            .collect()
    })
}

pub(super) fn code_spans(text: &str) -> Vec<String> {
    let prose: Vec<&str> = text.split("```").step_by(2).collect();
    let lines = prose.iter().flat_map(|it| it.lines());
    lines
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || "_-".contains(c)))
}

/// README and its like, and everything in `docs`.
pub(super) fn documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for dir in ["", "docs", "docs/adr"] {
        for entry in fs::read_dir(root().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "md") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 10, "where are the documents?");
    found
}

pub(super) fn rust_files(dir: &str) -> Vec<(PathBuf, String)> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(dir)]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

pub(super) fn source(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

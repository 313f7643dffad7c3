//! What the documents say of the code, held against the code: configurations, links, commands, fields,
//! metrics, reasons, dependencies, and the tests that are named as evidence.

mod read;

use std::collections::{BTreeMap, BTreeSet};

use warifu_agent::config;
use warifu_tests::mesh::Shop;

use read::{
    anchors, code_spans, documents, handed_prefixes, links, metrics, properties, reasons, root,
    rust_files, source, table_rows, variants, words,
};

type Names = BTreeSet<String>;

#[test]
fn every_whole_configuration_in_the_documents_is_valid() {
    let mut seen = 0;
    for (path, text) in documents() {
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let name = block.lines().next().unwrap().trim_start_matches("# ");
            if name.contains(' ') || !name.ends_with(".yaml") {
                continue;
            }
            seen += 1;
            let block = block.replace("<the pin>", &"ab".repeat(32));
            let parsed = match block.contains("\nca:") {
                true => config::parse_authority(&block, name).map(drop),
                false => config::parse_agent(&block, name).map(drop),
            };
            parsed.unwrap_or_else(|errors| panic!("{}:\n{errors}", path.display()));
        }
    }
    assert!(seen >= 5, "only {seen} whole files: are they marked?");
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in documents() {
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            let leads = target.exists()
                && (anchor.is_empty() || anchors(&target).iter().any(|it| it == anchor));
            if !leads {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_command_that_is_mentioned_exists() {
    let commands = variants(&source("agent/src/cli.rs"), "enum Command");
    let administer = variants(&source("agent/src/cli/authority.rs"), "enum Administer");
    assert!(commands.contains("healthcheck") && administer.contains("join-token"));
    let mut unknown = Vec::new();
    for (path, text) in documents() {
        let shown = text.lines().filter_map(|line| line.strip_prefix("$ "));
        let shown = shown.map(str::to_owned).chain(code_spans(&text));
        for call in shown.filter_map(|it| it.strip_prefix("warifu ").map(str::to_owned)) {
            let mut words = call.split_whitespace().filter(|word| *word != "|");
            let (command, next) = (words.next().unwrap_or_default(), words.next());
            let next = next.filter(|word| command == "authority" && !word.starts_with('-'));
            let known = command.starts_with('-')
                || commands.contains(command)
                    && next.is_none_or(|word| administer.contains(word.trim_end_matches(',')));
            // What a document says first of all in the issuing API's own transcripts.
            if !known && command != "issuing" {
                unknown.push(format!("{}: warifu {call}", path.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn every_field_of_the_configuration_is_documented_with_its_default() {
    let text = source("docs/configuration.md");
    let rows: Vec<Vec<String>> = table_rows(&text).collect();
    let mut missing = Vec::new();
    for file in ["agent", "authority"] {
        let schema = source(&format!("docs/schema/{file}.schema.json"));
        let schema = serde_json::from_str(&schema).unwrap();
        for (field, default) in properties(&schema) {
            let is_of_field = |row: &&Vec<String>| {
                let mut names = code_spans(&row[0]).into_iter();
                names.any(|name| name.rsplit(['.', ']']).next() == Some(field.as_str()))
            };
            let written = code_spans(&text)
                .iter()
                .any(|it| words(it).any(|it| it == field));
            let with_default = default.as_ref().is_none_or(|default| {
                let mut of_field = rows.iter().filter(is_of_field);
                of_field.any(|row| row.join("|").contains(&format!("`{default}`")))
            });
            if !written || !with_default {
                missing.push(format!("{file}: {field} {default:?}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_what_is_written_of_them_are_the_same() {
    let documented = documented_metrics();
    let sources = rust_files("agent/src");
    let handed = sources.iter().flat_map(|(_, text)| handed_prefixes(text));
    let handed: Names = handed.collect();
    let registered: Names = sources
        .iter()
        .flat_map(|(path, text)| metrics(path, text, &handed))
        .collect();
    let written: Names = documented.keys().cloned().collect();
    assert!(registered.len() > 25, "{registered:?}");
    assert_eq!(written, registered);

    let shop = Shop::open_with_jwt().await;
    let answer = shop.orders.client().get("http://payments/charges").send();
    assert_eq!(answer.await.unwrap().status(), 200);
    for agent in [&shop.orders, &shop.payments] {
        let (_, page) = agent.probe("/metrics").await;
        for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert_eq!(documented[name], kind, "{name}");
        }
    }
}

#[test]
fn reasons_and_what_is_written_of_them_are_the_same() {
    let text = source("docs/operations.md");
    let server = reasons(&source("agent/src/http/server/connection.rs"));
    let inbound = [
        "agent/src/inbound/refusal.rs",
        "agent/src/inbound/ext_authz/request.rs",
    ];
    for (heading, files) in [
        ("### Inbound", &inbound[..]),
        ("### Outbound", &["agent/src/outbound/refusal.rs"]),
    ] {
        let mut in_code: BTreeSet<_> = files.iter().flat_map(|it| reasons(&source(it))).collect();
        assert!(in_code.len() > 10, "{files:?}: {in_code:?}");
        in_code.extend(server.iter().cloned());
        let section = text.split(heading).nth(1).unwrap();
        let section = section.split("\n#").next().unwrap();
        let written: BTreeSet<_> = table_rows(section)
            .skip(1)
            .map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone()))
            .collect();
        assert_eq!(written, in_code, "{heading}");
    }
}

#[test]
fn every_dependency_has_its_line_and_none_is_written_of_that_is_not_there() {
    let manifest = source("Cargo.toml");
    let section = manifest.split("[workspace.dependencies]\n").nth(1).unwrap();
    let used: Names = section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| {
            let (name, rest) = line.split_once(" = ")?;
            let package = rest.split("package = \"").nth(1);
            let name = package.map_or(name, |it| it.split('"').next().unwrap());
            let ours = name.starts_with("warifu") || name.starts_with('#');
            (!ours).then(|| name.to_owned())
        })
        .collect();
    let text = source("docs/dependencies.md");
    let text = text.split("## Left out").next().unwrap();
    let mut written = Names::new();
    for row in table_rows(text).filter(|row| row[0] != "crate") {
        for name in row[0].split(", ") {
            let name = name.split(' ').next().unwrap();
            match name.strip_suffix('*') {
                Some(start) => {
                    written.extend(used.iter().filter(|it| it.starts_with(start)).cloned())
                }
                None => _ = written.insert(name.to_owned()),
            }
        }
    }
    assert_eq!(written, used);
}

#[test]
fn every_test_that_is_named_as_evidence_exists() {
    let mut tests = Names::new();
    for root in ["agent/src", "client-lib/src", "tests"] {
        for (path, text) in rust_files(root) {
            tests.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
            let names = text.split("fn ").skip(1);
            tests.extend(names.filter_map(|rest| rest.split('(').next().map(str::to_owned)));
        }
    }
    let mut missing = Vec::new();
    for row in table_rows(&source("docs/verified.md")) {
        for name in row.iter().skip(2).flat_map(|cell| code_spans(cell)) {
            let found = match name.strip_suffix('…') {
                Some(start) => tests.iter().any(|it| it.starts_with(start)),
                None => {
                    tests.contains(&name)
                        || root().join(name.split(' ').next().unwrap()).exists()
                        || name.contains(' ')
                }
            };
            if !found {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "no such test: {missing:?}");
}

/// Metric → type, from the tables of `docs/operations.md`; names without their type's suffix.
fn documented_metrics() -> BTreeMap<String, String> {
    let text = source("docs/operations.md");
    table_rows(&text)
        .filter(|row| row[0].starts_with("`warifu_") || row[0].starts_with("`process_"))
        .map(|row| {
            let (name, kind) = (row[0].trim_matches('`'), row[1].clone());
            let suffix = match kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let name = name.strip_suffix(suffix).unwrap_or_else(|| {
                panic!("{name} is a {kind}, so its name ends in {suffix}");
            });
            (name.to_owned(), kind)
        })
        .collect()
}

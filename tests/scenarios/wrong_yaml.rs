//! A wrong configuration: every mistake with file, line, column and field, what was expected, and what
//! to do; exit code 2; nothing was started or written.

use warifu_tests::process::{Finished, Sandbox};

/// Right; each case makes one mistake in it.
const AGENT: &str = r#"trust_domain: example.org
authority: {url: "https://authority.example:8443", root_spki_sha256: [9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08]}
attestation: {join-token: {token: "file:/run/secrets/token"}}
state_dir: DIR/state
outbound:
  listen: unix:DIR/outbound.sock
  routes:
  - {host: payments, upstream: "https://payments:8443", mtls: {expect: "spiffe://example.org/payments"}}
"#;

const AUTHORITY: &str = r#"trust_domain: example.org
listen: 127.0.0.1:0
admin: unix:DIR/authority.sock
ca: {key: disk, path: DIR/ca}
state: sqlite
attestors: {bootstrap: {kind: join-token}}
rules:
- {attestor: bootstrap, match: {service: orders}, id: /orders}
"#;

/// What is replaced by what, and the first line of what is said after the file's name.
const AGENTS: &[(&str, &str, &str)] = &[
    // A syntax error.
    (
        "root_spki_sha256: [",
        "root_spki_sha256: [[",
        "2:70: not valid YAML: mismatched bracket '[' closed by '}'",
    ),
    (
        "outbound:\n",
        "outbound: {\n",
        "7:9: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'",
    ),
    // An unknown key.
    (
        "outbound:\n",
        "outbond:\n",
        "5:1: unknown key \"outbond\", did you mean \"outbound\"? Expected one of: trust_domain, ",
    ),
    // A wrong type.
    (
        "state_dir: DIR/state",
        "workers: many",
        "4:10: workers: expected a whole number, found \"many\"",
    ),
    (
        "listen: unix:DIR/outbound.sock",
        "listen: 4140",
        "6:11: outbound.listen: expected ",
    ),
    // A missing field.
    (
        "trust_domain: example.org\n",
        "",
        "1:1: \"trust_domain\" is missing; it is required here",
    ),
    // Fields that contradict each other.
    (
        "https://payments:8443",
        "http://127.0.0.1:8443",
        "8:32: outbound.routes[0].upstream: mtls needs https://, found http://127.0.0.1:8443",
    ),
    // What the environment lacks.
    (
        "https://payments:8443",
        "https://${PAYMENTS_HOST}:8443",
        "8:32: outbound.routes[0].upstream: the environment variable PAYMENTS_HOST is not set; set \
         it, or write $${ for a literal ${",
    ),
    // A secret that is written down.
    (
        "file:/run/secrets/token",
        "wjt_hunter2",
        "3:35: attestation.join-token.token: expected a reference to a secret in a file such as \
         file:/run/secrets/token; a secret is never written inline",
    ),
];

const AUTHORITIES: &[(&str, &str, &str)] = &[
    (
        "state: sqlite",
        "state: sqllite",
        "5:8: state: unknown value \"sqllite\", did you mean \"sqlite\"? Expected one of: memory, sqlite",
    ),
    (
        "key: disk, path: DIR/ca",
        "key: disk",
        "4:1: ca: with \"key: disk\" the key \"path\" is required, such as path: /var/lib/warifu",
    ),
    (
        "attestor: bootstrap",
        "attestor: boostrap",
        "8:14: rules[0].attestor: ",
    ),
];

#[test]
fn is_told_with_its_place_and_nothing_is_started() {
    for (kind, right, cases) in [
        ("agent", AGENT, AGENTS),
        ("authority", AUTHORITY, AUTHORITIES),
    ] {
        let sandbox = Sandbox::new();
        let dir = sandbox.path("");
        let dir = dir.to_str().unwrap().trim_end_matches('/');
        let file = format!("{kind}.yaml");
        let right = right.replace("DIR", dir);
        sandbox.write(&file, &right);
        let checked = sandbox.warifu(&["check", "--config", &file]).run();
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);

        for (what, by, expected) in cases {
            let (what, by) = (what.replace("DIR", dir), by.replace("DIR", dir));
            let wrong = right.replacen(&what, &by, 1);
            assert_ne!(wrong, right, "{what}");
            sandbox.write(&file, wrong);
            let before = sandbox.content();
            for command in ["check", kind] {
                let said = sandbox.warifu(&[command, "--config", &file]).run();
                assert_is_usage_error(&said, &file, expected);
            }
            assert_eq!(sandbox.content(), before, "{by}: something was written");
        }
    }
}

fn assert_is_usage_error(said: &Finished, file: &str, expected: &str) {
    let lines: Vec<&str> = said.stderr.lines().collect();
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert_eq!(said.stdout, "");
    let first = lines[0]
        .strip_prefix(&format!("{file}:"))
        .unwrap_or(lines[0]);
    assert!(first.starts_with(expected), "{first}\n{expected}");
    assert_eq!(
        lines[1..],
        [
            format!("warifu: reading the configuration {file}: 1 mistake"),
            format!(
                "  correct what is listed above; `warifu check --config {file}` checks again and \
                 starts nothing"
            ),
        ]
    );
    assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
}

#[test]
fn every_mistake_is_told_at_once() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "agent.yaml",
        "trust_domain: exam ple\nattestation: oidc\ndrain: soon\nadmn: {}\n",
    );
    let said = sandbox.warifu(&["check", "--config", "agent.yaml"]).run();
    let places: Vec<&str> = said
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("agent.yaml:")?.split(": ").next())
        .collect();
    assert_eq!(places, ["1:15", "2:14", "3:8", "4:1"], "{}", said.stderr);
    assert_eq!(said.code, Some(2));
}

#[test]
fn what_is_no_configuration_file_says_so() {
    let sandbox = Sandbox::new();
    sandbox.write("random.yaml", [0x93, 0xff, 0x00, 0x80]);
    sandbox.write("large.yaml", "# ".repeat(1 << 20));
    sandbox.write("empty.yaml", "");
    sandbox.write("authority.yaml", AUTHORITY.replace("DIR", "/run"));
    for (file, expected) in [
        (
            "absent.yaml",
            "absent.yaml: the file cannot be read: No such file or directory",
        ),
        (
            "random.yaml",
            "random.yaml: the file is not UTF-8 text; is it a configuration file?",
        ),
        (
            "large.yaml",
            "large.yaml: the file is larger than 1024 KiB; is it a configuration file?",
        ),
        (
            "empty.yaml",
            "empty.yaml:1:1: expected a mapping with the keys trust_domain, ",
        ),
        (
            "authority.yaml",
            "warifu: reading the configuration authority.yaml: this is a file for `warifu authority`",
        ),
    ] {
        let said = sandbox.warifu(&["agent", "--config", file]).run();
        assert!(said.stderr.starts_with(expected), "{}", said.stderr);
        assert_eq!(said.code, Some(2));
    }
}

#[test]
fn a_misspelt_log_level_is_an_error_and_not_silence() {
    let sandbox = Sandbox::new();
    sandbox.write("authority.yaml", AUTHORITY.replace("DIR", "/run"));
    let check = ["check", "--config", "authority.yaml"];
    for command in [
        sandbox.warifu(&["--log", "debgu"]).args(&check),
        sandbox.warifu(&check).env("WARIFU_LOG", "debgu"),
    ] {
        let said = command.run();
        let expected = "warifu: setting up the log: the log filter \"debgu\" is not valid: \"debgu\" \
                        is no level; expected a level (error, warn, info, debug, trace) or directives";
        assert!(said.stderr.starts_with(expected), "{}", said.stderr);
        assert_eq!(said.code, Some(2));
    }
}

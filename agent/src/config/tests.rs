//! Whole files, right and wrong: every mistake is found, and where it is.

use std::{fs, path::Path as FilePath};

use proptest::prelude::*;
use serde_json::Value;

use super::{agent::Attestation, authority::CaKey, value::*, *};

mod accept;
mod aws;
mod ext_authz;
mod forwarding;
mod identities;
mod opaque;
mod publish;
mod rules;
mod sigv4;
mod trust_domains;

const AGENT: &str = include_str!("../../../docs/examples/agent.yaml");
const AUTHORITY: &str = include_str!("../../../docs/examples/authority.yaml");

/// The smallest agent file; wrong ones are made of it.
const SMALL: &str = "\
trust_domain: example.org
authority:
  url: https://authority:8443
  bundle: /etc/roots.pem
attestation: {join-token: {token: 'file:/run/token'}}
";

fn agent_errors(text: &str) -> Vec<(u64, String, String)> {
    errors(parse_agent(text, "agent.yaml").expect_err("the file is wrong"))
}

fn authority_errors(text: &str) -> Vec<(u64, String, String)> {
    errors(parse_authority(text, "authority.yaml").expect_err("the file is wrong"))
}

fn errors(errors: ConfigErrors) -> Vec<(u64, String, String)> {
    errors
        .errors
        .into_iter()
        .map(|error| (error.at.map_or(0, |at| at.line), error.field, error.what))
        .collect()
}

/// The one mistake of `text` is on `line`, about `field`, and says `what`.
#[track_caller]
fn one(found: Vec<(u64, String, String)>, line: u64, field: &str, what: &str) {
    let [(at, name, said)] = found.as_slice() else {
        panic!("expected one error, found {found:#?}");
    };
    assert_eq!((*at, name.as_str()), (line, field), "{said}");
    assert!(said.contains(what), "{said}");
}

#[test]
fn the_example_files_are_valid() {
    let agent = parse_agent(AGENT, "agent.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(agent.inbound[0].allow.len(), 2);
    assert_eq!(
        agent.outbound.unwrap().routes[1].upstream.base_path,
        "/prod"
    );
    let Attestation::JoinToken { token } = agent.attestation else {
        panic!("{:?}", agent.attestation);
    };
    assert_eq!(token, SecretFile("/run/secrets/warifu-join-token".into()));

    let authority =
        parse_authority(AUTHORITY, "authority.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(authority.rules[1].scopes, ["charges.read"]);
    assert!(matches!(authority.ca.key, CaKey::Disk { .. }));
}

#[test]
fn a_small_file_has_the_documented_defaults() {
    let agent = parse_agent(SMALL, "agent.yaml").unwrap();
    assert_eq!(agent.drain.0, defaults::DRAIN);
    assert!((1..=defaults::MAX_WORKERS).contains(&agent.workers));
    assert!(agent.inbound.is_empty() && agent.outbound.is_none());
}

#[test]
fn an_unknown_key_is_an_error_with_a_suggestion() {
    let found = agent_errors(&format!("{SMALL}inbuond: []\n"));
    one(found, 6, "", "did you mean \"inbound\"?");
    let text = SMALL.replace("  bundle:", "  bundel:");
    one(
        agent_errors(&text),
        4,
        "authority",
        "unknown key \"bundel\", did you mean \"bundle\"?",
    );
}

#[test]
fn what_a_later_version_does_is_said_not_to_be_supported_yet() {
    let later =
        "  root_spki_sha256: []\n  bundle_url: https://authority.example.org/bundle\n  bundle:";
    let found = agent_errors(&SMALL.replace("  bundle:", later));
    let told = "\"bundle_url\" is not supported by this version";
    one(found, 5, "authority", told);
    // Where no version has it, it is a mistake.
    let found = agent_errors(&format!("{SMALL}bundle_url: x\n"));
    one(found, 6, "", "unknown key \"bundle_url\"");
}

/// In the schema, all that is there today stands beside what it is beside.
#[test]
fn what_is_said_to_come_later_is_not_here_yet_and_would_be_beside_what_is() {
    fn words(node: &Value, found: &mut Vec<Vec<String>>) {
        let Some(object) = node.as_object() else {
            let items = node.as_array().map(Vec::as_slice).unwrap_or_default();
            return items.iter().for_each(|it| words(it, found));
        };
        // The variants of an enum are constants, or objects of one key.
        let variant = |it: &Value| match it.get("const").and_then(Value::as_str) {
            Some(word) => vec![word.to_owned()],
            None => keys(it),
        };
        found.push(keys(node));
        if let Some(variants) = object.get("oneOf").and_then(Value::as_array) {
            found.push(variants.iter().flat_map(variant).collect());
        }
        object.values().for_each(|it| words(it, found));
    }
    fn keys(node: &Value) -> Vec<String> {
        let keys = node.get("properties").and_then(Value::as_object);
        keys.map(|it| it.keys().cloned().collect())
            .unwrap_or_default()
    }
    let mut found = Vec::new();
    words(&serde_json::from_str(&schema::agent()).unwrap(), &mut found);
    for (later, beside) in reader::LATER {
        let places = found
            .iter()
            .filter(|it| it.iter().any(|word| word == beside));
        let mut places = places.peekable();
        assert!(
            places.peek().is_some(),
            "nothing is called {beside} any more"
        );
        for place in places {
            assert!(
                !place.iter().any(|word| word == later),
                "{later} is here: {place:?}"
            );
        }
    }
}

#[test]
fn a_wrong_value_says_what_was_expected() {
    let found = agent_errors(&format!("{SMALL}drain: half an hour\n"));
    one(found, 6, "drain", "expected a duration such as 500ms, 30s");
    let found = agent_errors(&format!("{SMALL}drain: 30\n"));
    one(found, 6, "drain", "found the number 30");
    let found = agent_errors(&format!("{SMALL}workers: many\n"));
    one(
        found,
        6,
        "workers",
        "expected a whole number, found \"many\"",
    );
    let found = agent_errors(&format!("{SMALL}workers: -1\n"));
    one(
        found,
        6,
        "workers",
        "expected a whole number, found the number -1",
    );
    let found = agent_errors(&format!("{SMALL}inbound: {{}}\n"));
    one(
        found,
        6,
        "inbound",
        "expected a list ([a, b]), found a mapping",
    );
}

#[test]
fn a_missing_key_is_named_at_what_lacks_it() {
    let text = SMALL.replace("  url: https://authority:8443\n", "");
    one(agent_errors(&text), 2, "authority", "\"url\" is missing");
    one(agent_errors("trust_domain: a.org\n"), 1, "", "is missing");
}

#[test]
fn a_key_given_twice_is_an_error() {
    let found = agent_errors(&format!("{SMALL}trust_domain: other.org\n"));
    one(found, 6, "", "\"trust_domain\" is given twice");
}

#[test]
fn what_is_no_yaml_is_an_error_with_its_line() {
    let found = agent_errors(&format!("{SMALL}drain: [1, 2\ninbound: []\n"));
    assert_eq!(found.len(), 1);
    assert!((6..=8).contains(&found[0].0), "{found:?}");
    assert!(found[0].2.contains("not valid YAML"), "{found:?}");
    for empty in ["", "\n", "# nothing\n", "[]", "just text"] {
        let found = agent_errors(empty);
        assert!(
            found[0].2.contains("expected a mapping"),
            "{empty:?}: {found:?}"
        );
    }
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = "\
trust_domain: example.org
authority: {url: 'http://authority', bundle: /b}
attestation: {join-token: {tokn: 'file:/x'}}
drain: soon
inbound:
- listen: 8443
  forward: http://10.0.0.1:80
  accept: [{mtls: {trust_domains: [example.org]}}, {basic: {}}]
  allow: [{peer: orders, to: [charges]}]
- listen: 127.0.0.1:1
  forward: unix:/app
  accept: []
  colour: blue
outbound:
  listen: unix:/o
  routes: [{host: a, upstream: 'http://a'}, {host: b:1, upstream: 'https://b'}]
";
    let fields: Vec<_> = agent_errors(text)
        .into_iter()
        .map(|(line, field, _)| (line, field))
        .collect();
    let expected = [
        (2, "authority.url"),
        (3, "attestation.join-token"),
        (4, "drain"),
        (6, "inbound[0].listen"),
        (7, "inbound[0].forward"),
        (8, "inbound[0].accept[1]"),
        (9, "inbound[0].allow[0].peer"),
        (9, "inbound[0].allow[0].to[0]"),
        (13, "inbound[1]"),
        (16, "outbound.routes[0].upstream"),
        (16, "outbound.routes[1].host"),
    ];
    let expected: Vec<_> = expected
        .map(|(line, field)| (line, field.to_owned()))
        .into();
    assert_eq!(fields, expected);
}

#[test]
fn what_only_follows_from_a_mistake_is_not_reported() {
    let text = SMALL.replace("  url: https://authority:8443", "  url: http://authority");
    one(agent_errors(&text), 3, "authority.url", "expected https://");
    let text = SMALL.replace("  url:", "  uri:");
    one(agent_errors(&text), 3, "authority", "did you mean \"url\"?");
}

#[test]
fn s03_a_claim_does_not_become_a_header_that_says_where_a_request_goes_or_who_sent_it() {
    for header in [
        "host",
        "x-warifu-caller",
        "x-amzn-oidc-identity",
        "x-forwarded-for",
        "x-forwarded-proto",
        "client-cert",
        "x-http-method-override",
        "x-original-url",
        "x-rewrite-url",
    ] {
        let text = format!(
            "{SMALL}inbound:
- listen: 127.0.0.1:8443
  forward: unix:/app
  accept: [{{jwt: {{profile: jwt-svid, audiences: [payments]}}}}]
  forward_claims: {{sub: {header}}}
"
        );
        let field = "inbound[0].forward_claims.sub";
        one(agent_errors(&text), 10, field, "a meaning of its own");
    }
}

#[test]
fn fields_that_contradict_each_other_are_reported_at_once() {
    let text = "\
trust_domain: example.org
authority: {url: 'https://authority'}
attestation: {join-token: {token: 'file:/x'}}
inbound:
- listen: 0.0.0.0:8443
  forward: http://127.0.0.1:8443
  accept: []
- listen: 127.0.0.1:8443
  forward: unix:/app
  accept:
  - mtls: {trust_domains: [example.org, example.org]}
  allow:
  - {to: ['GET /']}
  - {subject: {scope: a}, to: ['GET /']}
  - {peer: 'spiffe://partner.example/x', to: []}
  forward_claims: {sub: x-user, scope: x-user, iss: x-warifu-caller}
outbound:
  listen: 0.0.0.0:4140
  routes:
  - {host: A, upstream: 'https://a', jwt: {audience: a}, sigv4: {service: s, signed_headers: [te]}}
  - {host: a, upstream: 'http://127.0.0.1:1', mtls: {expect: 'spiffe://example.org/a'}}
admin: {listen: '0.0.0.0:9'}
";
    let fields: Vec<_> = agent_errors(text)
        .into_iter()
        .map(|(line, field, _)| (line, field))
        .collect();
    let expected = [
        (2, "authority"),
        (6, "inbound[0].forward"),
        (7, "inbound[0].accept"),
        (8, "inbound[1].listen"),
        (11, "inbound[1].accept[0].mtls.trust_domains[1]"),
        (13, "inbound[1].allow[0]"),
        (14, "inbound[1].allow[1].subject"),
        (15, "inbound[1].allow[2].peer"),
        (15, "inbound[1].allow[2].to"),
        (16, "inbound[1].forward_claims"),
        (16, "inbound[1].forward_claims.iss"),
        (16, "inbound[1].forward_claims.sub"),
        (18, "outbound.listen"),
        (20, "outbound.routes[0].sigv4"),
        (20, "outbound.routes[0].sigv4.signed_headers[0]"),
        (21, "outbound.routes[1].host"),
        (21, "outbound.routes[1].upstream"),
        (22, "admin.listen"),
    ];
    let mut fields = fields;
    fields.sort();
    let mut expected: Vec<_> = expected
        .map(|(line, field)| (line, field.to_owned()))
        .into();
    expected.sort();
    assert_eq!(fields, expected);
}

#[test]
fn an_authority_that_contradicts_itself_is_refused() {
    let text = "\
trust_domain: example.org
listen: 127.0.0.1:8443
admin: 127.0.0.1:8443
ca: {key: memory, root_ttl: 1h, intermediate_ttl: 2h, publish_ahead: 1h}
attestors: {a: {kind: join-token}}
rules:
- {attestor: b, match: {}, id: /x, ttl: 1d, jwt_ttl: 2d, dns: [auth.internal], audiences: ['a*']}
dns_names: [auth.internal]
state: sqlite
";
    let found = authority_errors(text);
    let mut fields: Vec<_> = found.iter().map(|(_, field, _)| field.as_str()).collect();
    fields.sort_unstable();
    let expected = [
        "admin",
        "admin",
        "ca.intermediate_ttl",
        "ca.publish_ahead",
        "rules[0].attestor",
        "rules[0].audiences[0]",
        "rules[0].dns[0]",
        "rules[0].jwt_ttl",
        "rules[0].match",
        "rules[0].ttl",
        "state",
    ];
    assert_eq!(fields, expected, "{found:#?}");
}

#[test]
fn attestors_that_believe_the_same_or_the_wrong_are_refused() {
    let found = authority_errors(
        "\
trust_domain: example.org
listen: 127.0.0.1:8443
admin: unix:/run/a.sock
ca: {key: memory}
state: memory
attestors:
  aws:
    kind: aws-web-identity
    issuers: {'12345': https://a.tokens.example, '123456789012': https://b.tokens.example}
    org: abc
    pod_identity_roles: ['210987654321:role/shop']
  blue: {kind: kubernetes, issuer: https://b.tokens.example, audience: sts.amazonaws.com}
  ci:
    kind: oidc
    issuer: http://127.0.0.1:8080
    audience: warifu:example.org:call:payments
    ca_file: /etc/ca.pem
    facts: {sub: sub, Ref: ref, ref: a..b}
  green:
    kind: kubernetes
    issuer: https://green.example
    audience: warifu:example.org:call:payments
    token_review: {url: 'http://127.0.0.1:8001', ca_file: /etc/ca.pem, token_file: /run/token}
",
    );
    let expected = [
        (9, "attestors.aws.issuers.12345", "12 digits"),
        (10, "attestors.aws.org", "o-a1b2c3d4e5"),
        (11, "attestors.aws.pod_identity_roles[0]", "no issuer here"),
        (
            12,
            "attestors.blue.issuer",
            "attestors.aws.issuers.123456789012 already",
        ),
        (12, "attestors.blue.audience", "somebody else's"),
        (16, "attestors.ci.audience", "an audience for calls"),
        (17, "attestors.ci.ca_file", "no certificate"),
        (18, "attestors.ci.facts.Ref", "lower-case"),
        (18, "attestors.ci.facts.ref", "a.b for b of a"),
        (18, "attestors.ci.facts.sub", "which every token proves"),
        (22, "attestors.green.audience", "an audience for calls"),
        (
            22,
            "attestors.green.audience",
            "attestors.ci.audience already",
        ),
        (23, "attestors.green.token_review.ca_file", "no certificate"),
    ];
    for (line, field, what) in expected {
        assert!(
            found
                .iter()
                .any(|it| it.0 == line && it.1 == field && it.2.contains(what)),
            "{line} {field} {what}: {found:#?}"
        );
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn caller_identities_have_one_attestor_and_endpoints_by_region() {
    let found = authority_errors(
        "\
trust_domain: example.org
listen: 127.0.0.1:8443
admin: unix:/run/a.sock
ca: {key: memory}
state: memory
attestors:
  a:
    kind: aws-caller-identity
    accounts: ['123456789012']
    sts_endpoints: {eu-west-1: 'https://sts.example/base', EU_WEST_1: 'https://sts.example'}
  b: {kind: aws-caller-identity, accounts: ['210987654321']}
",
    );
    let expected = [
        (
            10,
            "attestors.a.sts_endpoints.EU_WEST_1",
            "such as eu-west-1",
        ),
        (10, "attestors.a.sts_endpoints.eu-west-1", "without a path"),
        (11, "attestors.b.kind", "attestors.a is one already"),
    ];
    for (line, field, what) in expected {
        assert!(
            found
                .iter()
                .any(|it| it.0 == line && it.1 == field && it.2.contains(what)),
            "{line} {field} {what}: {found:#?}"
        );
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn a_rotation_that_could_not_work_is_refused() {
    let text = "\
trust_domain: example.org
listen: 127.0.0.1:8443
admin: unix:/run/a.sock
ca: {key: memory, root_ttl: 6h, intermediate_ttl: 2h, publish_ahead: 1h}
attestors: {a: {kind: join-token}}
bundle_refresh_hint: 31m
state: memory
";
    let found = authority_errors(text);
    let fields: Vec<_> = found.iter().map(|(_, field, _)| field.as_str()).collect();
    assert_eq!(fields, ["ca.root_ttl", "ca.publish_ahead"], "{found:#?}");
    let text = text.replace("31m", "30m").replace("6h", "7h");
    assert!(parse_authority(&text, "authority.yaml").is_ok());
}

#[test]
fn s18_a_rule_cannot_name_a_reserved_identity() {
    let text = AUTHORITY.replace("id: /payments", "id: /warifu/authority");
    one(
        authority_errors(&text),
        26,
        "rules[0].id",
        "reserved for the authority",
    );
}

#[test]
fn a_disk_ca_needs_a_path_and_a_memory_ca_has_none() {
    let text = AUTHORITY.replace("{key: disk, path: /var/lib/warifu}", "{key: disk}");
    one(authority_errors(&text), 9, "ca", "\"path\" is required");
    let text = AUTHORITY.replace("{key: disk, path:", "{key: memory, path:");
    one(authority_errors(&text), 9, "ca", "there is no path");
    let text = AUTHORITY.replace("{key: disk, path: /var/lib/warifu}", "{key: disk, path: x}");
    one(authority_errors(&text), 9, "ca.path", "must be absolute");
    let text = AUTHORITY.replace("{key: disk, path: /var/lib/warifu}", "{key: aws-kms}");
    one(
        authority_errors(&text),
        9,
        "ca",
        "the key \"key_id\" is required",
    );
}

#[test]
fn a_revocation_list_may_be_seconds_or_days_old_and_no_list_forever() {
    let agent = |revocation: &str| format!("{SMALL}revocation: {revocation}\n");
    let parsed = parse_agent(&agent("{when_stale: refuse}"), "agent.yaml").unwrap();
    assert_eq!(parsed.revocation.max_age.0, defaults::REVOCATION_MAX_AGE);
    assert_eq!(parsed.revocation.when_stale, agent::WhenStale::Refuse);
    for max_age in ["2s", "8d"] {
        let found = agent_errors(&agent(&format!("{{max_age: {max_age}}}")));
        one(found, 6, "revocation.max_age", "expected 3s to 7d");
    }
    let found = agent_errors(&agent("{when_stale: panic}"));
    one(found, 6, "revocation.when_stale", "serve");
}

#[test]
fn a_limit_that_admits_nobody_is_refused() {
    let text = format!("{AUTHORITY}attestations_per_second: 0\n");
    let line = text.lines().count();
    one(
        authority_errors(&text),
        line.try_into().unwrap(),
        "attestations_per_second",
        "expected at least 1",
    );
}

#[test]
fn s12_an_inline_secret_is_refused_and_not_repeated() {
    let text = SMALL.replace("file:/run/token", "hunter2");
    let error = parse_agent(&text, "agent.yaml").unwrap_err().to_string();
    assert!(error.starts_with("agent.yaml:5:"), "{error}");
    assert!(
        error.contains("never written inline") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn s19_credentials_do_not_go_over_plaintext() {
    let route =
        |route: &str| format!("{SMALL}outbound:\n  listen: unix:/o\n  routes:\n  - {route}\n");
    for credential in ["jwt: {audience: a}", "sigv4: {service: s}"] {
        let text = route(&format!("{{host: a, upstream: 'http://a', {credential}}}"));
        one(
            agent_errors(&text),
            9,
            "outbound.routes[0].upstream",
            "use https://",
        );
        let text = route(&format!(
            "{{host: a, upstream: 'http://127.0.0.1:1', {credential}}}"
        ));
        assert!(parse_agent(&text, "agent.yaml").is_ok());
    }
}

#[test]
fn the_environment_is_expanded_and_may_stand_for_numbers() {
    let env = |name: &str| match name {
        "DOMAIN" => Some("example.org".to_owned()),
        "THREADS" => Some("3".to_owned()),
        _ => None,
    };
    let text = SMALL.replace("example.org", "${DOMAIN}") + "workers: ${THREADS}\n";
    let config = parse_with(&text, "agent.yaml", validate::agent, &env).unwrap();
    assert_eq!(
        (config.trust_domain.as_str(), config.workers),
        ("example.org", 3)
    );

    let text = SMALL.replace("example.org", "${NOPE}") + "drain: ${ALSO_NOT}\n";
    let errors = parse_with(&text, "agent.yaml", validate::agent, &env).unwrap_err();
    let lines: Vec<_> = errors.errors.iter().map(|e| e.at.unwrap().line).collect();
    assert_eq!(lines, [1, 6]);
    assert!(errors.to_string().contains("NOPE is not set"), "{errors}");
    let text = SMALL.to_owned() + "workers: '3'\n";
    assert!(
        parse_agent(&text, "agent.yaml").is_err(),
        "text is not a number by itself"
    );
}

#[test]
fn anchors_and_merges_are_understood() {
    let text = format!(
        "{SMALL}inbound:\n- &in\n  listen: 127.0.0.1:1\n  forward: unix:/a\n  accept: [{{mtls: \
         {{trust_domains: [example.org]}}}}]\n- <<: *in\n  listen: 127.0.0.1:2\n"
    );
    let config = parse_agent(&text, "agent.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.inbound[1].forward, Some(Forward::Unix("/a".into())));
}

#[test]
fn an_error_is_printed_as_file_line_column_field_and_expectation() {
    let error = parse_agent(&format!("{SMALL}drain: soon\n"), "etc/agent.yaml").unwrap_err();
    assert_eq!(
        error.to_string(),
        "etc/agent.yaml:6:8: drain: expected a duration such as 500ms, 30s, 15m, 1h or 7d, found \
         \"soon\""
    );
}

#[test]
fn a_file_is_read_with_a_bound_and_its_kind_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.yaml");
    let missing = load_agent(&path).unwrap_err().to_string();
    assert!(missing.contains("cannot be read"), "{missing}");
    fs::write(&path, "#".repeat(2 << 20)).unwrap();
    assert!(
        load_agent(&path)
            .unwrap_err()
            .to_string()
            .contains("larger than")
    );
    fs::write(&path, AUTHORITY).unwrap();
    assert_eq!(kind_of(&path).unwrap(), FileKind::Authority);
    assert!(load_authority(&path).is_ok());
    let examples = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    assert_eq!(
        kind_of(&examples.join("agent.yaml")).unwrap(),
        FileKind::Agent
    );
}

proptest! {
    #[test]
    fn nothing_panics_on_any_text(text in "\\PC{0,200}") {
        let _ = parse_agent(&text, "agent.yaml");
        let _ = parse_authority(&text, "authority.yaml");
    }

    /// Nearer to the real thing: an example with a part of it replaced.
    #[test]
    fn nothing_panics_on_a_damaged_file(
        from in 0_usize..2000, length in 0_usize..40, with in "[ \\n\\-:{}\\[\\]&*!|>'\"#a-z0-9$~,]{0,20}"
    ) {
        for (text, agent) in [(AGENT, true), (AUTHORITY, false)] {
            let from = from.min(text.len());
            let to = (from + length).min(text.len());
            let (Some(head), Some(tail)) = (text.get(..from), text.get(to..)) else { continue };
            let damaged = format!("{head}{with}{tail}");
            let result = match agent {
                true => parse_agent(&damaged, "x").err(),
                false => parse_authority(&damaged, "x").err(),
            };
            if let Some(errors) = result {
                prop_assert!(!errors.errors.is_empty());
                prop_assert!(!errors.to_string().is_empty());
            }
        }
    }
}

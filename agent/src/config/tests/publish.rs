//! `tokens`, `web` and `federation` of `authority.yaml`.

use super::*;
use crate::config::authority::issuer_path;

/// The example with these lines below it: what is wrong with it, by the field.
#[track_caller]
fn wrong(lines: &str, field: &str, says: &str) {
    let errors = authority_errors(&format!("{AUTHORITY}{lines}"));
    let found = errors.iter().find(|(_, at, _)| at == field);
    let (line, _, message) = found.unwrap_or_else(|| panic!("nothing of {field}: {errors:?}"));
    assert!(message.contains(says), "{field}: {message}");
    let first = AUTHORITY.lines().count() as u64 + 1;
    assert!(*line >= first, "line {line}");
}

fn right(lines: &str) {
    let text = format!("{AUTHORITY}{lines}");
    parse_authority(&text, "authority.yaml").unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn s09_the_two_kinds_of_tokens_have_different_issuers() {
    let tokens = |svid: &str, access: &str| {
        format!(
            "tokens:\n  jwt_svid: {{issuer: '{svid}'}}\n  access_token: {{issuer: '{access}'}}\n"
        )
    };
    let web = "web: {listen: 127.0.0.1:9443}\n";
    let field = "tokens.access_token.issuer";
    let same = tokens("https://a.example", "https://a.example");
    wrong(&same, field, "expected another issuer");
    let hosts = tokens("https://a.example/x", "https://b.example/x/");
    right(&hosts);
    wrong(&(hosts + web), field, "give them different paths");
    right(&(tokens("https://a.example", "https://a.example/access") + web));
}

#[test]
fn s19_the_world_reads_keys_over_tls_or_from_this_machine() {
    right("web: {listen: 127.0.0.1:9443}\n");
    right("web: {listen: 0.0.0.0:9443, tls: {certificate: /c.pem, key: /k.pem}}\n");
    wrong(
        "web: {listen: 0.0.0.0:9443}\n",
        "web.tls",
        "a loopback address",
    );
    wrong(
        "web: {listen: 0.0.0.0:8443}\n",
        "web.listen",
        "is taken by listen",
    );
}

#[test]
fn federation_says_how_each_endpoint_is_known() {
    let federated =
        |rest: &str| format!("federation:\n- {{trust_domain: partner.example, {rest}}}\n");
    let web = "profile: https_web, url: 'https://partner.example/bundle'";
    let spiffe = "profile: https_spiffe, url: 'https://10.0.0.1:8443', bundle: /b.json, \
                  endpoint_spiffe_id: 'spiffe://partner.example/spire/server'";
    right(&federated(web));
    right(&federated(&format!("{web}, ca_file: /ca.pem")));
    right(&federated(spiffe));
    let at = |field: &str| format!("federation[0].{field}");

    let more = federated(&format!("{web}, bundle: /b.json"));
    wrong(&more, &at("bundle"), "is for profile: https_spiffe");
    let more = federated(&format!(
        "{web}, endpoint_spiffe_id: 'spiffe://partner.example/x'"
    ));
    wrong(
        &more,
        &at("endpoint_spiffe_id"),
        "is for profile: https_spiffe",
    );
    let plain = federated(&spiffe.replace("https://10.0.0.1", "http://127.0.0.1"));
    wrong(&plain, &at("url"), "expected https://");
    let other = federated(&spiffe.replace("spiffe://partner.example", "spiffe://else.example"));
    wrong(
        &other,
        &at("endpoint_spiffe_id"),
        "spiffe://partner.example/spire/server",
    );
    let none = federated(&spiffe.replace("bundle: /b.json, ", ""));
    wrong(&none, &at("bundle"), "the first bundle");
    let ca = federated(&format!("{spiffe}, ca_file: /ca.pem"));
    wrong(&ca, &at("ca_file"), "is for profile: https_web");

    let own = federated(web).replace("partner.example,", "example.org,");
    wrong(&own, &at("trust_domain"), "is this authority's own");
    let item = federated(web);
    let twice = item.clone() + item.trim_start_matches("federation:\n");
    wrong(&twice, "federation[1].trust_domain", "is listed already");
}

#[test]
fn the_path_of_an_issuer_is_that_of_its_documents() {
    for (issuer, path) in [
        ("https://tokens.example.org", ""),
        ("https://tokens.example.org/", ""),
        ("https://tokens.example.org:8443/a/b", "/a/b"),
        ("https://tokens.example.org/a/", "/a"),
    ] {
        assert_eq!(issuer_path(issuer), path, "{issuer}");
    }
}

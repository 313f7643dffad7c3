//! `warifu policy`: what the rules of a file decide of made-up requests, offline.

use serde_json::Value;
use warifu_tests::process::{Finished, Sandbox};

/// Nothing that it names exists: no key, no secret, no socket.
const AGENT: &str = r#"trust_domain: example.org
authority: {url: "https://127.0.0.1:1", bundle: /nonexistent/roots.pem}
attestation: {join-token: {token: "file:/nonexistent/token"}}
inbound:
- listen: 0.0.0.0:8443
  forward: unix:/nonexistent/app.sock
  accept:
  - mtls: {trust_domains: [example.org]}
  - jwt: {profile: jwt-svid, audiences: [payments]}
  allow:
  - {name: orders-charge, peer: "spiffe://example.org/orders", to: ["POST /charges", "GET /charges/*"]}
  - {name: tenants, subject: {issuer: jwt-svid, scope: read, claims: {tenant_id: [a, b]}}, to: ["GET /charges/*"], source: [10.0.0.0/8]}
  - {name: refunds, shadow: true, peer: "spiffe://example.org/orders", to: ["GET /refunds"]}
  deny:
  - {name: charges, shadow: true, peer: "spiffe://example.org/orders", to: ["POST /charges"]}
  - {name: night, to: ["POST /**"], when: {from: "22:00", to: "06:00", offset: "+09:00"}}
"#;

const CASES: &str = r#"config: agent.yaml
cases:
- {name: by day, peer: "spiffe://example.org/orders", request: POST /charges, at: "2026-11-20T12:00:00+09:00", expect: allow, by: orders-charge}
- {name: by night, peer: "spiffe://example.org/orders", request: POST /charges, at: "2026-11-20T23:00:00+09:00", expect: deny, by: night}
- {name: tenant, subject: {scopes: [read], claims: {tenant_id: b}}, request: GET /charges/1, source: 10.1.2.3, expect: allow, by: tenants}
- {name: elsewhere, subject: {scopes: [read], claims: {tenant_id: b}}, request: GET /charges/1, source: 192.0.2.1, expect: deny}
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("agent.yaml", AGENT);
    sandbox
}

fn explain(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
    let command = sandbox.warifu(&["policy", "explain", "--config", "agent.yaml"]);
    command.args(arguments).run()
}

#[test]
fn a_decision_is_explained_by_the_rule_or_by_what_the_nearest_rules_lack() {
    let sandbox = sandbox();
    let orders = [
        "--peer",
        "spiffe://example.org/orders",
        "--at",
        "2026-11-20T12:00:00+09:00",
    ];
    let ask = |more: &[&str]| explain(&sandbox, &[&orders, more].concat());

    let said = ask(&["POST", "/charges"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        said.stdout.starts_with("allowed by orders-charge\n"),
        "{}",
        said.stdout
    );

    let said = ask(&["DELETE", "/charges/1"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(
        said.stdout.starts_with(
            "denied: no rule allows this caller this request\n  orders-charge (allow) does not hold\n      to: DELETE \
             /charges/1 is not POST /charges, GET /charges/*\n"
        ),
        "{}",
        said.stdout
    );

    // What a rule in shadow would have done is said beside what is done.
    let said = ask(&["POST", "/charges"]);
    assert!(
        said.stdout.starts_with(
            "allowed by orders-charge\nin shadow, charges would have denied it\n  orders-charge (allow) holds\n  \
             charges (deny, in shadow) holds\n"
        ),
        "{}",
        said.stdout
    );
    let said = ask(&["--json", "GET", "/refunds"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let answer: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(answer["decision"], "deny", "{answer}");
    assert_eq!(answer["shadow_allowed_by"], "refunds", "{answer}");

    let subject = [
        "--scope",
        "read",
        "--claim",
        "tenant_id=c",
        "--source",
        "192.0.2.1",
        "--json",
    ];
    let said = explain(&sandbox, &[&subject[..], &["GET", "/charges/1"]].concat());
    let answer: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(answer["decision"], "deny", "{answer}");
    let rules = answer["rules"].as_array().unwrap();
    let tenants = rules.iter().find(|rule| rule["rule"] == "tenants").unwrap();
    assert_eq!(
        tenants["misses"].to_string(),
        r#"["subject.claims.tenant_id: \"c\" is not \"a\", \"b\"","source: 192.0.2.1 is not in 10.0.0.0/8"]"#
    );

    for (arguments, why) in [
        (
            &["GET", "/a/../b"][..],
            "answers 400 before it asks any rule",
        ),
        (
            &["--listener", "1", "GET", "/"],
            "there are: 0 (0.0.0.0:8443)",
        ),
        (
            &["--issuer", "cognito", "GET", "/"],
            "there are: [jwt-svid]",
        ),
    ] {
        let said = explain(&sandbox, arguments);
        assert_eq!(said.code, Some(2), "{arguments:?} {}", said.stdout);
        assert!(said.stderr.contains(why), "{}", said.stderr);
    }
}

#[test]
fn a_table_of_cases_passes_or_says_which_failed_and_why() {
    let sandbox = sandbox();
    let test = |cases: &str| {
        sandbox.write("cases.yaml", cases);
        sandbox.warifu(&["policy", "test", "cases.yaml"]).run()
    };
    let said = test(CASES);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (Some(0), "4 cases, 0 failed\n"),
        "{}",
        said.stderr
    );

    let said = test(&CASES.replace("192.0.2.1", "10.9.9.9"));
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert_eq!(
        said.stdout.lines().take(3).collect::<Vec<_>>(),
        [
            "FAILED elsewhere",
            "  expected deny, but it is",
            "  allowed by tenants"
        ]
    );
    assert!(
        said.stdout.ends_with("4 cases, 1 failed\n"),
        "{}",
        said.stdout
    );
    // By another rule is not as expected, either.
    let said = test(&CASES.replace("by: night", "by: nightly"));
    assert_eq!(said.code, Some(1));
    assert!(
        said.stdout
            .contains("expected deny by nightly, but it is\n  denied by night\n"),
        "{}",
        said.stdout
    );

    for (cases, why) in [
        (
            CASES.replace("expect: deny}", "expect: denied}"),
            "cases.yaml:6:",
        ),
        (CASES.replace("agent.yaml", "other.yaml"), "other.yaml"),
        (
            CASES.replace("POST /charges", "POST"),
            "cases[0].request: expected a method and a path",
        ),
        ("cases: []\n".to_owned(), "expected at least one case"),
    ] {
        let said = test(&cases);
        assert_eq!(said.code, Some(2), "{}", said.stdout);
        assert!(said.stderr.contains(why), "{}", said.stderr);
    }
}

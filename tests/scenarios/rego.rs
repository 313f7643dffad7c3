//! A policy in Rego beside the rules: what the commands say of it, and how it changes while the agent serves.

use std::fs;

use serde_json::Value;
use warifu_tests::process::{Sandbox, Signal};

const PIN: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// A tenant reads its own; rules can't compare a path with a claim.
const POLICY: &str = "package warifu

default allow := false

allow if {
    input.request.method == \"GET\"
    input.request.segments == [\"tenants\", input.subject.claims.tenant_id]
}
";

const NO_POLICY: &str = "package warifu\n\nallow if {\n    input.subject.claims.tenant_id ==\n}\n";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let agent = r#"trust_domain: example.org
authority: {url: "https://127.0.0.1:1", bundle: /nonexistent/roots.pem}
attestation: {join-token: {token: "file:/nonexistent/token"}}
inbound:
- listen: 0.0.0.0:8443
  forward: unix:/nonexistent/app.sock
  accept:
  - mtls: {trust_domains: [example.org]}
  - jwt: {profile: jwt-svid, audiences: [payments]}
  allow:
  - {name: status, peer: "spiffe://example.org/orders", to: ["GET /status"]}
  deny:
  - {name: closed, to: ["* /tenants/closed"]}
"#;
    let policy = sandbox.write("policy.rego", POLICY);
    let rego = format!("  rego: {{files: [{}]}}\n", policy.display());
    sandbox.write("agent.yaml", &(agent.to_owned() + &rego));
    sandbox
}

#[test]
fn check_compiles_the_policy_and_names_file_and_line_of_a_mistake() {
    let sandbox = sandbox();
    let check = || sandbox.warifu(&["check", "--config", "agent.yaml"]).run();
    let said = check();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        said.stdout.contains("2 rules, then data.warifu.allow"),
        "{}",
        said.stdout
    );
    let file = sandbox.write("policy.rego", NO_POLICY);
    let said = check();
    assert_eq!(said.code, Some(2), "{}", said.stdout);
    let place = format!("inbound[0].rego: {}:5:1: ", file.display());
    assert!(said.stderr.contains(&place), "{}", said.stderr);
    fs::remove_file(&file).unwrap();
    let said = check();
    assert_eq!(said.code, Some(2), "{}", said.stdout);
    let missing = format!("inbound[0].rego.files: {}: No such file", file.display());
    assert!(said.stderr.contains(&missing), "{}", said.stderr);
}

#[test]
fn explain_says_what_the_policy_decides_and_where_a_rule_does() {
    let sandbox = sandbox();
    let explain = |more: &[&str]| {
        let command = sandbox.warifu(&["policy", "explain", "--config", "agent.yaml"]);
        command.args(more).run()
    };
    let of_acme = ["--claim", "tenant_id=acme", "GET"];
    let said = explain(&[&of_acme[..], &["/tenants/acme"]].concat());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        said.stdout.starts_with("allowed by data.warifu.allow\n"),
        "{}",
        said.stdout
    );
    let said = explain(&[&of_acme[..], &["/tenants/umbrella", "--json"]].concat());
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let answer: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(answer["decision"], "deny", "{answer}");
    assert_eq!(answer["reason"], "not_allowed_by_rego", "{answer}");
    assert_eq!(answer["rule"], "data.warifu.allow", "{answer}");
    // Rules come first, those that deny and those that allow.
    let closed = ["--claim", "tenant_id=closed", "GET", "/tenants/closed"];
    let said = explain(&closed);
    assert!(
        said.stdout.starts_with("denied by closed\n"),
        "{}",
        said.stdout
    );
    let said = explain(&["--peer", "spiffe://example.org/orders", "GET", "/status"]);
    assert!(
        said.stdout.starts_with("allowed by status\n"),
        "{}",
        said.stdout
    );
    // What goes wrong in it is explained.
    sandbox.write(
        "policy.rego",
        "package warifu\nallow if to_number(input.request.path) > 0\n",
    );
    let said = explain(&[&of_acme[..], &["/tenants/acme"]].concat());
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stdout.starts_with("denied: "), "{}", said.stdout);
    assert!(said.stdout.contains("policy.rego:2:"), "{}", said.stdout);

    sandbox.write("policy.rego", NO_POLICY);
    let said = explain(&closed);
    assert_eq!(said.code, Some(2), "{}", said.stdout);
    assert!(said.stderr.contains("policy.rego:5:1: "), "{}", said.stderr);
}

#[test]
fn a_table_of_cases_tries_the_policy_as_well() {
    let sandbox = sandbox();
    sandbox.write(
        "cases.yaml",
        "config: agent.yaml
cases:
- {name: its own, subject: {claims: {tenant_id: acme}}, request: GET /tenants/acme, expect: allow, by: data.warifu.allow}
- {name: another, subject: {claims: {tenant_id: acme}}, request: GET /tenants/umbrella, expect: deny}
- {name: closed, subject: {claims: {tenant_id: closed}}, request: GET /tenants/closed, expect: deny, by: closed}
- {name: nobody, request: GET /tenants/acme, expect: deny}
",
    );
    let test = || sandbox.warifu(&["policy", "test", "cases.yaml"]).run();
    let said = test();
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (Some(0), "4 cases, 0 failed\n"),
        "{}",
        said.stderr
    );
    sandbox.write("policy.rego", "package warifu\nallow := true\n");
    let said = test();
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stdout.contains("FAILED another"), "{}", said.stdout);
    assert!(
        said.stdout.ends_with("4 cases, 1 failed\n"),
        "{}",
        said.stdout
    );
}

#[test]
fn a_policy_is_read_again_when_it_changes_or_at_sighup_and_a_wrong_one_keeps_the_old() {
    let sandbox = Sandbox::new();
    let policy = sandbox.write("policy.rego", POLICY);
    let inbound = format!(
        "inbound:\n- listen: 127.0.0.1:0\n  forward: unix:/nowhere.sock\n  accept: [{{mtls: {{trust_domains: \
         [example.org]}}}}]\n  rego: {{files: [{}]}}\n",
        policy.display()
    );
    let command = || sandbox.agent_of("orders", "https://127.0.0.1:1", PIN, &inbound);
    let agent = sandbox.listening("orders", command().start());

    // In place at once, as ConfigMaps are.
    let replace = |text: &str| {
        let new = sandbox.write("new.rego", text);
        fs::rename(new, &policy).unwrap();
    };
    replace(NO_POLICY);
    let said = agent.running.wait_for("refused: ");
    assert_eq!(said["why"], "a policy changed", "{said}");
    let message = said["message"].as_str().unwrap();
    assert!(message.contains("policy.rego:5:1: "), "{message}");
    let said = agent.running.wait_for("the one before stays in force");
    assert_eq!(said["why"], "a policy changed", "{said}");

    replace(&POLICY.replace("GET", "HEAD"));
    let said = agent.running.wait_for("the configuration was read again");
    assert_eq!(said["why"], "a policy changed", "{said}");

    fs::remove_file(&policy).unwrap();
    agent.running.signal(Signal::HUP);
    let said = agent.running.wait_for("policy.rego: No such file");
    assert_eq!(said["why"], "SIGHUP", "{said}");
    agent.running.signal(Signal::TERM);
    assert_eq!(agent.running.ended().code, Some(0));

    // From the start there is no old one to keep.
    replace(NO_POLICY);
    let ended = command().start().ended();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("policy.rego:5:1: "),
        "{}",
        ended.stderr
    );
}

//! A join token that is of no use: the agent stays up, is not ready, says why in its log, on /readyz
//! and in its status, and asks again without haste, so that a new token is all it needs.

use std::{fs, time::Duration};

use warifu_tests::process::{AuthorityProcess, Sandbox};

/// Watches an agent whose token is of no use for `why`.
fn is_told(sandbox: &Sandbox, authority: &AuthorityProcess, why: &str) {
    let agent = sandbox.agent("orders", authority, "").start();
    let agent = sandbox.listening("orders", agent);
    let logged = agent.running.wait_for("no new X.509-SVID");
    assert_eq!(logged["why"], why);
    assert_eq!(logged["level"], "WARN");

    for answer in [agent.probe("/readyz"), agent.admin("/readyz")] {
        assert_eq!(answer.status, 503);
        let expected = format!("\r\n\r\nnot ready\nidentity: {why}\n");
        assert!(answer.text.ends_with(&expected), "{}", answer.text);
    }
    assert_eq!(agent.probe("/healthz").status, 200);
    let status = sandbox
        .warifu(&["status", "--config", "orders.yaml", "--json"])
        .run();
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["ready"], false);
    assert_eq!(status["identity"], serde_json::Value::Null);
    assert_eq!(status["renewal"]["last_error"], why);
    assert_eq!(status["missing"]["identity"], why);
    let health = sandbox
        .warifu(&["healthcheck", "--socket"])
        .args(&[&agent.probes.to_string()])
        .run();
    assert_eq!(health.code, Some(1));
    assert_eq!(health.stderr, format!("not ready\nidentity: {why}\n"));

    // A new token, and it is ready by itself.
    let _ = fs::remove_file(sandbox.path("orders.token"));
    sandbox.join_token("orders");
    agent.wait_until_ready();
}

fn refused(sandbox: &Sandbox, authority: &AuthorityProcess, why: &str) -> String {
    format!(
        "the authority at https://{} refused (invalid_evidence): this join token {why}; make a new \
         one with `warifu authority join-token` (this one was read from file:{})",
        authority.address,
        sandbox.path("orders.token").display()
    )
}

#[test]
fn a_wrong_one() {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    sandbox.write("orders.token", format!("wjt_{}", "A".repeat(43)));
    let why = refused(&sandbox, &authority, "is not one of this authority's");
    is_told(&sandbox, &authority, &why);
}

#[test]
fn an_expired_one() {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    let path = sandbox.path("orders.token");
    let made = sandbox
        .warifu(&["authority", "join-token", "--config", "authority.yaml"])
        .args(&["--fact", "service=orders", "--ttl", "1s"])
        .args(&["--out", path.to_str().unwrap()])
        .run();
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    // By a clock that is ahead of the authority's it would be expired; this one really is.
    std::thread::sleep(Duration::from_millis(1100));
    let why = refused(&sandbox, &authority, "has expired");
    is_told(&sandbox, &authority, &why);
}

#[test]
fn s15_one_that_another_agent_used() {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    let token = sandbox.join_token("payments");
    fs::copy(token, sandbox.path("orders.token")).unwrap();
    let first = sandbox.agent("payments", &authority, "").start();
    sandbox.listening("payments", first).wait_until_ready();
    let why = refused(&sandbox, &authority, "was used by another agent already");
    is_told(&sandbox, &authority, &why);
}

#[test]
fn one_that_no_rule_is_for() {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    let path = sandbox.path("orders.token");
    let made = sandbox
        .warifu(&["authority", "join-token", "--config", "authority.yaml"])
        .args(&["--fact", "team=shop", "--out", path.to_str().unwrap()])
        .run();
    let warning = "warning: by today's rules this token becomes nothing: no rule matches what was \
                   attested\n";
    assert_eq!((made.code, &*made.stderr), (Some(0), warning));
    let why = format!(
        "the authority at https://{} refused (no_rule): no rule matches what was attested; the \
         authority's `rules` decide, and `warifu authority explain` says how",
        authority.address
    );
    is_told(&sandbox, &authority, &why);
}

#[test]
fn a_missing_and_an_empty_one() {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    let path = sandbox.path("orders.token");
    let advice = "write a token there (`warifu authority join-token` makes one)";
    for (make, why) in [
        (
            false,
            format!(
                "reading the secret in {}: No such file or directory (os error 2); it must exist and \
                 be readable by this user",
                path.display()
            ),
        ),
        (true, format!("the secret in {} is empty", path.display())),
    ] {
        let _ = fs::remove_dir_all(sandbox.path("orders.state"));
        let _ = fs::remove_file(&path);
        if make {
            sandbox.write("orders.token", "\n");
        }
        let why = format!("attestation.join-token.token: {why}; {advice}");
        is_told(&sandbox, &authority, &why);
    }
}

#[test]
fn a_decided_refusal_is_asked_again_without_haste() {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    sandbox.write("orders.token", "wjt_wrong");
    let agent = sandbox.agent("orders", &authority, "").start();
    let agent = sandbox.listening("orders", agent);
    agent.running.wait_for("no new X.509-SVID");
    std::thread::sleep(Duration::from_secs(4));
    let asked = authority.running.stdout().lines().count();
    // 0.5 to 1 s, then 1 to 2, then 2 to 4, then up to 5.
    assert!((2..=5).contains(&asked), "{asked} requests in 4 s");
    let said = agent.running.stderr();
    let told = said.matches("no new X.509-SVID").count();
    assert_eq!(told, 1, "the same trouble is one line:\n{said}");
}

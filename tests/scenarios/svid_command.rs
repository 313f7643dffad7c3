//! `warifu svid` and `warifu token`, the real binary beside a real agent.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;
use warifu_tests::process::{Finished, Sandbox};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn fails(finished: &Finished, code: i32, said: &[&str]) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    for said in said {
        assert!(
            finished.stderr.contains(said),
            "{said}: {}",
            finished.stderr
        );
    }
    assert_eq!(finished.stdout, "");
}

#[test]
fn an_svid_is_written_and_a_token_printed_by_whoever_may_ask() {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    sandbox.join_token("orders");
    let socket = format!("unix:{}", sandbox.path("workload.sock").display());
    let more = format!("local: {{workload_api: {{listen: \"{socket}\"}}}}");
    let files = sandbox.path("files");
    fs::create_dir(&files).unwrap();
    let write = ["svid", "--write", "files"];
    // Asked before the agent is there.
    let waiting = sandbox
        .warifu(&write)
        .env("SPIFFE_ENDPOINT_SOCKET", &socket)
        .start();
    let agent = sandbox.agent("orders", &authority, &more).start();
    let _agent = sandbox.listening("orders", agent);
    let written = waiting.ended();
    assert_eq!(written.code, Some(0), "{written:?}");
    assert!(
        written
            .stdout
            .starts_with("wrote spiffe://example.org/orders into files, good until 20")
    );
    assert_eq!(mode(&files.join("svid.pem")), 0o644);
    assert_eq!(mode(&files.join("svid-key.pem")), 0o600);
    assert_eq!(mode(&files.join("bundle.pem")), 0o644);
    let again = sandbox.warifu(&write).args(&["--socket", &socket]).run();
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(
        fs::read_dir(&files).unwrap().count(),
        5,
        "nothing is left over"
    );

    let token = ["token", "--audience", "payments", "--socket", &socket];
    let token = sandbox.warifu(&token).run();
    assert_eq!(token.code, Some(0), "{token:?}");
    let payload = token.stdout.trim_end().split('.').nth(1).unwrap();
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!(claims["sub"], "spiffe://example.org/orders");
    assert_eq!(claims["aud"], serde_json::json!(["payments"]));
}

#[test]
fn who_gets_nothing_is_told_what_to_do() {
    let sandbox = Sandbox::new();
    let nowhere = [
        "--socket",
        "unix:/nonexistent/api.sock",
        "--timeout",
        "300ms",
    ];
    let token = sandbox
        .warifu(&["token", "--audience", "a"])
        .args(&nowhere)
        .run();
    fails(
        &token,
        1,
        &[
            "nobody answers at unix:/nonexistent/api.sock",
            "is the agent running",
        ],
    );
    let svid = sandbox
        .warifu(&["svid", "--write", "."])
        .args(&nowhere)
        .run();
    fails(
        &svid,
        1,
        &["writing an X.509-SVID into .", "is the agent running"],
    );
    let unnamed = sandbox.warifu(&["token", "--audience", "a"]).run();
    fails(&unnamed, 2, &["SPIFFE_ENDPOINT_SOCKET"]);
    let wrong = sandbox.warifu(&["token", "--audience", "a"]);
    let wrong = wrong.env("SPIFFE_ENDPOINT_SOCKET", "/run/api.sock").run();
    fails(
        &wrong,
        2,
        &["expected unix:/path or tcp://IP:PORT, found /run/api.sock"],
    );
}

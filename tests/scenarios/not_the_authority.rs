//! What answers at the authority's address is somebody else: that is said, with what to compare; it is
//! told nothing, and the join token is still good for the right one.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use warifu_tests::process::Sandbox;

const ADVICE: &str = "compare `authority.root_spki_sha256` (or `bundle`) with the root pins the \
                      authority logs at start";

/// Starts an agent of an authority at `url` with the root `pin`, and expects this `why`.
fn is_refused(sandbox: &Sandbox, url: &str, pin: &str, why: &str) {
    let agent = sandbox.agent_of("orders", url, pin, "").start();
    let agent = sandbox.listening("orders", agent);
    let logged = agent.running.wait_for("no new X.509-SVID");
    let expected =
        format!("what answers at {url} is not the authority of example.org: {why}; {ADVICE}");
    assert_eq!(logged["why"], expected);
    let answer = agent.probe("/readyz");
    assert_eq!(answer.status, 503);
    assert!(
        answer.text.ends_with(&format!("identity: {expected}\n")),
        "{}",
        answer.text
    );
}

#[test]
fn an_authority_of_another_ca_is_told_nothing() {
    let (ours, theirs) = (Sandbox::new(), Sandbox::new());
    let (right, impostor) = (ours.authority(), theirs.authority());
    ours.join_token("orders");

    let url = format!("https://{}", impostor.address);
    let why = "the peer spiffe://example.org/warifu/authority sent no root certificate whose public \
               key is pinned";
    is_refused(&ours, &url, &right.pin, why);
    assert_eq!(impostor.running.stdout(), "", "it was asked for something");

    let agent = ours.agent("orders", &right, "").start();
    ours.listening("orders", agent).wait_until_ready();
}

#[test]
fn a_wrong_pin_is_not_taken_for_an_authority_that_is_away() {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    sandbox.join_token("orders");
    let url = format!("https://{}", authority.address);
    let why = "the peer spiffe://example.org/warifu/authority sent no root certificate whose public \
               key is pinned";
    is_refused(&sandbox, &url, &"0".repeat(64), why);
}

#[test]
fn a_server_without_tls_is_not_the_authority() {
    let sandbox = Sandbox::new();
    sandbox.write("orders.token", "wjt_x");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", server.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let why = "received corrupt message of type InvalidContentType";
    is_refused(&sandbox, &url, &"0".repeat(64), why);
}

#[test]
fn an_authority_that_is_away_is_told_from_a_wrong_one() {
    let sandbox = Sandbox::new();
    sandbox.write("orders.token", "wjt_x");
    let agent = sandbox.agent_of("orders", "https://127.0.0.1:1", &"0".repeat(64), "");
    let agent = sandbox.listening("orders", agent.start());
    let logged = agent.running.wait_for("no new X.509-SVID");
    let expected = "cannot reach the authority at https://127.0.0.1:1: Connection refused (os error \
                    111); check `authority.url`, that the authority runs, and that this host may \
                    connect to it";
    assert_eq!(logged["why"], expected);
}

#[test]
fn roots_that_cannot_be_read_are_an_error_at_the_start() {
    let sandbox = Sandbox::new();
    for (content, why) in [
        (None, "No such file or directory (os error 2)"),
        (
            Some("-----BEGIN X-----\n-----END X-----\n"),
            "no certificate in it",
        ),
    ] {
        let path = sandbox.path("roots.pem");
        if let Some(content) = content {
            sandbox.write("roots.pem", content);
        }
        let path = path.to_str().unwrap();
        sandbox.write(
            "orders.yaml",
            format!(
                "trust_domain: example.org\n\
                 authority: {{url: \"https://127.0.0.1:1\", bundle: \"{path}\"}}\n\
                 attestation: {{join-token: {{token: \"file:/x\"}}}}\n"
            ),
        );
        let ended = sandbox.warifu(&["agent", "--config", "orders.yaml"]).run();
        let expected = format!(
            "warifu: running the agent: authority.bundle \"{path}\": {why}; expected a readable PEM \
             file of root certificates\n"
        );
        assert_eq!(ended.stderr, expected);
        assert_eq!(ended.code, Some(1));
    }
}

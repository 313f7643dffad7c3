//! The demo, as its reader runs it: in a pipe, left running, and interrupted.

use std::path::PathBuf;

use warifu_tests::process::{Sandbox, Signal, ask};

#[test]
fn it_shows_every_step_in_plain_text_and_exits_0() {
    let ended = Sandbox::new().warifu(&["demo"]).run();
    let told = format!("{}\n{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, Some(0), "{told}");
    for part in [
        "1. An authority starts",
        "✓ spiffe://demo.internal/orders holds a certificate",
        "2. orders calls payments by name",
        r#""caller": "spiffe://demo.internal/orders", "scopes": ["charges.write"]"#,
        "403 Forbidden (denied)",
        "403 Forbidden (no-route)",
        "✓ without a certificate: refused in the handshake",
        "✓ what the network said about identity was removed",
        " requests, 0 failed, over 3 new certificates on each side",
        "added by both hops",
        "cargo run --release -p warifu-tests --bin demo-with-aws",
        "Every step did what it said.",
    ] {
        assert!(ended.stdout.contains(part), "no {part:?} in:\n{told}");
    }
    assert!(!told.contains('\x1b'), "colour in a pipe: {told:?}");
    assert_eq!(ended.stderr, "");
}

#[test]
fn kept_running_it_answers_until_ctrl_c_and_leaves_nothing_behind() {
    let demo = Sandbox::new().warifu(&["demo", "--keep"]).start();
    let line = demo.wait_for_output("curl --unix-socket").trim().to_owned();
    let socket = PathBuf::from(line.split(' ').nth(2).unwrap());
    let answer = ask(socket.as_path(), "payments", "/charges").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer.text.contains("spiffe://demo.internal/orders"),
        "{answer:?}"
    );

    demo.signal(Signal::INT);
    let ended = demo.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let dir = socket.parent().unwrap();
    assert!(!dir.exists(), "{} was left behind", dir.display());
}

#[test]
fn interrupted_before_its_end_it_fails_and_says_where() {
    let demo = Sandbox::new().warifu(&["demo"]).start();
    demo.wait_for_output("6. Certificates rotate");
    demo.signal(Signal::INT);
    let ended = demo.ended();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .contains("the demo stopped at step 6: interrupted"),
        "{}",
        ended.stderr
    );
}

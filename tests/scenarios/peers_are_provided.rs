//! Every peer can be had, runs, and ends with its handle.

use std::{
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, Stdio},
};

use serde_json::json;
use warifu_tests::peers::{self, Ministack};

#[test]
fn envoy_is_the_pinned_version() {
    let envoy = peers::envoy_binary().unwrap();
    let version = Command::new(envoy).arg("--version").output().unwrap();
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(version.contains("/1.40.0/"), "{version}");
}

#[tokio::test]
async fn ministack_answers_and_is_gone_when_dropped() {
    let ministack = Ministack::start().await.unwrap();
    let me = ministack
        .call("sts", "get_caller_identity", json!({}))
        .await
        .unwrap();
    assert_eq!(me["Account"], Ministack::ACCOUNT);

    let address = ministack.address();
    drop(ministack);
    let refused = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_peer_dies_when_its_harness_does() {
    let mut peer = Command::new(peers::python().unwrap())
        .arg(peers::script("tied.py"))
        .args(["sleep", "600"])
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    // All that is left of a harness that was killed: its end of the pipe is closed.
    drop(peer.stdin.take());
    assert_eq!(peer.wait().unwrap().signal(), Some(9));
}

//! The handshake of an inbound listener, as OpenSSL sees it.

use std::{fs, net::SocketAddr, path::Path};

use warifu_tests::{
    listener::TestCa,
    mesh::{App, Shop, until},
    peers::{self, Ended, Tied, write_identity},
    ports::free_port,
};

const REQUEST: &str = "GET /charges HTTP/1.1\r\nhost: payments\r\nconnection: close\r\n\r\n";

/// `openssl s_client` with the root of `dir`, one request, and `more` arguments.
pub(crate) async fn s_client(address: SocketAddr, dir: &Path, more: &[&str]) -> Ended {
    let openssl = peers::installed("openssl").unwrap();
    let (address, roots) = (address.to_string(), dir.join("bundle.pem"));
    let mut args = vec!["s_client", "-connect", &address, "-ign_eof"];
    args.extend(["-CAfile", roots.to_str().unwrap(), "-verify_return_error"]);
    args.extend_from_slice(more);
    peers::run("openssl", &openssl, &args, REQUEST)
        .await
        .unwrap()
}

/// The same, presenting `svid.pem` and `key.pem` of `dir`.
pub(crate) async fn s_client_with_svid(address: SocketAddr, dir: &Path, more: &[&str]) -> Ended {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (svid, key) = (path("svid.pem"), path("key.pem"));
    let mut args = vec!["-cert", &svid, "-key", &key, "-cert_chain", &svid];
    args.extend_from_slice(more);
    s_client(address, dir, &args).await
}

async fn shop() -> Shop {
    let shop = Shop::open().await;
    write_identity(&shop.mesh.dir().join("files"), &shop.orders.identity()).unwrap();
    shop
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speaks_tls_1_3_and_nothing_older() {
    let shop = shop().await;
    let dir = shop.mesh.dir().join("files");
    let address = shop.payments.inbound_address();
    let ended = s_client_with_svid(address, &dir, &[]).await;
    assert!(ended.stdout.contains("HTTP/1.1 200 OK"), "{ended:?}");
    assert!(
        ended.stdout.contains("New, TLSv1.3, Cipher is"),
        "{ended:?}"
    );
    assert!(
        ended.stdout.contains("Verify return code: 0 (ok)"),
        "{ended:?}"
    );
    // Whose certificates are wanted is no one's business.
    assert!(
        ended.stdout.contains("No client certificate CA names sent"),
        "{ended:?}"
    );

    let ended = s_client_with_svid(address, &dir, &["-tls1_2"]).await;
    assert!(!ended.success, "{ended:?}");
    assert!(ended.stderr.contains("alert protocol version"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s02_a_client_without_a_certificate_is_refused() {
    let shop = shop().await;
    let dir = shop.mesh.dir().join("files");
    let ended = s_client(shop.payments.inbound_address(), &dir, &[]).await;
    assert!(!ended.stdout.contains("HTTP/1.1"), "{ended:?}");
    assert!(shop.app.seen().is_empty());
    let refused = |line: &serde_json::Value| line["event"] == "inbound-connection";
    let line = shop.payments.audit_line("the refusal", refused).await;
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("peer sent no certificates"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s01_no_ticket_is_issued_and_no_session_resumed() {
    let shop = shop().await;
    let dir = shop.mesh.dir().join("files");
    let address = shop.payments.inbound_address();
    let answers = resume(address, &dir).await;
    for answer in answers.as_array().unwrap() {
        assert_eq!(answer["status"], 200, "{answers}");
        assert_eq!(answer["version"], "TLSv1.3", "{answers}");
        assert_eq!(answer["ticket"], false, "{answers}");
        assert_eq!(answer["resumed"], false, "{answers}");
    }
    let session = dir.join("session");
    let ended = s_client_with_svid(address, &dir, &["-sess_out", session.to_str().unwrap()]).await;
    assert!(ended.stdout.contains("HTTP/1.1 200 OK"), "{ended:?}");
    assert!(!session.exists(), "OpenSSL was given a session to resume");
}

/// That the look for tickets finds them where there are some: OpenSSL's own server issues two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_resumes_is_seen_to() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, files) = (TestCa::new(), dir.path().join("files"));
    ca.leaf(|_| {}).write(&files, &ca);
    let path = |name: &str| files.join(name).to_str().unwrap().to_owned();
    let (svid, key, roots) = (path("svid.pem"), path("key.pem"), path("bundle.pem"));
    let address = free_port();
    let listen = address.to_string();
    let mut args = vec!["s_server", "-accept", &listen, "-www", "-CAfile", &roots];
    args.extend(["-cert", &svid, "-cert_chain", &svid, "-key", &key]);
    let openssl = peers::installed("openssl").unwrap();
    let server = Tied::run("openssl", &openssl, &args, &[]).unwrap();
    let accepts = async || server.log_tail().contains("ACCEPT").then_some(());
    until("openssl s_server accepts", accepts).await;

    let answers = resume(address, &files).await;
    assert_eq!(answers[0]["ticket"], true, "{answers}");
    assert_eq!(answers[1]["resumed"], true, "{answers}");
    let session = files.join("session");
    s_client_with_svid(address, &files, &["-sess_out", session.to_str().unwrap()]).await;
    assert!(fs::metadata(&session).unwrap().len() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s02_bad_certificates_are_refused_in_openssls_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, app) = (TestCa::new(), App::plain().await);
    let listener = ca.listener(&app).await;
    let files = dir.path().join("good");
    ca.leaf(|_| {}).write(&files, &ca);
    let ended = s_client_with_svid(listener.address, &files, &[]).await;
    assert!(ended.stdout.contains("HTTP/1.1 200 OK"), "{ended:?}");
    assert_eq!(app.seen().len(), 1);

    for (count, (name, leaf, reason)) in (1..).zip(super::interop_bad_leaves::all(&ca)) {
        let files = dir.path().join(name);
        leaf.write(&files, &ca);
        let ended = s_client_with_svid(listener.address, &files, &[]).await;
        assert!(!ended.stdout.contains("HTTP/1.1"), "{name}: {ended:?}");
        super::interop_bad_leaves::refused(&listener, count, reason).await;
    }
    assert_eq!(app.seen().len(), 1, "the app was called");
}

async fn resume(address: SocketAddr, dir: &Path) -> serde_json::Value {
    let (address, dir) = (address.to_string(), dir.to_str().unwrap().to_owned());
    let ended = peers::run_python("resume.py", &[address, dir]).await;
    ended.unwrap().json()
}

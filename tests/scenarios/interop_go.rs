//! go-spiffe as the other end of mTLS, and what it presents that must be refused.

use serde_json::Value;
use warifu_tests::{
    listener::TestCa,
    mesh::{App, Mesh, Shop},
    peers::{self, GoServer, write_identity},
};

const PAYMENTS: &str = "spiffe://example.org/payments";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s01_go_spiffe_calls_our_inbound_listener_and_never_resumes() {
    let shop = Shop::open().await;
    let dir = shop.mesh.dir().join("go");
    write_identity(&dir, &shop.orders.identity()).unwrap();
    let url = format!("https://{}/charges", shop.payments.inbound_address());
    for (flag, protocol) in [("-http2=false", "HTTP/1.1"), ("-http2=true", "HTTP/2.0")] {
        let args = ["-expect", PAYMENTS, "-url", &url, flag];
        let answers = peers::go("call", &dir, &args).await.unwrap().json();
        for answer in answers.as_array().unwrap() {
            assert_eq!(answer["status"], 200, "{answer}");
            assert_eq!(answer["protocol"], protocol);
            assert_eq!(answer["tls"], "TLS 1.3");
            assert_eq!(answer["resumed"], false);
            let told: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
            assert_eq!(
                told["caller"]["peer"]["spiffe_id"],
                "spiffe://example.org/orders"
            );
        }
    }
    let args = ["-expect", "spiffe://example.org/billing", "-url", &url];
    let ended = peers::go("call", &dir, &args).await.unwrap();
    assert!(!ended.success, "{ended:?}");
    assert!(ended.stderr.contains("unexpected ID"), "{ended:?}");
    assert_eq!(shop.app.seen().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_outbound_listener_calls_go_spiffe_and_each_refuses_whom_it_does_not_expect() {
    let mesh = Mesh::start().await;
    let payments = mesh.workload("payments").await;
    let dir = mesh.dir().join("go");
    write_identity(&dir, &payments.identity()).unwrap();
    let for_orders = GoServer::start(&dir, "spiffe://example.org/orders");
    let for_orders = for_orders.await.unwrap();
    let for_nobody = GoServer::start(&dir, "spiffe://example.org/nobody");
    let for_nobody = for_nobody.await.unwrap();
    let route = |host: &str, server: &GoServer, expect: &str| {
        let address = server.address;
        format!("{{host: {host}, upstream: \"https://{address}\", mtls: {{expect: \"{expect}\"}}}}")
    };
    let orders = mesh
        .agent("orders")
        .route(&route("payments", &for_orders, PAYMENTS))
        .route(&route("wrong", &for_orders, "spiffe://example.org/billing"))
        .route(&route("unwelcome", &for_nobody, PAYMENTS))
        .start()
        .await;
    let client = orders.client();
    let post = client.post("http://payments/charges?page=2").body("12 yen");
    let answer = post.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let told: Value = answer.json().await.unwrap();
    assert_eq!(told["peer"], "spiffe://example.org/orders");
    assert_eq!(told["method"], "POST");
    assert_eq!(told["target"], "/charges?page=2");
    assert_eq!(told["body"], "12 yen");
    assert_eq!(told["protocol"], "HTTP/2.0");
    assert_eq!(told["tls"], "TLS 1.3");
    assert_eq!(told["resumed"], false);

    for host in ["wrong", "unwelcome"] {
        let answer = client.get(&format!("http://{host}/")).send().await.unwrap();
        assert_eq!(answer.status(), 502, "{host}: {:?}", answer.headers());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s02_bad_certificates_are_refused_in_gos_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, app) = (TestCa::new(), App::plain().await);
    let listener = ca.listener(&app).await;
    let url = format!("https://{}/charges", listener.address);
    let call = async |files: &std::path::Path| {
        let args = ["-raw", "-expect", PAYMENTS, "-url", &url];
        peers::go("call", files, &args).await.unwrap()
    };
    let files = dir.path().join("good");
    ca.leaf(|_| {}).write(&files, &ca);
    let answers = call(&files).await.json();
    assert_eq!(answers[0]["status"], 200, "{answers}");
    let seen = app.seen().len();

    for (count, (name, leaf, reason)) in (1..).zip(super::interop_bad_leaves::all(&ca)) {
        let files = dir.path().join(name);
        leaf.write(&files, &ca);
        let ended = call(&files).await;
        // What Go says of it depends on whether its request was still under way.
        assert!(!ended.success, "{name}: {ended:?}");
        super::interop_bad_leaves::refused(&listener, count, reason).await;
    }
    assert_eq!(app.seen().len(), seen, "the app was called");
}

/// What go-spiffe's own parser demands of a leaf beyond Go's, our authority's leaves have: the file
/// `interop_issued.rs` shows it. That the parser is as strict as that is shown here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_spiffe_would_have_refused_a_leaf_that_breaks_a_rule() {
    let dir = tempfile::tempdir().unwrap();
    let ca = TestCa::new();
    let strict = ["ca", "key-cert-sign", "no-key-usage", "two-ids", "no-id"];
    for (name, leaf, _) in super::interop_bad_leaves::all(&ca) {
        if !strict.contains(&name) {
            continue;
        }
        let files = dir.path().join(name);
        leaf.write(&files, &ca);
        let ended = peers::go("judge", &files, &[]).await.unwrap();
        assert!(!ended.success, "{name}: {ended:?}");
        assert!(ended.stderr.contains("x509svid:"), "{name}: {ended:?}");
    }
}

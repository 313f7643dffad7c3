//! Headers the network sends are not identity, whatever they are called and wherever they stand.

use serde_json::Value;
use warifu_tests::mesh::{Direct, MTLS_AND_JWT, Mesh, ORDERS, Seen, Shop};

/// What nobody but the agent may say to the app.
const FORGED: &str = "FORGED";

fn forged_lines(seen: &Seen) -> Vec<String> {
    let lines = seen.headers.iter().chain(&seen.trailers);
    lines
        .filter(|(_, value)| String::from_utf8_lossy(value.as_bytes()).contains(FORGED))
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s03_a_forged_identity_header_never_reaches_the_app() {
    let mesh = Mesh::start().await;
    let app = mesh.app_over_tcp("payments").await;
    let payments = mesh.agent("payments").app(&app).allow(ORDERS);
    let payments = payments
        .accept(MTLS_AND_JWT)
        .inbound_also("forward_claims: {sub: x-user-id}")
        .start()
        .await;
    let orders = mesh.workload("orders").await;
    let authorization = format!("authorization: Bearer {}", orders.token("payments").await);
    let mut connection = Direct::connect(&payments, Some(&orders.identity()))
        .await
        .unwrap();

    let names = [
        "x-forwarded-client-cert",
        "X-Forwarded-Client-Cert",
        "x_forwarded_client_cert",
        "x-forwarded_client-cert",
        "x-warifu-caller",
        "X-Warifu-Context",
        "x_warifu_caller",
        "x-warifu-anything",
        "x-user-id",
        "X_User_Id",
        "client-cert",
        "x-amzn-oidc-identity",
        "x-http-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x-real-ip",
        "forwarded",
    ];
    for name in names {
        for lines in [
            format!("{name}: {FORGED}"),
            format!("{name}: {FORGED}\n{name}: {FORGED} again"),
            // Nominated, so that a careless hop removes what it has just inserted.
            format!("connection: {name}\n{name}: {FORGED}"),
            format!("connection: keep-alive\nconnection: close-me, {name}\n{name}: {FORGED}"),
        ] {
            let request =
                format!("GET /charges HTTP/1.1\nhost: payments\n{authorization}\n{lines}\n\n");
            let answer = connection.exchange(&request).await.unwrap();
            assert_eq!(answer.status, 200, "{lines}: {}", answer.text());
            let seen = app.last();
            assert_eq!(forged_lines(&seen), [""; 0], "{lines}");
            assert_ours_arrived(&seen, &answer.json(), &lines);
        }
    }
}

fn assert_ours_arrived(seen: &Seen, told: &Value, sent: &str) {
    let caller = &told["caller"];
    assert_eq!(
        caller["peer"]["spiffe_id"], "spiffe://example.org/orders",
        "{sent}"
    );
    for name in [
        "x-forwarded-client-cert",
        "x-warifu-caller",
        "x-warifu-context",
        "x-user-id",
    ] {
        assert_eq!(
            seen.headers.get_all(name).iter().count(),
            1,
            "{name} after {sent}"
        );
    }
    let xfcc = seen.headers["x-forwarded-client-cert"].to_str().unwrap();
    assert!(xfcc.contains("URI=spiffe://example.org/orders"), "{xfcc}");
    assert_eq!(seen.headers["x-user-id"], "spiffe://example.org/orders");
    assert!(!seen.headers.contains_key("connection"), "{sent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s03_a_forged_identity_header_in_the_trailers_never_reaches_the_app() {
    let shop = Shop::open().await;
    let orders = shop.mesh.workload("orders").await.identity();
    let mut connection = Direct::connect(&shop.payments, Some(&orders))
        .await
        .unwrap();
    let request = format!(
        "POST /charges HTTP/1.1
host: payments
transfer-encoding: chunked
trailer: x-checksum, x-warifu-caller, x-forwarded-client-cert, x_warifu_context

5
hello
0
x-checksum: 42
x-warifu-caller: {FORGED}
x-forwarded-client-cert: {FORGED}
x_warifu_context: {FORGED}

"
    );
    let answer = connection.exchange(&request).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = shop.app.last();
    assert_eq!(forged_lines(&seen), [""; 0]);
    assert_eq!(seen.trailers["x-checksum"], "42");
    assert_eq!(seen.body, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s03_what_an_app_says_of_identity_does_not_leave_through_its_own_agent_either() {
    // A server without an agent of its own, which would believe what it reads.
    let mesh = Mesh::start().await;
    let app = mesh.plain_app().await;
    let route = format!("{{host: payments, upstream: \"{}\"}}", app.url());
    let orders = mesh.agent("orders").route(&route).start().await;
    let names = [
        "x-forwarded-client-cert",
        "x-warifu-caller",
        "x_warifu_context",
        "client-cert",
    ];
    for name in names {
        let request = orders
            .client()
            .get("http://payments/charges")
            .header(name, FORGED);
        assert_eq!(request.send().await.unwrap().status(), 200);
        assert_eq!(forged_lines(&app.last()), [""; 0], "{name}");
    }
}

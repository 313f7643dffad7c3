//! What is refused, where, and what the other side learns of it.

use warifu::Client;
use warifu_tests::mesh::{Direct, MTLS, MTLS_AND_JWT, Mesh, ORDERS, Shop};

/// Status and the agent's reason.
async fn refused(client: &Client, url: &str) -> (u16, String) {
    let answer = client.get(url).send().await.unwrap();
    let reason = answer
        .agent_reason()
        .unwrap_or("the app answered")
        .to_owned();
    (answer.status().as_u16(), reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_rule_is_403_and_the_audit_log_says_who_it_was() {
    let mesh = Mesh::start().await;
    let app = mesh.app("payments").await;
    let payments = mesh.agent("payments").app(&app).allow(
        r#"[{peer: "spiffe://example.org/orders", to: ["POST /charges", "GET /charges/*"]}]"#,
    );
    let payments = payments.start().await;
    let [orders, reports] = ["orders", "reports"].map(|name| mesh.agent(name));
    let orders = orders.route_to("payments", &payments, "").start().await;
    let reports = reports.route_to("payments", &payments, "").start().await;

    let denied = (403, "denied".to_owned());
    assert_eq!(
        refused(&reports.client(), "http://payments/charges/1").await,
        denied
    );
    assert_eq!(
        refused(&orders.client(), "http://payments/charges").await,
        denied
    );
    assert_eq!(
        refused(&orders.client(), "http://payments/charges/1/refund").await,
        denied
    );
    assert_eq!(app.count(), 0);
    let line = payments
        .audit_line("the refusal", |line| line["path"] == "/charges/1")
        .await;
    assert_eq!(line["peer"], "spiffe://example.org/reports");
    assert_eq!(line["result"], "denied");

    let allowed = orders
        .client()
        .get("http://payments/charges/1")
        .send()
        .await
        .unwrap();
    assert_eq!(allowed.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_an_identity_is_refused_in_the_handshake() {
    let shop = Shop::open().await;
    let mut nobody = Direct::connect(&shop.payments, None).await.unwrap();
    let answer = nobody
        .exchange("GET /charges HTTP/1.1\nhost: payments\n\n")
        .await;
    answer.unwrap_err();
    assert_eq!(shop.app.count(), 0);
    let refused = |line: &serde_json::Value| line["event"] == "inbound-connection";
    let line = shop.payments.audit_line("the refusal", refused).await;
    assert!(
        line["detail"].as_str().unwrap().contains("certificate"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_of_another_authority_with_the_same_name_is_refused_in_the_handshake() {
    let shop = Shop::open().await;
    let impostors = Mesh::start().await;
    let impostor = impostors.workload("orders").await.identity();
    assert_eq!(impostor.svid.id(), shop.orders.identity().svid.id());

    let mut connection = Direct::connect(&shop.payments, Some(&impostor))
        .await
        .unwrap();
    let answer = connection
        .exchange("GET /charges HTTP/1.1\nhost: payments\n\n")
        .await;
    answer.unwrap_err();
    assert_eq!(shop.app.count(), 0);

    // And the other way round: an impostor of payments gets nothing from orders.
    let app = impostors.app("payments").await;
    let payments = impostors
        .agent("payments")
        .app(&app)
        .allow(ORDERS)
        .start()
        .await;
    let fooled = shop
        .mesh
        .agent("fooled")
        .route_to("payments", &payments, "")
        .start()
        .await;
    let (status, reason) = refused(&fooled.client(), "http://payments/charges").await;
    assert_eq!((status, reason.as_str()), (502, "connect-failed"));
    assert_eq!(app.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_under_another_name_than_the_route_expects_gets_no_request() {
    let shop = Shop::open().await;
    let address = shop.payments.inbound_address();
    let careful = shop.mesh.agent("careful").route(&format!(
        "{{host: payments, upstream: \"https://{address}\", mtls: {{expect: \"spiffe://example.org/billing\"}}}}"
    ));
    let careful = careful.start().await;
    let (status, reason) = refused(&careful.client(), "http://payments/charges").await;
    assert_eq!((status, reason.as_str()), (502, "connect-failed"));
    assert_eq!(shop.app.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_another_audience_is_401() {
    let mesh = Mesh::start().await;
    let shop = Shop::open_in(mesh, MTLS_AND_JWT, "jwt: {audience: billing}").await;
    let (status, reason) = refused(&shop.orders.client(), "http://payments/charges").await;
    assert_eq!((status, reason.as_str()), (401, "invalid-token"));
    assert_eq!(shop.app.count(), 0);
    let line = shop
        .payments
        .audit_line("the refusal", |line| line["status"] == 401)
        .await;
    assert!(line["detail"].as_str().unwrap().contains("aud"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_token_is_401_even_beside_a_good_certificate() {
    let shop = Shop::open_with_jwt().await;
    let orders = shop.mesh.workload("orders").await;
    let good = orders.token("payments").await;
    let tampered = {
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let turned: String = signature.chars().rev().collect();
        format!("{signed}.{turned}")
    };
    let elsewhere = Mesh::start().await;
    let foreign = elsewhere.workload("orders").await.token("payments").await;

    let identity = orders.identity();
    let mut connection = Direct::connect(&shop.payments, Some(&identity))
        .await
        .unwrap();
    for (what, authorization, expected) in [
        ("good", format!("Bearer {good}"), 200),
        ("tampered with", format!("Bearer {tampered}"), 401),
        ("another authority's", format!("Bearer {foreign}"), 401),
        ("no token", "Bearer garbage".to_owned(), 401),
        (
            "another scheme",
            "Basic b3JkZXJzOm9yZGVycw==".to_owned(),
            401,
        ),
    ] {
        let request =
            format!("GET /charges HTTP/1.1\nhost: payments\nauthorization: {authorization}\n\n");
        let answer = connection.exchange(&request).await.unwrap();
        assert_eq!(answer.status, expected, "{what}: {}", answer.head);
    }
    assert_eq!(shop.app.count(), 1);
    assert!(!shop.app.last().headers.contains_key("authorization"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_for_a_host_or_an_audience_that_nothing_names_nothing_is_minted() {
    let mesh = Mesh::with(|authority| {
        authority.rules(
            r#"
- {attestor: bootstrap, match: {service: "*"}, id: "/{service}", audiences: [payments]}
"#,
        )
    })
    .await;
    let shop = Shop::open_in(mesh, MTLS, "jwt: {audience: billing}").await;
    let client = shop.orders.client();

    let answer = client.get("http://billing/charges").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.agent_reason()),
        (403, Some("no-route"))
    );
    let text = String::from_utf8(answer.bytes().await.unwrap().to_vec()).unwrap();
    assert!(
        text.contains("billing") && text.contains("payments"),
        "{text}"
    );
    assert!(shop.mesh.authority.audit("jwt-svid").is_empty());

    let refusal = refused(&client, "http://payments/charges").await;
    assert_eq!(refusal, (403, "token-refused".to_owned()));
    assert_eq!(shop.app.count(), 0);
}

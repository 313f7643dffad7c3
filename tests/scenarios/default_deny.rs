//! The absence of a rule allows nothing.

use warifu_tests::mesh::Mesh;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_an_empty_allow_list_refuses_everyone_everything() {
    let mesh = Mesh::start().await;
    let app = mesh.app("payments").await;
    let payments = mesh.agent("payments").app(&app).allow("[]").start().await;
    // The listener without the key at all: what a forgetful person writes.
    let address = payments.inbound_address();
    let orders = mesh
        .agent("orders")
        .route_to("payments", &payments, "")
        .start()
        .await;
    for url in [
        "http://payments/",
        "http://payments/charges",
        "http://payments/healthz",
    ] {
        let answer = orders.client().get(url).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{url} at {address}");
        let answer = orders
            .client()
            .method(http::Method::OPTIONS, url)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 403, "OPTIONS {url}");
    }
    assert_eq!(app.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_a_listener_that_says_nothing_of_who_may_call_lets_nobody() {
    let mesh = Mesh::start().await;
    let app = mesh.plain_app().await;
    let listen = warifu_tests::ports::free_port();
    let payments = mesh.agent("payments").inbound(&format!(
        "{{listen: \"{listen}\", {}, accept: [{{mtls: {{trust_domains: [example.org]}}}}]}}",
        app.forward()
    ));
    let _payments = payments.start().await;
    let orders = mesh.agent("orders").route(&format!(
        "{{host: payments, upstream: \"https://{listen}\", mtls: {{expect: \"spiffe://example.org/payments\"}}}}"
    ));
    let answer = orders
        .start()
        .await
        .client()
        .get("http://payments/")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.agent_reason()),
        (403, Some("denied"))
    );
    assert_eq!(app.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_a_rule_that_asks_for_a_token_does_not_let_a_certificate_alone_pass() {
    let mesh = Mesh::start().await;
    let app = mesh.app("payments").await;
    let rule =
        r#"[{peer: "spiffe://example.org/orders", subject: {scope: charges.read}, to: ["* /**"]}]"#;
    let payments = mesh.agent("payments").app(&app).allow(rule);
    let payments = payments
        .accept(warifu_tests::mesh::MTLS_AND_JWT)
        .start()
        .await;
    let without = mesh
        .agent("without")
        .join_token(&mesh.authority.join_token("orders").await);
    let without = without.route_to("payments", &payments, "").start().await;
    let with = mesh
        .agent("orders")
        .route_to("payments", &payments, "jwt: {audience: payments}");
    let with = with.start().await;
    for (agent, status) in [(&without, 403), (&with, 200)] {
        let answer = agent
            .client()
            .get("http://payments/charges")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status);
    }
    assert_eq!(app.count(), 1);
}

//! What an orchestrator asks, and what it is told.

use warifu_tests::mesh::{Mesh, Shop, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_an_identity_is_alive_and_not_ready_and_names_what_is_missing() {
    let mut mesh = Mesh::with(|authority| authority.on_disk()).await;
    let app = mesh.app("payments").await;
    let prepared = mesh.agent("payments").app(&app).prepare();
    let mut payments = prepared.await;
    mesh.authority.stop();
    payments.start_unready().await;
    assert_eq!(
        payments.probe("/healthz").await,
        (200, "alive\n".to_owned())
    );
    let (status, text) = payments.probe("/readyz").await;
    assert_eq!(status, 503);
    assert!(text.starts_with("not ready\nidentity: "), "{text}");
    until("it says why", async || {
        let (_, text) = payments.probe("/readyz").await;
        let named = text.contains("cannot reach the authority");
        (named && text.contains(&mesh.authority.url())).then_some(())
    })
    .await;
    mesh.authority.start().await;
    payments.ready().await;
    assert_eq!(payments.probe("/readyz").await, (200, "ready\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probes_show_no_status_and_start_no_drain() {
    let mesh = Mesh::start().await;
    let agent = mesh.agent("orders").start().await;
    assert_eq!(agent.probe("/status").await.0, 404);
    assert_eq!(agent.probe("/drain").await.0, 404);
    let status = agent.status().await;
    assert_eq!(
        status["identity"]["spiffe_id"],
        "spiffe://example.org/orders"
    );
    assert_eq!(status["ready"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_count_requests_refusals_and_connections_and_say_when_the_identity_expires() {
    let shop = Shop::open_with_jwt().await;
    let client = shop.orders.client();
    for _ in 0..3 {
        let answer = client.get("http://payments/charges").send().await.unwrap();
        answer.bytes().await.unwrap();
    }
    client.get("http://nobody/charges").send().await.unwrap();
    let (status, text) = shop.payments.probe("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.ends_with("# EOF\n"));
    println!("{text}\n{}", shop.orders.probe("/metrics").await.1);

    let not_after = shop.payments.identity().svid.not_after();
    let not_after = not_after
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let expiry = shop
        .payments
        .metric("warifu_identity_not_after_seconds")
        .await;
    assert!((expiry - not_after).abs() < 1.0, "{expiry}");
    for (agent, name, expected) in [
        (
            &shop.payments,
            "warifu_inbound_answered_total{class=\"2xx\"}",
            3.0,
        ),
        (&shop.payments, "warifu_inbound_request_seconds_count", 3.0),
        (
            &shop.orders,
            "warifu_outbound_requests_total{route=\"payments\",outcome=\"2xx\"}",
            3.0,
        ),
        (&shop.orders, "warifu_token_mints_total", 1.0),
        (&shop.orders, "warifu_identity_generation", 1.0),
    ] {
        let found = agent.metric(name).await;
        assert!((found - expected).abs() < 0.5, "{name} is {found}");
    }
}

//! The authority is away for two thirds of a certificate's life, as for 40 minutes of an hour: nobody notices. Time is
//! scaled, a second for 100: what takes seconds in earnest (an attempt, a handshake) takes its share here as well.

use std::time::{Duration, Instant};

use warifu_tests::mesh::{Load, MTLS, MTLS_AND_JWT, Mesh, Shop, until};

/// An hour.
const LIFE: Duration = Duration::from_secs(36);
/// 40 minutes.
const OUTAGE: Duration = Duration::from_secs(24);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_with_certificates_go_on() {
    nothing_is_lost(MTLS, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_with_tokens_that_live_as_long_go_on_also_where_none_was_asked_for_before() {
    nothing_is_lost(MTLS_AND_JWT, "jwt: {audience: payments}").await;
}

async fn nothing_is_lost(accept: &str, route: &str) {
    let mesh = Mesh::with(|authority| authority.on_disk().ttl(LIFE).jwt_ttl(LIFE)).await;
    let mut shop = Shop::open_in(mesh, accept, route).await;
    // Each has renewed, so that neither its first certificate nor its first token is what carries it.
    for agent in [&shop.orders, &shop.payments] {
        let renewed = async || (agent.identity().generation >= 2).then_some(());
        until("a renewal", renewed).await;
    }
    shop.mesh.authority.stop();
    let away = Instant::now();
    // The first call comes when the authority has gone: its token must be at hand.
    let load = Load::start(4, "http://payments/charges", || shop.orders.client());
    load.answers(20).await;
    while away.elapsed() < OUTAGE {
        load.answers(20).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = shop.orders.identity().generation;
    shop.mesh.authority.start().await;
    for agent in [&shop.orders, &shop.payments] {
        let renewed = async || (agent.identity().generation > before.min(2)).then_some(());
        until("a renewal", renewed).await;
    }
    load.answers(20).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(report.answered > 200, "{report:?}");
}

//! A good identity is kept to its end, whatever else fails, and not a moment longer.

use std::time::{Duration, SystemTime};

use warifu_agent::telemetry::timestamp::Timestamp;
use warifu_tests::mesh::{Direct, MTLS, Mesh, Shop, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_an_identity_that_cannot_be_renewed_serves_to_its_end_and_is_then_withdrawn() {
    let ttl = Duration::from_secs(6);
    let mesh = Mesh::with(|authority| authority.on_disk().ttl(ttl)).await;
    let mut shop = Shop::open_in(mesh, MTLS, "").await;
    let observer = shop.mesh.workload("observer").await.identity();
    shop.mesh.authority.stop();
    let (orders, payments) = (shop.orders.identity(), shop.payments.identity());
    let end = orders.svid.not_after().min(payments.svid.not_after());

    // Renewals fail, are seen to fail, and change nothing: every call until the end is answered.
    let first_failure = until("the identities expire", async || {
        let answer = shop
            .orders
            .client()
            .get("http://payments/charges")
            .send()
            .await
            .unwrap();
        if answer.status() == 200 {
            let missing = shop.orders.running().readiness.missing();
            // The clock last: what was missing after the end proves nothing.
            if SystemTime::now() < end {
                assert!(missing.is_empty(), "ready while the identity is good");
            }
            return None;
        }
        Some((
            SystemTime::now(),
            answer.status().as_u16(),
            answer.agent_reason().map(str::to_owned),
        ))
    });
    let (at, status, reason) = first_failure.await;
    assert!(
        at >= end,
        "failed at {}, good until {}",
        Timestamp(at),
        Timestamp(end)
    );
    // Whichever of the two ended first.
    assert!(matches!(status, 502 | 503), "{status} {reason:?}");

    // Both have said why by then, and serve nothing any more.
    for (agent, held) in [(&shop.orders, &orders), (&shop.payments, &payments)] {
        let withdrawn = async || agent.status().await["identity"].is_null().then_some(());
        until("the identity is withdrawn", withdrawn).await;
        let (code, text) = agent.probe("/readyz").await;
        assert_eq!(code, 503, "{text}");
        let expired = format!("expired at {}", Timestamp(held.svid.not_after()));
        assert!(
            text.contains(&expired) && text.contains("cannot reach the authority"),
            "{text}"
        );
        let renewal = agent.status().await["renewal"].clone();
        assert!(renewal["failures"].as_u64().unwrap() > 0, "{renewal}");
        assert!(
            renewal["last_error"]
                .as_str()
                .unwrap()
                .contains("cannot reach"),
            "{renewal}"
        );
        assert!(
            agent
                .metric("warifu_identity_not_after_seconds")
                .await
                .abs()
                < 1.0
        );
    }
    let answer = shop
        .orders
        .client()
        .get("http://payments/charges")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.agent_reason()),
        (503, Some("no-identity"))
    );
    // The listener answers no handshake: it has nothing to present.
    drop(observer);
    let address = shop.payments.inbound_address();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut nothing)
        .await
        .unwrap();
    assert!(nothing.is_empty());

    // The authority's return repairs all of it.
    shop.mesh.authority.start().await;
    shop.orders.ready().await;
    shop.payments.ready().await;
    let answer = shop
        .orders
        .client()
        .get("http://payments/charges")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_connection_does_not_outlive_the_certificate_it_was_made_with() {
    let ttl = Duration::from_secs(4);
    let mesh = Mesh::with(|authority| authority.ttl(ttl)).await;
    let shop = Shop::open_in(mesh, MTLS, "").await;
    let orders = shop.mesh.workload("orders").await;
    let identity = orders.identity();
    let mut connection = Direct::connect(&shop.payments, Some(&identity))
        .await
        .unwrap();
    let answer = connection
        .exchange("GET / HTTP/1.1\nhost: payments\n\n")
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    connection.closed().await;
    // Certificates count in seconds.
    let end = identity.svid.not_after() + Duration::from_secs(1);
    assert!(
        SystemTime::now() <= end,
        "still open after {}",
        Timestamp(end)
    );
}

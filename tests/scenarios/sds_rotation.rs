//! Two Envoys call one another with the secrets of two agents, and nobody notices that these change.

use std::{collections::BTreeSet, time::Duration};

use warifu_tests::{
    mesh::{Load, Mesh, until},
    peers::Envoy,
};

use super::sds_envoy::{Bootstrap, client, with_socket};

/// Renewed at a third of it.
const TTL: Duration = Duration::from_secs(6);
const LEAVES: usize = 6;
const CLIENTS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_envoys_call_through_rotations_of_certificates_and_roots_without_a_failed_request() {
    rotate("api_type: GRPC", "StreamSecrets").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_envoys_that_ask_for_deltas_call_through_rotations_without_a_failed_request() {
    rotate("api_type: DELTA_GRPC", "DeltaSecrets").await;
}

async fn rotate(api: &str, method: &str) {
    let mesh = Mesh::with(|authority| {
        authority
            .ttl(TTL)
            .ca("publish_ahead: 2s, intermediate_ttl: 15s")
            .more("bundle_refresh_hint: 1s")
    });
    let mesh = mesh.await;
    let app = mesh.plain_app().await;
    let agent = async |name: &str| {
        let agent = with_socket(&mesh, mesh.agent(name), name);
        agent.start().await
    };
    let (orders, payments) = (agent("orders").await, agent("payments").await);
    let often = |bootstrap: Bootstrap| {
        // So that handshakes go on all the time.
        bootstrap.with("api_type: GRPC", api).with(
            "max_requests_per_connection: 100",
            "max_requests_per_connection: 10",
        )
    };
    let bootstrap = often(Bootstrap::of(&mesh, "payments"))
        .app(&app.url())
        .calls_nobody();
    let mut called = bootstrap.launch(&mesh.dir().join("called")).await;
    called.serves().await.unwrap();
    let bootstrap = often(Bootstrap::of(&mesh, "orders")).payments(called.listener("inbound"));
    let mut calling = bootstrap.launch(&mesh.dir().join("calling")).await;
    calling.serves().await.unwrap();

    let first_root = mesh.authority.pins()[0].clone();
    let load = Load::start(CLIENTS, "http://payments/charges", || {
        client(&calling, "outbound")
    });
    load.answers(CLIENTS).await;
    let mut callers = BTreeSet::new();
    let seen = "Envoy presents certificate after certificate";
    for leaves in 2..=LEAVES {
        until(seen, async || {
            let seen = app.last().headers;
            let seen = seen["x-forwarded-client-cert"].to_str().unwrap();
            assert!(seen.ends_with(";URI=spiffe://example.org/orders"), "{seen}");
            callers.insert(seen.to_owned());
            (callers.len() >= leaves).then_some(())
        })
        .await;
        if leaves == 3 {
            mesh.authority.rotate().await;
        }
    }
    // To the end: when nothing is trusted any more that was in use in the beginning.
    until("the old root is retired", async || {
        let roots = mesh.authority.status().roots;
        (roots.len() == 1 && roots[0].spki_sha256 != first_root).then_some(())
    })
    .await;
    for agent in [&orders, &payments] {
        until("the agents follow", async || {
            (agent.identity().bundle.x509_authorities.len() == 1).then_some(())
        })
        .await;
    }
    load.answers(CLIENTS * 20).await;
    let report = load.stop().await;
    assert_eq!(
        report.failures, [""; 0],
        "beside {} answers",
        report.answered
    );

    let updated = updates(&called, "listener.").await;
    assert!(updated >= LEAVES as u64, "{updated}");
    for envoy in [&called, &calling] {
        let bad = envoy
            .counters(|it| it.starts_with("sds.") && it.ends_with("rejected"))
            .await;
        assert!(
            !bad.is_empty() && bad.values().all(|count| *count == 0),
            "{bad:?}"
        );
        // Nothing is pushed but what changed: far fewer than there were requests or polls of the bundle.
        let taken = envoy.counter("sds.ROOTCA.update_success").await;
        assert!(
            (1..=12).contains(&taken),
            "{method}: {taken} updates of the roots"
        );
    }
    println!("{method}: {} requests, {updated} updates", report.answered);
}

/// How often a context was made anew of secrets.
async fn updates(envoy: &Envoy, of: &str) -> u64 {
    let is = |name: &str| name.starts_with(of) && name.ends_with(".ssl_context_update_by_sds");
    envoy.counters(is).await.into_values().sum()
}

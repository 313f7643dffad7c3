//! Certificates, roots and token keys change under a load that does not notice.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use warifu_tests::mesh::{
    Agent, DEADLINE, Direct, Load, MTLS_AND_JWT, Mesh, Shop, Workload, until,
};

/// Renewed at a third of it: every 1.2 to 1.5 seconds.
const TTL: Duration = Duration::from_secs(4);
/// From the new root's publication to the first certificate under it.
const CA: &str = "publish_ahead: 2s, intermediate_ttl: 10s";
const LEAVES: usize = 20;
/// Clients of orders' agent …
const CLIENTS: usize = 24;
/// … and callers that keep HTTP/1.1 connections to payments' agent.
const CALLERS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_leaf_rotations_and_one_of_the_ca_fail_no_request() {
    let mesh = Mesh::with(|authority| {
        authority
            .ttl(TTL)
            .jwt_ttl(Duration::from_secs(6))
            .ca(CA)
            .more("bundle_refresh_hint: 1s")
    });
    let shop = Shop::open_in(mesh.await, MTLS_AND_JWT, "jwt: {audience: payments}").await;
    let authority = &shop.mesh.authority;
    let first_root = authority.pins()[0].clone();

    let mut http2 = false;
    let load = Load::start(CLIENTS, "http://payments/charges", || {
        http2 = !http2;
        let client = shop.orders.client();
        if http2 { client.http2() } else { client }
    });
    let caller = Arc::new(shop.mesh.workload("orders").await);
    let stop = Arc::new(AtomicBool::new(false));
    let payments = Arc::new(shop.payments);
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            tokio::spawn(call(
                Arc::clone(&payments),
                Arc::clone(&caller),
                Arc::clone(&stop),
            ))
        })
        .collect();

    // What payments presents, seen from outside; what orders presents, payments' app is told.
    let observer = shop.mesh.workload("observer").await;
    let mut presented = BTreeSet::new();
    let mut rotated = false;
    let began = Instant::now();
    while presented.len() < LEAVES || shop.app.certificates().len() < LEAVES {
        let direct = Direct::connect(&payments, Some(&observer.identity()))
            .await
            .unwrap();
        presented.insert(direct.server_chain().swap_remove(0).to_vec());
        if !rotated && presented.len() > 3 {
            authority.rotate().await;
            rotated = true;
        }
        let so_far = (presented.len(), shop.app.certificates().len());
        assert!(
            began.elapsed() < DEADLINE * 4,
            "leaves presented: {so_far:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // The old root stays until nothing it signed is alive, then goes, from the bundles as well.
    until("the old root is retired", async || {
        let roots = authority.status().roots;
        (roots.len() == 1 && roots[0].spki_sha256 != first_root).then_some(())
    })
    .await;
    for agent in [&shop.orders, &payments] {
        until("the agents follow", async || {
            (agent.identity().bundle.x509_authorities.len() == 1).then_some(())
        })
        .await;
    }
    load.answers(CLIENTS).await;

    let report = load.stop().await;
    stop.store(true, Ordering::Relaxed);
    let mut answered = report.answered;
    for caller in callers {
        answered += caller.await.unwrap();
    }
    assert_eq!(
        report.failures, [""; 0],
        "beside {answered} that were answered"
    );
    println!("{answered} requests, {} leaves seen", presented.len());
    assert!(
        answered > (CLIENTS + CALLERS) * LEAVES,
        "only {answered} requests"
    );
}

/// A closed loop over one connection, and another when the server says that it will close this one.
/// Returns the number of requests; panics where one fails.
async fn call(payments: Arc<Agent>, caller: Arc<Workload>, stop: Arc<AtomicBool>) -> usize {
    let connect = async || {
        Direct::connect(&payments, Some(&caller.identity()))
            .await
            .unwrap()
    };
    let mut connection = connect().await;
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = connection
            .exchange("GET /charges HTTP/1.1\nhost: payments\n\n")
            .await;
        let answer = answer.unwrap_or_else(|why| panic!("after {answered} requests: {why}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answered += 1;
        if answer.header("connection") == Some("close") {
            connection = connect().await;
        }
    }
    answered
}

//! Certificates, roots and token keys change under a load that does not notice.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use warifu_tests::mesh::{DEADLINE, Direct, Load, MTLS_AND_JWT, Mesh, Shop, until};

/// Renewed at a third of it: every 1.2 to 1.5 seconds.
const TTL: Duration = Duration::from_secs(4);
/// From the new root's publication to the first certificate under it.
const CA: &str = "publish_ahead: 2s, intermediate_ttl: 10s";
const LEAVES: usize = 20;
const CLIENTS: usize = 32;

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

    // What payments presents, seen from outside; what orders presents, payments' app is told.
    let observer = shop.mesh.workload("observer").await;
    let mut presented = BTreeSet::new();
    let mut rotated = false;
    let began = Instant::now();
    while presented.len() < LEAVES || shop.app.certificates().len() < LEAVES {
        let direct = Direct::connect(&shop.payments, Some(&observer.identity()))
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
    for agent in [&shop.orders, &shop.payments] {
        until("the agents follow", async || {
            (agent.identity().bundle.x509_authorities.len() == 1).then_some(())
        })
        .await;
    }
    load.answers(CLIENTS).await;

    let report = load.stop().await;
    assert_eq!(
        report.failures,
        [""; 0],
        "of {} requests",
        report.answered + report.failures.len()
    );
    assert!(
        report.answered > CLIENTS * LEAVES,
        "only {} requests",
        report.answered
    );
}

//! Upstreams of another trust domain: verified with its bundle, and with no other.

use warifu::{TrustDomain, identity::TrustBundle};

use super::*;

const LEDGER: &str = "spiffe://partner.example/ledger";

fn bundle(ca: &Ca, name: &str) -> TrustBundle {
    TrustBundle {
        trust_domain: TrustDomain::new(name).unwrap(),
        ..ca.identity(ORDERS, 1).bundle
    }
}

/// *orders*, under `ca`, with these bundles of others.
fn orders(ca: &Ca, generation: u64, federated: &[(&Ca, &str)]) -> Identity {
    let mut identity = ca.identity(ORDERS, generation);
    let bundles = federated.iter().map(|(ca, name)| bundle(ca, name));
    identity.federated = bundles.collect();
    identity
}

#[tokio::test]
async fn s19_an_upstream_of_another_trust_domain_is_verified_with_its_bundle_alone() {
    let (ours, partner) = (Ca::new(), Ca::new());
    let ledger = Peer::mtls_for(&partner, &ours, LEDGER, |_| ok("noted")).await;
    // Our own authority says who the partner's ledger is; and the partner's who our payments are.
    let poser = Peer::mtls_for(&ours, &ours, LEDGER, |_| ok("mine now")).await;
    let own_poser = Peer::mtls_for(&partner, &ours, PAYMENTS, |_| ok("mine now")).await;
    let agent = Agent::new()
        .identity(orders(&ours, 1, &[]))
        .route("ledger", &ledger.url(""), mtls(LEDGER))
        .route("poser", &poser.url(""), mtls(LEDGER))
        .route("own-poser", &own_poser.url(""), mtls(PAYMENTS))
        .start()
        .await;
    // Nothing to verify it with yet.
    let answer = agent.call(get("http://ledger/x")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers[REASON], "no-bundle");
    assert!(
        answer.text().contains("partner.example"),
        "{}",
        answer.text()
    );

    agent.rotate(orders(&ours, 2, &[(&partner, "partner.example")]));
    let answer = agent.call(get("http://ledger/x")).await;
    assert_eq!(answer.text(), "noted");
    for host in ["poser", "own-poser"] {
        let answer = agent.call(get(&format!("http://{host}/x"))).await;
        assert_eq!(answer.headers[REASON], "connect-failed", "{host}");
    }
    assert_eq!((poser.count(), own_poser.count()), (0, 0));

    // What is withdrawn is believed no more, on connections that are up neither.
    agent.rotate(orders(&ours, 3, &[]));
    let answer = agent.call(get("http://ledger/x")).await;
    assert_eq!(answer.headers[REASON], "no-bundle");
    assert_eq!(ledger.count(), 1);
}

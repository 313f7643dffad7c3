//! What is revoked is refused within the agents' poll, on connections that are up already, too; renewals
//! at once; and nobody else notices.

use std::{
    fs,
    time::{Duration, Instant},
};

use http::StatusCode;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use warifu::{Client as AppClient, jwt::SigningKey};
use warifu_agent::{
    attest::{Client, wire::ErrorCode},
    config,
    revocation::{Kind, Provenance},
};
use warifu_tests::mesh::{Agent, App, Direct, Load, MTLS_AND_JWT, Mesh, RawAnswer, until};

/// How often agents ask for the list, on average.
const POLL: Duration = Duration::from_secs(1);
/// A poll, jitter, and a machine that does other things as well.
const SOON: Duration = Duration::from_secs(5);
const CALLERS: &str = r#"[{peer: "spiffe://example.org/orders", to: ["* /**", "* /"]},
                          {peer: "spiffe://example.org/billing", to: ["* /**", "* /"]}]"#;
const GET: &str = "GET /charges HTTP/1.1\nhost: payments\n\n";

/// *orders* and *billing* call *payments*; *billing* does so all the time, and must not notice anything.
struct World {
    orders: Agent,
    billing: Agent,
    payments: Agent,
    app: App,
    mesh: Mesh,
}

impl World {
    async fn open(payments_more: &str) -> Self {
        let poll = format!("bundle_refresh_hint: {}s", POLL.as_secs());
        // Replicas look at their state every half second.
        let mesh = Mesh::with(|authority| authority.on_disk().ca("publish_ahead: 2s").more(&poll));
        let mesh = mesh.await;
        let app = mesh.app("payments").await;
        let payments = mesh.agent("payments").app(&app).accept(MTLS_AND_JWT);
        let payments = payments.allow(CALLERS).more(payments_more).start().await;
        let caller = |name| mesh.agent(name).route_to("payments", &payments, "");
        let orders = caller("orders").start().await;
        let billing = caller("billing").start().await;
        Self {
            orders,
            billing,
            payments,
            app,
            mesh,
        }
    }

    fn load(&self) -> Load {
        Load::start(4, "http://payments/charges", || self.billing.client())
    }

    /// A connection of orders' that is up, and answered.
    async fn live(&self) -> Direct {
        let identity = self.orders.identity();
        let mut live = Direct::connect(&self.payments, Some(&identity))
            .await
            .unwrap();
        assert_eq!(live.exchange(GET).await.unwrap().status, 200);
        live
    }

    fn lineage(&self, agent: &Agent) -> String {
        let lineage = provenance(agent).lineage.expect("a lineage");
        let audited = self.mesh.authority.audit("attest");
        assert!(audited.iter().any(|line| line["lineage"] == *lineage));
        lineage.into()
    }
}

fn provenance(agent: &Agent) -> Provenance {
    let identity = agent.identity();
    Provenance::of_chain(identity.svid.id(), identity.svid.chain())
}

/// Asks until it is refused; how long that took, and how.
async fn refused(live: &mut Direct, request: &str) -> (Duration, RawAnswer) {
    let began = Instant::now();
    loop {
        let answer = live.exchange(request).await.unwrap();
        if answer.status != 200 {
            return (began.elapsed(), answer);
        }
        assert!(began.elapsed() < SOON, "still answered");
    }
}

fn reason(answer: &RawAnswer) -> (u16, &str) {
    (
        answer.status,
        answer.header("x-warifu-reason").unwrap_or("none"),
    )
}

async fn get(client: &AppClient) -> (StatusCode, Option<String>) {
    let answer = client.get("http://payments/charges").send().await.unwrap();
    (answer.status(), answer.agent_reason().map(str::to_owned))
}

/// A renewal with all that the agent itself would present.
async fn renewal(agent: &Agent) -> Result<(), Option<ErrorCode>> {
    let config = config::load_agent(&agent.dir.join("agent.yaml")).unwrap();
    let client = Client::new(&config.trust_domain, &config.authority).unwrap();
    let state = agent.dir.join("state");
    let kept = fs::read(state.join("attested.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    let key = fs::read(state.join("renewal.key")).unwrap();
    let key = SigningKey::from_pkcs8(&key).unwrap();
    let csr = {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(&key).unwrap().der().to_vec()
    };
    let renewed = client
        .renew(kept["record"].as_str().unwrap(), &csr, &key)
        .await;
    renewed.map(|_| ()).map_err(|why| why.refusal())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_lineage_and_by_spiffe_id_live_connections_end_within_a_poll_and_undo_brings_back() {
    let world = World::open("").await;
    let authority = &world.mesh.authority;
    let load = world.load();
    let client = world.orders.client();
    let lineage = world.lineage(&world.orders);
    for (kind, value) in [
        (Kind::Lineage, lineage.as_str()),
        (Kind::SpiffeId, "spiffe://example.org/orders"),
    ] {
        let mut live = world.live().await;
        assert_eq!(get(&client).await.0, StatusCode::OK);
        authority.revoke(kind, value).await;
        assert_eq!(
            renewal(&world.orders).await,
            Err(Some(ErrorCode::Revoked)),
            "at once"
        );

        let (took, answer) = refused(&mut live, GET).await;
        println!("{kind}: refused on a live connection after {took:?}");
        assert_eq!(reason(&answer), (403, "revoked"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(live.closed().await, b"");
        // Nor over the agent's pooled connections, nor over new ones.
        assert_eq!(
            get(&client).await,
            (StatusCode::FORBIDDEN, Some("revoked".into()))
        );
        let identity = world.orders.identity();
        let mut new = Direct::connect(&world.payments, Some(&identity))
            .await
            .unwrap();
        assert_eq!(reason(&new.exchange(GET).await.unwrap()), (403, "revoked"));
        world
            .payments
            .audit_line("the refusal", |line| line["reason"] == "revoked")
            .await;

        authority.unrevoke(kind, value).await;
        renewal(&world.orders).await.expect("at once");
        until("calls are answered again", async || {
            (get(&client).await.0 == StatusCode::OK).then_some(())
        })
        .await;
    }
    load.answers(8).await;
    assert_eq!(
        load.stop().await.failures,
        [""; 0],
        "others noticed nothing"
    );
    assert!(world.app.certificates().len() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_token_id_one_token_ends_and_the_connection_stays() {
    let world = World::open("").await;
    let caller = world.mesh.workload("orders").await;
    let identity = caller.identity();
    let mut live = Direct::connect(&world.payments, Some(&identity))
        .await
        .unwrap();
    let with = |token: &str| {
        format!("GET /charges HTTP/1.1\nhost: payments\nauthorization: Bearer {token}\n\n")
    };
    let stolen = with(&caller.token("payments").await);
    let id = world.mesh.authority.audit("jwt-svid").pop().unwrap()["jti"].clone();
    let other = with(&caller.token("payments").await);
    for token in [&stolen, &other] {
        assert_eq!(live.exchange(token).await.unwrap().status, 200);
    }
    world
        .mesh
        .authority
        .revoke(Kind::TokenId, id.as_str().unwrap())
        .await;
    let (took, answer) = refused(&mut live, &stolen).await;
    println!("token: refused after {took:?}");
    assert_eq!(reason(&answer), (401, "revoked"));
    assert_eq!(live.exchange(&other).await.unwrap().status, 200);
    assert_eq!(live.exchange(GET).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_issuer_key_a_stolen_intermediate_is_worth_nothing_and_agents_get_another_by_themselves()
{
    let world = World::open("").await;
    let client = world.orders.client();
    let stolen = world.orders.identity();
    let before = provenance(&world.orders).issuers;
    assert_eq!(before.len(), 1);
    let mut live = world.live().await;
    world
        .mesh
        .authority
        .revoke(Kind::IssuerKey, &before[0])
        .await;

    // Whoever kept what the stolen key signed is out, and stays out.
    let (took, answer) = refused(&mut live, GET).await;
    println!("issuer key: refused on a live connection after {took:?}");
    assert_eq!(reason(&answer), (403, "revoked"));
    until("orders' agent has another certificate", async || {
        (provenance(&world.orders).issuers != before).then_some(())
    })
    .await;
    until("calls are answered again", async || {
        (get(&client).await.0 == StatusCode::OK).then_some(())
    })
    .await;
    let mut thief = Direct::connect(&world.payments, Some(&stolen))
        .await
        .unwrap();
    assert_eq!(
        reason(&thief.exchange(GET).await.unwrap()),
        (403, "revoked")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_upstream_is_called_no_more() {
    let world = World::open("").await;
    let client = world.orders.client();
    assert_eq!(get(&client).await.0, StatusCode::OK);
    let payments = "spiffe://example.org/payments";
    world.mesh.authority.revoke(Kind::SpiffeId, payments).await;
    until("the upstream is refused", async || {
        let refused = (StatusCode::BAD_GATEWAY, Some("peer-revoked".into()));
        (get(&client).await == refused).then_some(())
    })
    .await;
    world
        .mesh
        .authority
        .unrevoke(Kind::SpiffeId, payments)
        .await;
    until("it is called again", async || {
        (get(&client).await.0 == StatusCode::OK).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_renews_more_often_than_it_polls_learns_of_it_all_the_same() {
    let mesh = Mesh::with(|authority| {
        let authority = authority.ttl(Duration::from_secs(4));
        authority
            .ca("publish_ahead: 6s")
            .more("bundle_refresh_hint: 3s")
    });
    let mesh = mesh.await;
    let orders = mesh.agent("orders").start().await;
    let number = mesh.authority.revoke(Kind::Lineage, "another").await.number;
    until("the agent has the list", async || {
        (orders.status().await["revocations"]["number"] == number).then_some(())
    })
    .await;
    assert!(mesh.authority.audit("renew").len() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_went_stale_serves_or_refuses_as_configured_and_stays_in_force() {
    let mut world = World::open("revocation: {max_age: 3s, when_stale: refuse}").await;
    let client = world.billing.client();
    let orders = "spiffe://example.org/orders";
    world.mesh.authority.revoke(Kind::SpiffeId, orders).await;
    until("orders is refused", async || {
        (get(&world.orders.client()).await.0 == StatusCode::FORBIDDEN).then_some(())
    })
    .await;
    // An agent of the other kind, for which the same is no reason to stop.
    let ledger_app = world.mesh.app("ledger").await;
    let serving = "revocation: {max_age: 3s, when_stale: serve}";
    let ledger = world.mesh.agent("ledger").app(&ledger_app).allow(CALLERS);
    let ledger = ledger.more(serving).start().await;
    let at_ledger = async |agent: &Agent| {
        let identity = agent.identity();
        let mut direct = Direct::connect(&ledger, Some(&identity)).await.unwrap();
        direct.exchange(GET).await.unwrap().status
    };
    assert_eq!(
        (
            at_ledger(&world.billing).await,
            at_ledger(&world.orders).await
        ),
        (200, 403)
    );
    assert_eq!(get(&client).await.0, StatusCode::OK);

    world.mesh.authority.stop();
    until("payments' agent refuses", async || {
        let stale = (
            StatusCode::SERVICE_UNAVAILABLE,
            Some("revocations-stale".into()),
        );
        (get(&client).await == stale).then_some(())
    })
    .await;
    let missing = until("payments' agent is not ready", async || {
        let missing = world.payments.running().readiness.missing();
        missing
            .iter()
            .any(|(name, _)| *name == "revocations")
            .then_some(missing)
    })
    .await;
    assert!(missing[0].1.contains("as of"), "{missing:?}");
    until("the other one says so, and is ready", async || {
        let status = ledger.status().await;
        (status["revocations"]["stale"] == true).then_some(())
    })
    .await;
    assert!(ledger.running().readiness.missing().is_empty());
    assert_eq!(
        (
            at_ledger(&world.billing).await,
            at_ledger(&world.orders).await
        ),
        (200, 403)
    );

    world.mesh.authority.start().await;
    until("payments' agent serves again", async || {
        (get(&client).await.0 == StatusCode::OK).then_some(())
    })
    .await;
    world.payments.ready().await;
    let status = ledger.status().await["revocations"].clone();
    assert!(
        status["number"].as_u64().unwrap() > 0 && status["entries"] == 1,
        "{status}"
    );
    assert_eq!(world.payments.metric("warifu_revocations").await, 1.0);
}

/// Each answer is the first and last of its connection, which the called agent closes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_revoked_is_told_so_every_time_though_the_connection_ends() {
    let world = World::open("").await;
    let client = world.orders.client();
    let orders = "spiffe://example.org/orders";
    world.mesh.authority.revoke(Kind::SpiffeId, orders).await;
    let refused = (StatusCode::FORBIDDEN, Some("revoked".into()));
    until("orders is refused", async || {
        (get(&client).await == refused).then_some(())
    })
    .await;
    for n in 0..500 {
        assert_eq!(get(&client).await, refused, "request {n}");
    }
}

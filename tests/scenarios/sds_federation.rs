//! Envoy verifies callers of a federated trust domain with the roots that its agent gives it, follows when these change,
//! and verifies nobody else.

use std::{collections::BTreeSet, io, net::SocketAddr, time::Duration};

use warifu::{
    identity::Identity,
    tls::{self, ExpectedPeer},
};
use warifu_tests::{
    mesh::{Agent, Direct, Mesh, until},
    peers::Envoy,
    ports::free_port,
};

use super::{
    federation::{follows, publishes, publishing, web_pki},
    sds_envoy::{Bootstrap, with_socket},
};

const PARTNER: &str = "partner.example";

/// example.org, which follows partner.example, whose roots change soon; and payments, whose Envoy is called.
struct World {
    mesh: Mesh,
    partner: Mesh,
    payments: Agent,
    _files: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        web_pki(files.path());
        let at = free_port();
        let partner = Mesh::with(|authority| {
            authority
                .trust_domain(PARTNER)
                .ttl(Duration::from_secs(6))
                .ca("publish_ahead: 2s, intermediate_ttl: 15s")
                .more(&publishes(files.path(), at))
        })
        .await;
        publishing(files.path(), at).await;
        let mesh = Mesh::with(|authority| {
            authority
                .more("bundle_refresh_hint: 1s")
                .more(&follows(files.path(), PARTNER, at))
        })
        .await;
        let payments = with_socket(&mesh, mesh.agent("payments"), "payments");
        let payments = payments.start().await;
        let world = Self {
            mesh,
            partner,
            payments,
            _files: files,
        };
        until("the partner's roots are known", async || {
            (!world.roots_of_the_partner().is_empty()).then_some(())
        })
        .await;
        world
    }

    fn roots_of_the_partner(&self) -> BTreeSet<Vec<u8>> {
        let domain = PARTNER.parse().unwrap();
        let identity = self.payments.identity();
        let bundle = identity.bundle_of(&domain);
        let roots = bundle.map(|bundle| bundle.x509_authorities.clone());
        let roots = roots.unwrap_or_default().into_iter();
        roots.map(|root| root.to_vec()).collect()
    }

    /// The Envoy of docs/envoy.md, whose callers are whom `roots` verifies, whatever their name.
    async fn envoy(&self, app: &str, roots: &str) -> Envoy {
        let bootstrap = Bootstrap::of(&self.mesh, "payments")
            .app(app)
            .calls_nobody()
            .with("{name: ROOTCA, ", &format!("{{name: \"{roots}\", "))
            .with(
                "matcher: {exact: \"spiffe://example.org/orders\"}",
                "matcher: {prefix: \"spiffe://\"}",
            );
        let mut envoy = bootstrap.launch(&self.mesh.dir().join("envoy")).await;
        envoy.serves().await.unwrap();
        envoy
    }

    /// Calls Envoy as `caller`, which expects payments: the answer's status.
    async fn call(&self, envoy: SocketAddr, caller: &Identity) -> io::Result<u16> {
        let bundle = &self.payments.identity().bundle;
        let payments = ExpectedPeer::Id(self.payments.id.parse().unwrap());
        let config = tls::client_config(caller, bundle, payments).map_err(io::Error::other)?;
        let mut call = Direct::connect_to(envoy, config).await?;
        let request = "GET /charges HTTP/1.1\nhost: payments\nconnection: close\n\n";
        Ok(call.exchange(request).await?.status)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s02_envoy_with_all_roots_takes_federated_callers_through_a_rotation_of_their_roots_and_no_others()
 {
    let world = World::new().await;
    let app = world.mesh.plain_app().await;
    let envoy = world.envoy(&app.url(), "ALL").await;
    let inbound = envoy.listener("inbound");
    let stranger = Mesh::with(|it| it.trust_domain("stranger.example")).await;
    // Whose authority says that it is the partner's, and is not.
    let poser = Mesh::with(|it| it.trust_domain(PARTNER)).await;
    let billing = world.partner.workload("billing").await;
    let own = world.mesh.workload("orders").await;
    let others = [
        stranger.workload("billing").await,
        poser.workload("billing").await,
    ];
    let only_known = async || {
        for other in &others {
            let answer = world.call(inbound, &other.identity()).await;
            answer.expect_err("nobody federates with it");
        }
    };
    assert_eq!(world.call(inbound, &billing.identity()).await.unwrap(), 200);
    let seen = app.last().headers;
    let seen = seen["x-forwarded-client-cert"].to_str().unwrap();
    assert!(
        seen.ends_with(";URI=spiffe://partner.example/billing"),
        "{seen}"
    );
    assert_eq!(world.call(inbound, &own.identity()).await.unwrap(), 200);
    only_known().await;
    let refused = envoy
        .counters(|it| it.starts_with("listener.") && it.ends_with(".ssl.fail_verify_error"))
        .await;
    assert_eq!(refused.into_values().sum::<u64>(), 2);

    let (before, had) = (
        world.roots_of_the_partner(),
        envoy.counter("sds.ALL.update_success").await,
    );
    world.partner.authority.rotate().await;
    until("the partner's next root is known here", async || {
        (!world.roots_of_the_partner().is_subset(&before)).then_some(())
    })
    .await;
    until("its first root is retired here", async || {
        let roots = world.roots_of_the_partner();
        (!roots.is_empty() && roots.is_disjoint(&before)).then_some(())
    })
    .await;
    // Only roots that Envoy had not when it started verify it now.
    until("Envoy follows", async || {
        world.call(inbound, &billing.identity()).await.ok()
    })
    .await;
    assert!(envoy.counter("sds.ALL.update_success").await > had);
    assert_eq!(envoy.counter("sds.ALL.update_rejected").await, 0);
    assert_eq!(world.call(inbound, &own.identity()).await.unwrap(), 200);
    only_known().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s02_envoy_with_the_roots_of_one_federated_trust_domain_takes_its_callers_alone() {
    let world = World::new().await;
    let app = world.mesh.plain_app().await;
    let envoy = world.envoy(&app.url(), "spiffe://partner.example").await;
    let inbound = envoy.listener("inbound");
    let billing = world.partner.workload("billing").await;
    assert_eq!(world.call(inbound, &billing.identity()).await.unwrap(), 200);
    // Not even our own: the name says whose callers are meant.
    let own = world.mesh.workload("orders").await;
    let answer = world.call(inbound, &own.identity()).await;
    answer.expect_err("it is of another trust domain");
}

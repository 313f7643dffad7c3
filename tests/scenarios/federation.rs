//! Two trust domains, each with an authority of its own, that follow each other's bundle: their workloads call each
//! other where they are listed, and nowhere else.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use warifu_tests::{
    mesh::{Agent, Mesh, until},
    ports::free_port,
};

const BOTH: &str = "[{mtls: {trust_domains: [example.org, partner.example]}}]";
const BOTH_AND_TOKENS: &str = "[{mtls: {trust_domains: [example.org, partner.example]}}, \
     {jwt: {profile: jwt-svid, audiences: [payments], trust_domains: [example.org, partner.example]}}]";

/// A certificate of the Web PKI, for the bundle endpoints of both.
pub(super) fn web_pki(dir: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    fs::write(
        dir.join("tls.crt"),
        leaf.signed_by(&key, &ca).unwrap().pem(),
    )
    .unwrap();
    fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    fs::set_permissions(dir.join("tls.key"), fs::Permissions::from_mode(0o600)).unwrap();
}

pub(super) fn publishes(dir: &Path, at: SocketAddr) -> String {
    let dir = dir.display();
    format!(
        "bundle_refresh_hint: 1s\nweb: {{listen: \"{at}\", tls: {{certificate: {dir}/tls.crt, key: {dir}/tls.key}}}}"
    )
}

pub(super) fn follows(dir: &Path, trust_domain: &str, at: SocketAddr) -> String {
    let ca = dir.join("ca.pem");
    format!(
        "federation:\n- {{trust_domain: {trust_domain}, profile: https_web, url: \"https://{at}/bundle\", ca_file: {}}}",
        ca.display()
    )
}

/// Waits until the endpoint at `at` has its certificate: who asks before asks again after minutes only.
pub(super) async fn publishing(dir: &Path, at: SocketAddr) {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap();
    roots.add(ca).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(warifu::tls::provider());
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    until("the bundle endpoint serves", async || {
        let stream = tokio::net::TcpStream::connect(at).await.ok()?;
        connector.connect(at.ip().into(), stream).await.ok()
    })
    .await;
}

/// `example.org` and `partner.example`, which know each other.
async fn two_meshes(dir: &Path) -> (Mesh, Mesh) {
    web_pki(dir);
    let (ours, theirs) = (free_port(), free_port());
    let mut mesh = Mesh::with(|it| it.on_disk().more(&publishes(dir, ours))).await;
    publishing(dir, ours).await;
    let partner = Mesh::with(|it| {
        let it = it
            .trust_domain("partner.example")
            .more(&publishes(dir, theirs));
        it.more(&follows(dir, "example.org", ours))
    });
    let partner = partner.await;
    publishing(dir, theirs).await;
    mesh.authority.drain().await;
    let follows = follows(dir, "partner.example", theirs);
    mesh.authority
        .configure(|yaml| format!("{yaml}\n{follows}\n"));
    mesh.authority.start().await;
    for authority in [&mesh.authority, &partner.authority] {
        let followed = async || {
            let status = authority.status().federation.pop()?;
            if let Some(why) = status.last_error {
                panic!("{}: {why}", status.trust_domain);
            }
            status.sequence
        };
        until("a bundle is followed", followed).await;
    }
    (mesh, partner)
}

fn allow(id: &str) -> String {
    format!("[{{peer: \"{id}\", to: [\"* /**\"]}}]")
}

async fn knows(agent: &Agent, trust_domain: &str) {
    let domain = trust_domain.parse().unwrap();
    until("the bundle of the other trust domain", async || {
        agent.identity().bundle_of(&domain).map(drop)
    })
    .await;
}

async fn status(agent: &Agent, url: &str) -> u16 {
    agent
        .client()
        .get(url)
        .send()
        .await
        .unwrap()
        .status()
        .as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s02_workloads_of_two_trust_domains_call_each_other_where_they_are_listed_and_nowhere_else()
{
    let files = tempfile::tempdir().unwrap();
    let (mesh, partner) = two_meshes(files.path()).await;

    let app = mesh.app("payments").await;
    let billing = "spiffe://partner.example/billing";
    let payments = mesh.agent("payments").app(&app).accept(BOTH_AND_TOKENS);
    let payments = payments.allow(&allow(billing)).start().await;
    // The same, but for the partner's not being listed.
    let app_of_own = mesh.app("ledger").await;
    let ledger = mesh.agent("ledger").app(&app_of_own);
    let ledger = ledger.allow(&allow("spiffe://example.org/*")).start().await;
    let their_app = partner.app("invoices").await;
    let invoices = partner.agent("invoices").app(&their_app).accept(BOTH);
    let invoices = invoices
        .allow(&allow("spiffe://example.org/orders"))
        .start()
        .await;

    let billing = partner.agent("billing");
    let billing = billing
        .route_to("payments", &payments, "")
        .route_to("payments-by-token", &payments, "jwt: {audience: payments}")
        .route_to("ledger", &ledger, "");
    let billing = billing.start().await;
    let orders = mesh.agent("orders").route_to("invoices", &invoices, "");
    // Whoever is expected there, it is not one of ours.
    let orders = orders.route(&format!(
        "{{host: poser, upstream: \"https://{}\", mtls: {{expect: \"spiffe://example.org/invoices\"}}}}",
        invoices.inbound_address()
    ));
    let orders = orders.start().await;
    for agent in [&payments, &ledger, &orders] {
        knows(agent, "partner.example").await;
    }
    for agent in [&billing, &invoices] {
        knows(agent, "example.org").await;
    }

    assert_eq!(status(&billing, "http://payments/charges").await, 200);
    assert_eq!(
        app.seen()[0]
            .caller
            .as_ref()
            .unwrap()
            .peer_id()
            .unwrap()
            .to_string(),
        billing.id
    );
    assert_eq!(
        status(&billing, "http://payments-by-token/charges").await,
        200
    );
    assert_eq!(status(&orders, "http://invoices/1").await, 200);
    // Who is not named by a rule is known, and refused.
    let others = partner
        .agent("others")
        .route_to("payments", &payments, "")
        .start()
        .await;
    knows(&others, "example.org").await;
    assert_eq!(status(&others, "http://payments/charges").await, 403);
    // Who is not listed does not get that far.
    assert_eq!(status(&billing, "http://ledger/1").await, 502);
    let line = ledger.audit_line("the handshake is refused", |line| {
        line["event"] == "inbound-connection"
    });
    let detail = line.await["detail"].to_string();
    assert!(
        detail.contains("of a trust domain that is not accepted here"),
        "{detail}"
    );
    assert!(app_of_own.seen().is_empty());
    assert_eq!(status(&orders, "http://poser/1").await, 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_that_is_no_longer_configured_is_refused_on_live_connections_too() {
    let files = tempfile::tempdir().unwrap();
    let (mut mesh, partner) = two_meshes(files.path()).await;
    let app = mesh.app("payments").await;
    let payments = mesh.agent("payments").app(&app).accept(BOTH);
    let payments = payments
        .allow(&allow("spiffe://partner.example/billing"))
        .start()
        .await;
    let billing = partner.agent("billing").route_to("payments", &payments, "");
    let billing = billing.start().await;
    knows(&payments, "partner.example").await;
    knows(&billing, "example.org").await;
    assert_eq!(status(&billing, "http://payments/charges").await, 200);

    // One way only: partner.example still knows us.
    mesh.authority.drain().await;
    let without = |yaml: String| yaml.split("federation:").next().unwrap().to_owned();
    mesh.authority.configure(without);
    mesh.authority.start().await;
    let gone = async || {
        let client = billing.client();
        let answer = client.get("http://payments/charges").send().await.unwrap();
        (answer.status() != 200).then(|| answer.status().as_u16())
    };
    let first = until("refused", gone).await;
    assert!([403, 502].contains(&first), "{first}");
    let line = payments.audit_line("told why", |line| {
        line["reason"] == "no-longer-verified" || line["event"] == "inbound-connection"
    });
    line.await;
    assert_eq!(status(&billing, "http://payments/charges").await, 502);
}

//! Real handshakes in memory: our configurations on both sides, good and broken certificates.

use rustls::{
    CertificateError, ClientConnection, ConnectionCommon, HandshakeKind, NamedGroup,
    ServerConnection,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::*;
use crate::identity::test_ca::TestCa;

mod bootstrap;
mod certificates;
mod sessions;

const ORDERS: &str = "spiffe://example.org/orders";
const PAYMENTS: &str = "spiffe://example.org/payments";

type Chain = (Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>);

#[test]
fn two_workloads_of_a_trust_domain_meet_over_tls13_with_the_hybrid_group_and_h2() {
    let ca = TestCa::root();
    let ca = (ca.identity(ORDERS), ca.identity(PAYMENTS));
    let client = client_config(&ca.0, &ca.0.bundle, expect_id(PAYMENTS)).unwrap();
    let server = server_config(&ca.1, &[], &[trust_domain("example.org")]).unwrap();
    let (client, server) = handshake(client, server).unwrap();
    assert_eq!(peer_of(client.peer_certificates()), PAYMENTS);
    assert_eq!(peer_of(server.peer_certificates()), ORDERS);
    assert_eq!(
        client.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    let suite = client.negotiated_cipher_suite().map(|it| it.suite());
    assert_eq!(suite, Some(CipherSuite::TLS13_AES_128_GCM_SHA256));
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    let group = client.negotiated_key_exchange_group().map(|it| it.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
}

#[test]
fn a_chain_with_an_intermediate_verifies() {
    let root = TestCa::root();
    let intermediate = root.intermediate(|_| {});
    let bundle = root.bundle("example.org");
    let [as_client, as_server] = meet(&bundle, intermediate.leaf(ORDERS, |_| {}));
    assert_eq!((as_client, as_server), (Ok(()), Ok(())));
}

#[test]
fn s02_a_client_without_a_certificate_is_refused() {
    let ca = TestCa::root();
    let identity = ca.identity(PAYMENTS);
    let verifier = ServerVerifier::of_bundle(&identity.bundle, expect_id(PAYMENTS));
    let server = server_config(&identity, &[], &[trust_domain("example.org")]).unwrap();
    let error = handshake(client(verifier, None).unwrap(), server).err();
    assert_eq!(error, Some(rustls::Error::NoCertificatesPresented));
}

#[test]
fn s02_a_peer_of_another_trust_domain_is_refused_both_ways() {
    let ca = TestCa::root();
    let chain = ca.leaf("spiffe://partner.example/orders", |_| {});
    let [as_client, as_server] = meet(&ca.bundle("example.org"), chain);
    assert!(as_client.unwrap_err().contains("not accepted here"));
    assert!(
        as_server
            .unwrap_err()
            .contains("expected was any workload of example.org")
    );
}

#[test]
fn s02_the_root_of_one_trust_domain_cannot_vouch_for_another() {
    let (ours, partner) = (TestCa::root(), TestCa::root());
    let server = server_config(
        &ours.identity(PAYMENTS),
        &[partner.bundle("partner.example")],
        &[trust_domain("example.org"), trust_domain("partner.example")],
    )
    .unwrap();
    let present = |ca: &TestCa, id| {
        let verifier = ServerVerifier::of_bundle(&ours.bundle("example.org"), expect_id(PAYMENTS));
        let client = client(verifier, Some(certified(ca.leaf(id, |_| {})))).unwrap();
        handshake(client, server.clone()).map(drop)
    };
    // Both roots have the same name, so it is the signature that tells them apart.
    let refused = Err(rustls::Error::InvalidCertificate(
        CertificateError::BadSignature,
    ));
    assert_eq!(present(&partner, "spiffe://partner.example/a"), Ok(()));
    assert_eq!(present(&partner, ORDERS), refused);
    assert_eq!(present(&ours, "spiffe://partner.example/a"), refused);
}

#[test]
fn s02_a_trust_domain_without_a_bundle_is_refused() {
    let (ours, partner) = (TestCa::root(), TestCa::root());
    let accepted = [trust_domain("example.org"), trust_domain("partner.example")];
    let server = server_config(&ours.identity(PAYMENTS), &[], &accepted).unwrap();
    let verifier = ServerVerifier::of_bundle(&ours.bundle("example.org"), expect_id(PAYMENTS));
    let chain = partner.leaf("spiffe://partner.example/a", |_| {});
    let client = client(verifier, Some(certified(chain))).unwrap();
    let error = handshake(client, server).err().unwrap();
    assert!(
        error.to_string().contains("no bundle of its trust domain"),
        "{error}"
    );
}

#[test]
fn s02_a_server_which_is_not_the_expected_workload_is_refused() {
    let ca = TestCa::root();
    let (orders, payments) = (ca.identity(ORDERS), ca.identity(PAYMENTS));
    let client =
        client_config(&orders, &orders.bundle, expect_id("spiffe://example.org/x")).unwrap();
    let server = server_config(&payments, &[], &[trust_domain("example.org")]).unwrap();
    let error = handshake(client, server).err().unwrap().to_string();
    assert!(
        error.contains("the peer is spiffe://example.org/payments"),
        "{error}"
    );
}

#[test]
fn a_bundle_of_another_trust_domain_makes_no_client() {
    let ca = TestCa::root();
    let identity = ca.identity(ORDERS);
    let bundle = ca.bundle("partner.example");
    let error = client_config(&identity, &bundle, expect_id(PAYMENTS)).unwrap_err();
    assert!(matches!(error, TlsError::WrongBundle { .. }), "{error}");
}

#[test]
fn tls12_is_not_spoken() {
    let ca = TestCa::root();
    let (orders, payments) = (ca.identity(ORDERS), ca.identity(PAYMENTS));
    let verifier = ServerVerifier::of_bundle(&orders.bundle, expect_id(PAYMENTS));
    let old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let server = server_config(&payments, &[], &[trust_domain("example.org")]).unwrap();
    assert!(handshake(old, server).is_err());
}

/// Presents `chain` to our server and to our client, which both trust `bundle`; who verifies says
/// what it thinks of it, as text.
fn meet(bundle: &TrustBundle, chain: Chain) -> [Result<(), String>; 2] {
    let good = TestCa::root();
    let good_bundle = good.bundle("good.example");
    let presented = certified(chain);
    let as_client = {
        let verifier = ServerVerifier::of_bundle(
            &good_bundle,
            ExpectedPeer::Member(trust_domain("good.example")),
        );
        let accepted = ClientVerifier::new(&[bundle], std::slice::from_ref(&bundle.trust_domain));
        let us = good.svid("spiffe://good.example/us");
        handshake(
            client(verifier, Some(Arc::clone(&presented))).unwrap(),
            server(Arc::new(accepted), Arc::clone(us.certified())).unwrap(),
        )
    };
    let as_server = {
        let us = good.identity("spiffe://good.example/us");
        let expected = ExpectedPeer::Member(bundle.trust_domain.clone());
        let anyone = ClientVerifier::new(&[&good_bundle], &[trust_domain("good.example")]);
        handshake(
            client_config(&us, bundle, expected).unwrap(),
            server(Arc::new(anyone), presented).unwrap(),
        )
    };
    [as_client, as_server].map(|met| met.map(drop).map_err(|error| error.to_string()))
}

/// Runs a handshake to its end; the error of whichever side refused.
fn handshake(
    client: ClientConfig,
    server: ServerConfig,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = "peer.test".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    while client.wants_write() || server.wants_write() {
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn carry<A, B>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<(), rustls::Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut wire = wire.as_slice();
    while !wire.is_empty() {
        to.read_tls(&mut wire).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// A chain and its key as TLS presents them, unchecked.
fn certified((chain, key): Chain) -> Arc<CertifiedKey> {
    let key = provider()
        .key_provider
        .load_private_key(key.into())
        .unwrap();
    Arc::new(CertifiedKey::new(chain, key))
}

fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> String {
    peer_id(&certificates.unwrap()[0]).unwrap().to_string()
}

fn expect_id(id: &str) -> ExpectedPeer {
    ExpectedPeer::Id(SpiffeId::new(id).unwrap())
}

fn trust_domain(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

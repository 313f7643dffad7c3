//! The first meeting: a client without an identity, and the pin of its authority's root.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

use super::*;
use crate::identity::spki_sha256;

const AUTHORITY: &str = "spiffe://example.org/warifu/authority";

fn pin(ca: &TestCa) -> Anchors {
    Anchors {
        spki_sha256: vec![[0; 32], spki_sha256(ca.certificate.der()).unwrap()],
        roots: Vec::new(),
    }
}

/// What a client that expects the authority says to a server with this SVID and extra chain.
fn visit(
    anchors: &Anchors,
    svid: &X509Svid,
    extra: &[CertificateDer<'static>],
) -> Result<(), String> {
    let client = bootstrap_client_config(anchors, &SpiffeId::new(AUTHORITY).unwrap()).unwrap();
    let server = server_config_without_client_auth(svid, extra).unwrap();
    handshake(client, server)
        .map(drop)
        .map_err(|error| error.to_string())
}

#[test]
fn a_root_whose_key_is_pinned_is_trusted() {
    let root = TestCa::root();
    let svid = root.intermediate(|_| {}).svid(AUTHORITY);
    let extra = [root.certificate.der().clone()];
    assert_eq!(visit(&pin(&root), &svid, &extra), Ok(()));
}

#[test]
fn a_root_known_beforehand_is_trusted_and_need_not_be_sent() {
    let root = TestCa::root();
    let svid = root.intermediate(|_| {}).svid(AUTHORITY);
    let known = Anchors {
        roots: vec![root.certificate.der().clone()],
        ..Anchors::default()
    };
    assert_eq!(visit(&known, &svid, &[]), Ok(()));
}

#[test]
fn s02_the_pinned_root_of_another_is_refused() {
    let (root, other) = (TestCa::root(), TestCa::root());
    let svid = root.svid(AUTHORITY);
    let error = visit(&pin(&other), &svid, &[root.certificate.der().clone()]).unwrap_err();
    assert!(
        error.contains("no root certificate whose public key is pinned"),
        "{error}"
    );
    // Sending the pinned root along doesn't help: the leaf doesn't chain to it.
    let error = visit(&pin(&other), &svid, &[other.certificate.der().clone()]).unwrap_err();
    assert!(
        error.contains("BadSignature") || error.contains("UnknownIssuer"),
        "{error}"
    );
}

#[test]
fn s02_a_pinned_root_that_is_not_sent_is_refused() {
    let root = TestCa::root();
    let error = visit(&pin(&root), &root.svid(AUTHORITY), &[]).unwrap_err();
    assert!(
        error.contains("no root certificate whose public key is pinned"),
        "{error}"
    );
}

#[test]
fn s02_another_workload_is_not_the_authority() {
    let root = TestCa::root();
    let svid = root.svid(ORDERS);
    let error = visit(&pin(&root), &svid, &[root.certificate.der().clone()]).unwrap_err();
    assert!(
        error.contains("the peer is spiffe://example.org/orders"),
        "{error}"
    );
}

#[test]
fn s02_a_pin_does_not_make_a_leaf_or_an_intermediate_a_root() {
    let root = TestCa::root();
    let intermediate = root.intermediate(|_| {});
    let svid = intermediate.svid(AUTHORITY);
    let extra = [root.certificate.der().clone()];
    // The intermediate's key is pinned, but it has not signed itself.
    assert!(visit(&pin(&intermediate), &svid, &extra).is_err());
    // The leaf's key is pinned: it is no CA.
    let anchors = Anchors {
        spki_sha256: vec![spki_sha256(&svid.chain()[0]).unwrap()],
        roots: Vec::new(),
    };
    assert!(visit(&anchors, &svid, &extra).is_err());
}

#[test]
fn s02_a_forged_certificate_around_a_pinned_key_is_refused() {
    // The pinned root is expired; an attacker without its key writes a fresh certificate around its
    // public key and presents it beside what the root once signed.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let real = Issuer::from_params(&params, &key);
    let mut forged = params.clone();
    forged.not_after = date_time_ymd(4000, 1, 1);
    let attacker = Issuer::new(params.clone(), KeyPair::generate().unwrap());
    let forged = forged.signed_by(&key, &attacker).unwrap();

    let leaf_key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![crate::identity::test_ca::uri(AUTHORITY)];
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    leaf.distinguished_name
        .push(rcgen::DnType::CommonName, "leaf");
    let leaf = leaf.signed_by(&leaf_key, &real).unwrap();
    let svid = X509Svid::new(vec![leaf.der().clone()], leaf_key.serialize_der().into()).unwrap();

    let anchors = Anchors {
        spki_sha256: vec![spki_sha256(forged.der()).unwrap()],
        roots: Vec::new(),
    };
    let error = visit(&anchors, &svid, &[forged.der().clone()]).unwrap_err();
    assert!(
        error.contains("no root certificate whose public key is pinned"),
        "{error}"
    );
    // The same with the certificate the key's owner made is fine, so it is the forgery that fails.
    let genuine = params.self_signed(&key).unwrap();
    assert_eq!(visit(&anchors, &svid, &[genuine.der().clone()]), Ok(()));
}

#[test]
fn s02_an_expired_pinned_root_is_refused() {
    let root = TestCa::root_with(|ca| ca.not_after = date_time_ymd(2020, 1, 1));
    let svid = root.svid(AUTHORITY);
    let error = visit(&pin(&root), &svid, &[root.certificate.der().clone()]).unwrap_err();
    assert!(error.contains("expired"), "{error}");
}

#[test]
fn without_any_anchor_there_is_no_client() {
    let expected = SpiffeId::new(AUTHORITY).unwrap();
    let error = bootstrap_client_config(&Anchors::default(), &expected).unwrap_err();
    assert!(matches!(error, TlsError::NoAnchor(_)), "{error}");
}

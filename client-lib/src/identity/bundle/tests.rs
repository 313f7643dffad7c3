//! What a bundle is, and what it is not.

use proptest::prelude::*;

use super::*;
use crate::{
    identity::test_ca::TestCa,
    jwt::{PublicJwk, SigningKey},
};

fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn bundle() -> TrustBundle {
    let (key, next) = (SigningKey::generate(), SigningKey::generate());
    let mut bundle = TestCa::root().bundle("example.org");
    let other = TestCa::root().certificate.der().clone();
    bundle.x509_authorities.push(other);
    bundle.jwt_authorities = KeySet::new(vec![key.public().clone(), next.public().clone()]);
    bundle.sequence = u64::MAX;
    bundle
}

fn parse(document: &Value) -> Result<TrustBundle, BundleError> {
    TrustBundle::from_json(trust_domain(), document.to_string().as_bytes())
}

fn x509_entry() -> Value {
    x509_jwk(TestCa::root().certificate.der())
}

fn jwt_entry() -> Value {
    SigningKey::generate().public().to_json("jwt-svid")
}

/// A bundle with this one entry, changed.
fn parse_entry(mut entry: Value, name: &str, value: Value) -> Result<TrustBundle, BundleError> {
    match value {
        Value::Null => entry.as_object_mut().unwrap().remove(name),
        value => entry
            .as_object_mut()
            .unwrap()
            .insert(name.to_owned(), value),
    };
    parse(&json!({"keys": [entry]}))
}

#[test]
fn a_bundle_is_read_back_as_it_was() {
    let bundle = bundle();
    let read = TrustBundle::from_json(trust_domain(), bundle.to_json().as_bytes()).unwrap();
    assert_eq!(read, bundle);
}

#[test]
fn the_json_is_what_the_specification_and_its_clients_ask_for() {
    let document: Value = serde_json::from_str(&bundle().to_json()).unwrap();
    assert_eq!(document["spiffe_sequence"], u64::MAX);
    assert_eq!(document["spiffe_refresh_hint"], 300);
    let keys = document["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 4);
    for key in keys {
        assert_eq!(key["kty"], "EC");
        assert_eq!(key["crv"], "P-256");
        assert!(key["x"].is_string() && key["y"].is_string());
        match key["use"].as_str() {
            Some("x509-svid") => {
                assert!(key["kid"].is_null());
                assert_eq!(key["x5c"].as_array().unwrap().len(), 1);
            }
            Some("jwt-svid") => assert!(key["kid"].is_string()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_empty_bundle_is_one_and_has_defaults() {
    let bundle = parse(&json!({"keys": []})).unwrap();
    assert!(bundle.x509_authorities.is_empty());
    assert_eq!(bundle.jwt_authorities, KeySet::default());
    assert_eq!(bundle.sequence, 0);
    assert_eq!(bundle.refresh_hint, DEFAULT_REFRESH_HINT);
}

#[test]
fn a_refresh_hint_of_a_year_is_taken_as_a_day() {
    let bundle = parse(&json!({"keys": [], "spiffe_refresh_hint": 31_536_000_u64})).unwrap();
    assert_eq!(bundle.refresh_hint, MAX_REFRESH_HINT);
}

#[test]
fn entries_of_unknown_use_or_kty_are_ignored() {
    let more = [
        json!({"use": "wit-svid", "kty": "EC", "kid": "w"}),
        json!({"use": "x509-svid", "kty": "unheard-of"}),
        json!({"use": "jwt-svid", "kty": "unheard-of", "kid": "k"}),
        json!({"kty": "EC"}),
        json!({"use": 7, "kty": "EC"}),
    ];
    let (x509, jwt) = (x509_entry(), jwt_entry());
    let keys: Vec<_> = more.into_iter().chain([x509, jwt]).collect();
    let bundle = parse(&json!({"keys": keys, "more": {}})).unwrap();
    assert_eq!(bundle.x509_authorities.len(), 1);
    assert_eq!(bundle.jwt_authorities.iter().count(), 1);
}

#[test]
fn an_x509_authority_is_exactly_one_ca_certificate() {
    let root = x509_entry()["x5c"][0].clone();
    let (leaf, _) = TestCa::root().leaf("spiffe://example.org/orders", |_| {});
    for x5c in [
        Value::Null,
        json!([]),
        json!([root, root]),
        json!(root),
        json!([7]),
        json!(["not base64"]),
        json!([format!("{} ", root.as_str().unwrap())]),
        json!(["AAAA"]),
        json!([STANDARD.encode(&leaf[0])]),
    ] {
        let error = parse_entry(x509_entry(), "x5c", x5c.clone()).expect_err(&x5c.to_string());
        assert!(
            matches!(error, BundleError::X509Authority { index: 0, .. }),
            "{error}"
        );
    }
    assert!(parse_entry(x509_entry(), "kty", Value::Null).is_err());
}

#[test]
fn a_jwt_authority_is_a_public_key_with_a_kid_of_its_own() {
    for (name, value) in [
        ("kid", Value::Null),
        ("kid", json!("")),
        ("d", json!("AAAA")),
        ("alg", json!("ES384")),
        ("x", json!("AAAA")),
    ] {
        let error = parse_entry(jwt_entry(), name, value).expect_err(name);
        assert!(matches!(error, BundleError::JwtAuthority { .. }), "{error}");
    }
    let entry = jwt_entry();
    let error = parse(&json!({"keys": [entry.clone(), entry]})).unwrap_err();
    assert!(error.to_string().contains("same kid"), "{error}");
}

#[test]
fn what_is_no_bundle_is_refused() {
    let too_many: Vec<_> = std::iter::repeat_n(x509_entry(), MAX_X509_AUTHORITIES + 1).collect();
    for document in [
        "".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"keys":[],"keys":[]}"#.to_owned(),
        r#"{"keys":[],"spiffe_sequence":1,"spiffe_sequence":2}"#.to_owned(),
        r#"{"keys":[{"use":"x","use":"x"}]}"#.to_owned(),
        r#"{"keys":7}"#.to_owned(),
        r#"{"keys":["x"]}"#.to_owned(),
        r#"{"keys":[],"spiffe_sequence":-1}"#.to_owned(),
        r#"{"keys":[],"spiffe_sequence":"1"}"#.to_owned(),
        r#"{"keys":[],"spiffe_refresh_hint":1.5}"#.to_owned(),
        json!({"keys": too_many}).to_string(),
        format!("{{\"keys\":[]{}}}", " ".repeat(MAX_BUNDLE_BYTES)),
    ] {
        let error = TrustBundle::from_json(trust_domain(), document.as_bytes()).unwrap_err();
        assert!(matches!(error, BundleError::Malformed(_)), "{error}");
    }
}

#[test]
fn roots_of_every_kind_of_key_are_published_with_its_members() {
    let kinds = [
        (&rcgen::PKCS_ECDSA_P384_SHA384, "EC", "crv"),
        (&rcgen::PKCS_ED25519, "OKP", "x"),
        (&rcgen::PKCS_RSA_SHA256, "RSA", "n"),
    ];
    for (algorithm, kty, member) in kinds {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let entry = x509_jwk(root.der());
        assert_eq!(entry["kty"], kty);
        assert!(entry[member].is_string(), "{entry}");
        let read = parse(&json!({"keys": [entry]})).unwrap();
        assert_eq!(read.x509_authorities, [root.der().clone()]);
    }
}

#[test]
fn a_jwt_svid_verifies_with_the_keys_of_a_bundle() {
    let key = SigningKey::generate();
    let bundle = parse(&json!({"keys": [key.public().to_json("jwt-svid")]})).unwrap();
    let found = bundle.jwt_authorities.find(key.public().kid());
    assert_eq!(
        found.map(PublicJwk::thumbprint),
        Some(key.public().thumbprint())
    );
}

proptest! {
    #[test]
    fn s17_no_bytes_panic_the_bundle_parser(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        position in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let _ = TrustBundle::from_json(trust_domain(), &bytes);
        let mut json = bundle().to_json().into_bytes();
        let position = position.index(json.len());
        json[position] = byte;
        let _ = TrustBundle::from_json(trust_domain(), &json);
    }
}

//! The trust bundle (SPIFFE Trust Domain and Bundle specification): what a trust domain's
//! identities are verified with.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};
use thiserror::Error;
use x509_parser::{public_key::PublicKey, x509::SubjectPublicKeyInfo};

use super::{leaf, pem};
use crate::{
    TrustDomain,
    jwt::{JwtError, KeySet, json, params::Params},
};

/// Longest bundle accepted, in bytes. Ten roots and ten keys are about 20 KiB.
pub const MAX_BUNDLE_BYTES: usize = 1024 * 1024;

/// Most roots accepted: every handshake looks through them.
pub const MAX_X509_AUTHORITIES: usize = 100;

/// `spiffe_refresh_hint` of a bundle that has none (SPIFFE Federation specification §4.1).
pub const DEFAULT_REFRESH_HINT: Duration = Duration::from_secs(5 * 60);

/// Longest `spiffe_refresh_hint` taken at its word: who asks less often than daily misses a rotation.
pub const MAX_REFRESH_HINT: Duration = Duration::from_secs(24 * 60 * 60);

/// The X.509 roots and JWT keys of one trust domain.
#[derive(Debug, Clone, PartialEq)]
pub struct TrustBundle {
    /// Whose bundle this is.
    pub trust_domain: TrustDomain,
    /// Root certificates (DER).
    pub x509_authorities: Vec<CertificateDer<'static>>,
    /// Keys JWT-SVIDs are verified with.
    pub jwt_authorities: KeySet,
    /// `spiffe_sequence`: grows with every change of content. 0 where the publisher has none.
    pub sequence: u64,
    /// `spiffe_refresh_hint`: how often to ask again; whole seconds.
    pub refresh_hint: Duration,
}

/// Why bytes are not a SPIFFE bundle.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Not JSON, or not the shape of a JWK set.
    #[error("not a SPIFFE bundle: {0}")]
    Malformed(String),
    /// An entry for X.509-SVIDs is not one CA certificate.
    #[error("entry {index} of the bundle of {trust_domain} is no X.509 authority: {reason}")]
    X509Authority {
        /// Whose bundle it is.
        trust_domain: TrustDomain,
        /// Where in `keys` it stands.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry for JWT-SVIDs is not a usable key, or two have the same `kid`.
    #[error("the bundle of {trust_domain} has an unusable JWT authority: {reason}")]
    JwtAuthority {
        /// Whose bundle it is.
        trust_domain: TrustDomain,
        /// What is wrong with it.
        reason: JwtError,
    },
}

impl TrustBundle {
    /// Parses the JWKS form. Unknown `use` and `kty` are ignored, as the specification demands.
    ///
    /// # Errors
    /// When a MUST of the bundle specification is broken.
    pub fn from_json(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        let malformed = |what: &str| BundleError::Malformed(what.to_owned());
        if json.len() > MAX_BUNDLE_BYTES {
            return Err(malformed("it is longer than 1 MiB"));
        }
        let document =
            json::parse_object(json).map_err(|error| BundleError::Malformed(error.to_string()))?;
        let number = |name: &str| match document.get(name) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .map(Some)
                .ok_or_else(|| malformed(&format!("{name} is not a whole number from 0"))),
        };
        let sequence = number("spiffe_sequence")?.unwrap_or(0);
        let refresh_hint =
            number("spiffe_refresh_hint")?.map_or(DEFAULT_REFRESH_HINT, Duration::from_secs);
        let entries = document
            .get("keys")
            .and_then(Value::as_array)
            .ok_or_else(|| malformed("it has no list of keys"))?;

        let mut x509_authorities = Vec::new();
        let mut jwt_authorities = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let jwk = entry
                .as_object()
                .ok_or_else(|| malformed("an entry of keys is not a JSON object"))?;
            match jwk.get("use").and_then(Value::as_str) {
                Some("x509-svid") => {
                    let root =
                        x509_authority(jwk).map_err(|reason| BundleError::X509Authority {
                            trust_domain: trust_domain.clone(),
                            index,
                            reason,
                        })?;
                    x509_authorities.extend(root);
                }
                Some("jwt-svid") => {
                    let key = KeySet::key_of_bundle(jwk)
                        .map_err(|reason| jwt_error(&trust_domain, reason))?;
                    jwt_authorities.extend(key);
                }
                _ => {}
            }
        }
        if x509_authorities.len() > MAX_X509_AUTHORITIES {
            return Err(malformed("it has more than 100 X.509 authorities"));
        }
        Ok(Self {
            jwt_authorities: KeySet::unique(jwt_authorities)
                .map_err(|reason| jwt_error(&trust_domain, reason))?,
            trust_domain,
            x509_authorities,
            sequence,
            refresh_hint: refresh_hint.min(MAX_REFRESH_HINT),
        })
    }

    /// The JWKS form (`use` = `x509-svid` with one `x5c`, or `jwt-svid` with a `kid`).
    pub fn to_json(&self) -> String {
        let x509 = self.x509_authorities.iter().map(|root| x509_jwk(root));
        let jwt = self
            .jwt_authorities
            .iter()
            .map(|key| key.to_json("jwt-svid"));
        json!({
            "spiffe_sequence": self.sequence,
            "spiffe_refresh_hint": self.refresh_hint.as_secs(),
            "keys": x509.chain(jwt).collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// The roots as PEM (RFC 7468).
    pub fn x509_pem(&self) -> String {
        pem::certificates(&self.x509_authorities)
    }
}

fn jwt_error(trust_domain: &TrustDomain, reason: JwtError) -> BundleError {
    BundleError::JwtAuthority {
        trust_domain: trust_domain.clone(),
        reason,
    }
}

/// The certificate of an `x509-svid` entry; `None` where its `kty` is none we know.
fn x509_authority(
    jwk: &Map<String, Value>,
) -> Result<Option<CertificateDer<'static>>, &'static str> {
    match jwk.get("kty").and_then(Value::as_str) {
        Some("EC" | "RSA" | "OKP" | "AKP") => {}
        Some(_) => return Ok(None),
        None => return Err("kty is missing"),
    }
    let [Value::String(text)] = jwk
        .get("x5c")
        .and_then(Value::as_array)
        .ok_or("x5c is missing")?
        .as_slice()
    else {
        return Err("x5c does not hold exactly one certificate");
    };
    let der = STANDARD.decode(text).map_err(|_| "x5c is not base64")?;
    let certificate = leaf::parse(&der).ok_or("x5c is not an X.509 certificate")?;
    if leaf::ca_path_length(&certificate).is_none() {
        return Err("its certificate is not a CA's");
    }
    let root = CertificateDer::from(der);
    webpki::anchor_from_trusted_cert(&root)
        .map_err(|_| "its certificate can't be a trust anchor")?;
    Ok(Some(root))
}

/// The entry of one root. Clients written in Go and Java read the members of the key as well, and
/// refuse an entry without, though only `x5c` counts.
fn x509_jwk(root: &CertificateDer<'_>) -> Value {
    let mut jwk = leaf::parse(root)
        .and_then(|certificate| key_params(certificate.public_key()))
        .map(|params| params.members())
        // The key type of ML-DSA and what else is not described by members of its own.
        .unwrap_or_else(|| Map::from_iter([("kty".to_owned(), "AKP".into())]));
    jwk.insert("use".to_owned(), "x509-svid".into());
    jwk.insert("x5c".to_owned(), json!([STANDARD.encode(root)]));
    Value::Object(jwk)
}

fn key_params(key: &SubjectPublicKeyInfo<'_>) -> Option<Params> {
    match key.parsed().ok()? {
        PublicKey::EC(point) => Params::from_point(point.data()),
        PublicKey::RSA(key) => {
            let unsigned = |bytes: &[u8]| match bytes {
                [0, rest @ ..] => rest.to_vec(),
                _ => bytes.to_vec(),
            };
            Params::rsa(&unsigned(key.modulus), &unsigned(key.exponent)).ok()
        }
        PublicKey::Unknown(bytes) if bytes.len() == 32 => Some(Params::ed25519(bytes)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
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
        let too_many: Vec<_> =
            std::iter::repeat_n(x509_entry(), MAX_X509_AUTHORITIES + 1).collect();
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
}

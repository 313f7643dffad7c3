//! What S9 lists, each with a token whose signature is valid, so that nothing but the claim of the
//! test's name can refuse it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;

mod bound;
mod claims;
mod form;
mod header;
mod keys;
mod oracle;
mod profiles;
mod symmetric;
mod vectors;

/// A moment all tests agree on: 2026-11-18.
const NOW: u64 = 1_795_000_000;

const ORDERS: &str = "spiffe://example.org/orders";
const RECORD: &str = "warifu-record+jwt";
const AUTHORITY: &str = "spiffe://example.org/warifu/authority";

/// An issuer with one key.
struct Issuer {
    key: SigningKey,
    keys: KeySet,
}

impl Issuer {
    fn new() -> Self {
        let key = SigningKey::generate();
        let keys = KeySet::new(vec![key.public().clone()]);
        Self { key, keys }
    }

    /// Signs exactly this text.
    fn sign_text(&self, header: &str, payload: &[u8]) -> String {
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload));
        let signature = encode(&self.key.sign_raw(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// A good header with `more` members, given as JSON text without braces.
    fn header(&self, more: &str) -> String {
        let comma = if more.is_empty() { "" } else { "," };
        format!(
            r#"{{"alg":"ES256","kid":"{}"{comma}{more}}}"#,
            self.key.public().kid()
        )
    }

    /// What a JWT-SVID verifier says at [`NOW`].
    fn judge(&self, token: &str) -> Result<Claims, JwtError> {
        verify(token, &svid_profile(), &self.keys, at(NOW))
    }

    /// The verdict on good claims under this header.
    fn judge_header(&self, header: &str) -> Result<Claims, JwtError> {
        self.judge(&self.sign_text(header, good_claims().to_string().as_bytes()))
    }

    /// The verdict on these claims under a good header.
    fn judge_claims(&self, claims: &Value) -> Result<Claims, JwtError> {
        self.judge(&sign(&self.key, "JWT", claims))
    }
}

fn svid_profile() -> Profile {
    Profile::jwt_svid(vec!["payments".to_owned()])
}

fn good_claims() -> Value {
    json!({"sub": ORDERS, "aud": ["payments"], "iat": NOW, "exp": NOW + 300})
}

/// Good claims with one member replaced, or removed where it is null.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = good_claims();
    let members = claims.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), value);
    }
    claims
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn a_jwt_svid_verifies() {
    let issuer = Issuer::new();
    let claims = json!({
        "sub": ORDERS, "aud": "payments", "exp": NOW + 300, "nbf": NOW, "iat": NOW, "scope": "a  b",
    });
    let claims = issuer.judge_claims(&claims).unwrap();
    assert_eq!(claims.subject, ORDERS);
    assert_eq!(claims.audiences, ["payments"]);
    assert_eq!(claims.scopes, ["a", "b"]);
    assert_eq!(claims.expires_at, at(NOW + 300));
    assert_eq!(claims.all.get("iat"), Some(&Value::from(NOW)));
}

#[test]
fn an_internal_document_verifies_for_its_own_typ_issuer_and_audience_only() {
    let issuer = Issuer::new();
    let claims = json!({
        "sub": ORDERS, "iss": AUTHORITY, "aud": AUTHORITY, "exp": NOW + 300, "facts": {"a": 1},
    });
    let token = sign(&issuer.key, RECORD, &claims);
    let judge = |profile: &Profile| verify(&token, profile, &issuer.keys, at(NOW));

    let verified = judge(&Profile::internal(RECORD, AUTHORITY, AUTHORITY)).unwrap();
    assert_eq!(verified.issuer.as_deref(), Some(AUTHORITY));
    assert_eq!(verified.all["facts"]["a"], 1);

    let refused = |profile| judge(&profile).unwrap_err();
    assert_eq!(
        refused(Profile::internal(
            "warifu-context+jwt",
            AUTHORITY,
            AUTHORITY
        )),
        JwtError::Header("typ is not of this profile")
    );
    assert_eq!(
        refused(Profile::internal(RECORD, ORDERS, AUTHORITY)),
        JwtError::Claim("iss is not the pinned issuer")
    );
    assert_eq!(
        refused(Profile::internal(RECORD, AUTHORITY, "payments")),
        JwtError::Claim("aud does not name us")
    );
    assert_eq!(
        refused(Profile::jwt_svid(vec![AUTHORITY.to_owned()])),
        JwtError::Header("typ is not of this profile")
    );
}

#[test]
fn a_key_survives_its_pkcs8_form() {
    let key = SigningKey::generate();
    let read = SigningKey::from_pkcs8(key.to_pkcs8().expose()).unwrap();
    assert_eq!(read.public(), key.public());
    assert!(key.public().verify_raw(b"x", &read.sign_raw(b"x")));
    assert_eq!(key.sign_raw(b"x").len(), 64);
    assert_eq!(key.public().kid(), key.public().thumbprint());
    assert!(SigningKey::from_pkcs8(b"not a key").is_err());
}

#[test]
fn an_rsa_key_survives_its_pkcs8_form_and_signs_rs256() {
    let key = SigningKey::generate_rsa();
    let read = SigningKey::rsa_from_pkcs8(key.to_pkcs8().expose()).unwrap();
    assert_eq!(read.public(), key.public());
    assert_eq!(key.public().algorithm(), Algorithm::RS256);
    assert!(key.public().verify_raw(b"x", &read.sign_raw(b"x")));
    assert_eq!(key.sign_raw(b"x").len(), 256);
    assert_eq!(key.public().kid(), key.public().thumbprint());
}

#[test]
fn each_kind_of_signing_key_is_read_by_its_own_function_only() {
    let (ec, rsa) = (SigningKey::generate(), SigningKey::generate_rsa());
    assert!(SigningKey::from_pkcs8(rsa.to_pkcs8().expose()).is_err());
    assert!(SigningKey::rsa_from_pkcs8(ec.to_pkcs8().expose()).is_err());
    assert!(SigningKey::rsa_from_pkcs8(b"not a key").is_err());
}

#[test]
fn the_hash_of_a_public_key_is_that_of_its_spki() {
    let ec = SigningKey::generate();
    let rsa = SigningKey::generate_rsa();
    for (key, algorithm) in [
        (&ec, &rcgen::PKCS_ECDSA_P256_SHA256),
        (&rsa, &rcgen::PKCS_RSA_SHA256),
    ] {
        let der = key.to_pkcs8().expose().as_slice().into();
        let other = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, algorithm).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&other);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki);
        assert_eq!(key.public().spki_sha256(), hash.as_ref());
        // However the key is spelt.
        let mut renamed = key.public().to_json("sig");
        renamed["kid"] = "another".into();
        let renamed = PublicJwk::from_json(&renamed).unwrap();
        assert_eq!(renamed.spki_sha256(), key.public().spki_sha256());
    }
}

#[test]
fn s12_a_signing_key_does_not_show_in_debug() {
    let key = SigningKey::generate();
    let text = format!("{key:?}");
    assert_eq!(
        text,
        format!("SigningKey {{ kid: {:?}, .. }}", key.public().kid())
    );
}

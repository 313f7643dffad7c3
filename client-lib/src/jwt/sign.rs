//! Signing compact JWS with ES256 (RFC 7515, RFC 7518 §3.4).

use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use super::{JwtError, PublicJwk, params::Params};
use crate::Secret;

/// A P-256 private key with its `kid` (its RFC 7638 thumbprint).
pub struct SigningKey {
    pair: EcdsaKeyPair,
    pkcs8: Secret<Vec<u8>>,
    public: PublicJwk,
}

impl SigningKey {
    /// A new key.
    ///
    /// # Panics
    /// When the system gives no randomness or no memory: nothing can go on without.
    #[expect(clippy::expect_used, reason = "see # Panics; no input reaches this")]
    pub fn generate() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .expect("aws-lc makes a P-256 key");
        let pkcs8 = pair.to_pkcs8v1().expect("aws-lc encodes its own key");
        Self::from_pkcs8(pkcs8.as_ref()).expect("aws-lc reads its own key")
    }

    /// Reads PKCS#8 DER.
    ///
    /// # Errors
    /// [`JwtError::Key`]: not a P-256 PKCS#8 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, JwtError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map_err(|_| JwtError::Key("not a P-256 private key in PKCS#8"))?;
        let params = Params::from_point(pair.public_key().as_ref())
            .ok_or(JwtError::Key("the public key is not an uncompressed point"))?;
        Ok(Self {
            public: PublicJwk::from_params(params)?,
            pkcs8: Secret::new(der.to_vec()),
            pair,
        })
    }

    /// The PKCS#8 DER of the key.
    pub fn to_pkcs8(&self) -> &Secret<Vec<u8>> {
        &self.pkcs8
    }

    /// The public half.
    pub fn public(&self) -> &PublicJwk {
        &self.public
    }

    /// A raw ES256 signature (r ‖ s, 64 bytes) over `message`.
    ///
    /// # Panics
    /// When the system gives no randomness or no memory.
    #[expect(
        clippy::expect_used,
        reason = "see # Panics; any message can be signed"
    )]
    pub fn sign_raw(&self, message: &[u8]) -> Vec<u8> {
        self.pair
            .sign(&SystemRandom::new(), message)
            .expect("aws-lc signs with a valid key")
            .as_ref()
            .to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.public.kid())
            .finish_non_exhaustive()
    }
}

/// A compact JWS: header exactly `alg`, `kid`, `typ`; `claims` as payload.
///
/// # Panics
/// When `claims` is a type JSON cannot express (a map whose keys are not strings). That is a
/// property of the type, not of the values in it.
#[expect(
    clippy::expect_used,
    reason = "see # Panics; no value of a JSON-like type reaches this"
)]
pub fn sign(key: &SigningKey, typ: &str, claims: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Header<'a> {
        alg: &'static str,
        kid: &'a str,
        typ: &'a str,
    }
    let header = Header {
        alg: key.public.algorithm().name(),
        kid: key.public.kid(),
        typ,
    };
    let mut token = String::new();
    let header = serde_json::to_vec(&header).expect("three strings are JSON");
    let payload = serde_json::to_vec(claims).expect("claims are a JSON-like type");
    URL_SAFE_NO_PAD.encode_string(header, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let signature = key.sign_raw(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

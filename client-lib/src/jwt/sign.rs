//! Signing compact JWS with ES256 or RS256 (RFC 7515, RFC 7518 §3.3 and §3.4).

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use super::{JwtError, PublicJwk, params::Params};
use crate::Secret;

/// A private key with its `kid` (its RFC 7638 thumbprint): P-256, which signs ES256, or RSA, which
/// signs RS256. RSA is for tokens that API Gateway or an ALB verifies; all else is P-256.
pub struct SigningKey {
    pair: Pair,
    pkcs8: Secret<Vec<u8>>,
    public: PublicJwk,
}

enum Pair {
    Es256(EcdsaKeyPair),
    Rs256(rsa::KeyPair),
}

impl SigningKey {
    /// A new P-256 key.
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

    /// A new RSA key of 2048 bits. Takes tens of milliseconds, at times many more.
    ///
    /// # Panics
    /// When the system gives no randomness or no memory: nothing can go on without.
    #[expect(clippy::expect_used, reason = "see # Panics; no input reaches this")]
    pub fn generate_rsa() -> Self {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("aws-lc makes an RSA key");
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().expect("aws-lc encodes its own key");
        Self::rsa_from_pkcs8(pkcs8.as_ref()).expect("aws-lc reads its own key")
    }

    /// Reads a P-256 key from PKCS#8 DER.
    ///
    /// # Errors
    /// [`JwtError::Key`]: not a P-256 PKCS#8 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, JwtError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map_err(|_| JwtError::Key("not a P-256 private key in PKCS#8"))?;
        let params = Params::from_point(pair.public_key().as_ref())
            .ok_or(JwtError::Key("the public key is not an uncompressed point"))?;
        Self::new(Pair::Es256(pair), params, der)
    }

    /// Reads an RSA key from PKCS#8 DER. A function of its own, so that no place that wants a P-256
    /// key takes one of these.
    ///
    /// # Errors
    /// [`JwtError::Key`]: not an RSA PKCS#8 key, or a weak one.
    pub fn rsa_from_pkcs8(der: &[u8]) -> Result<Self, JwtError> {
        let pair = rsa::KeyPair::from_pkcs8(der)
            .map_err(|_| JwtError::Key("not an RSA private key in PKCS#8"))?;
        let public = pair.public_key();
        let params = Params::rsa(
            public.modulus().big_endian_without_leading_zero(),
            public.exponent().big_endian_without_leading_zero(),
        )?;
        Self::new(Pair::Rs256(pair), params, der)
    }

    fn new(pair: Pair, params: Params, der: &[u8]) -> Result<Self, JwtError> {
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

    /// A signature over `message` as the key's JWS algorithm has it (ES256: r ‖ s, 64 bytes).
    ///
    /// # Panics
    /// When the system gives no randomness or no memory.
    #[expect(
        clippy::expect_used,
        reason = "see # Panics; any message can be signed"
    )]
    pub fn sign_raw(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Es256(pair) => pair
                .sign(&random, message)
                .expect("aws-lc signs with a valid key")
                .as_ref()
                .to_vec(),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .expect("aws-lc signs with a valid key");
                signature
            }
        }
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

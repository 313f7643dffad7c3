//! Secrets shared with an issuer, for HS256 (RFC 7518 §3.2). A type of its own: no key set holds one, so no token
//! can have a public key taken for a secret, or a secret for a public key.

use std::fmt;

use aws_lc_rs::hmac;
use serde_json::Value;

use super::JwtError;
use crate::Secret;

/// Shortest secret: as long as the hash (RFC 7518 §3.2). A shorter one can be guessed from a single token.
pub const MIN_HMAC_KEY_BYTES: usize = 32;

/// How texts begin that are public keys or certificates: known to everybody, so no secrets.
const PUBLIC: [&str; 3] = ["-----BEGIN", "ssh-", "ecdsa-sha2-"];

/// A secret shared with an issuer. Cheap to verify with; cannot be printed.
#[derive(Clone)]
pub struct HmacKey(hmac::Key);

impl HmacKey {
    /// The secret's bytes as they are: decode it first where its text is base64.
    ///
    /// # Errors
    /// [`JwtError::Key`]: shorter than [`MIN_HMAC_KEY_BYTES`], or a public key in PEM, JWK or SSH form, which
    /// whoever reads it could sign with.
    pub fn new(secret: &Secret<Vec<u8>>) -> Result<Self, JwtError> {
        let secret = secret.expose();
        if secret.len() < MIN_HMAC_KEY_BYTES {
            return Err(JwtError::Key("a secret for HS256 has at least 32 bytes"));
        }
        if is_public(secret) {
            return Err(JwtError::Key(
                "a secret for HS256 is no key pair's public key or certificate",
            ));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Whether `tag` is this key's over `message`; in constant time.
    pub(super) fn verify(&self, message: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.0, message, tag).is_ok()
    }
}

fn is_public(secret: &[u8]) -> bool {
    let text = secret.trim_ascii_start();
    let is_jwk = || {
        serde_json::from_slice::<Value>(text)
            .is_ok_and(|json| json.get("kty").is_some() || json.get("keys").is_some())
    };
    PUBLIC
        .iter()
        .any(|begin| text.starts_with(begin.as_bytes()))
        || is_jwk()
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey(***)")
    }
}

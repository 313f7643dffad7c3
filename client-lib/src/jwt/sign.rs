//! Signing compact JWS with ES256 (RFC 7518 §3.4).

use serde::Serialize;

use super::PublicJwk;
use crate::Secret;

/// A P-256 private key with its `kid` (its RFC 7638 thumbprint).
#[derive(Debug)]
pub struct SigningKey {}

impl SigningKey {
    /// A new key.
    pub fn generate() -> Self {
        unimplemented!("client-lib")
    }
    /// Reads PKCS#8 DER.
    ///
    /// # Errors
    /// Not a P-256 PKCS#8 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, super::JwtError> {
        let _ = der;
        unimplemented!("client-lib")
    }
    /// The PKCS#8 DER of the key.
    pub fn to_pkcs8(&self) -> &Secret<Vec<u8>> {
        unimplemented!("client-lib")
    }
    /// The public half.
    pub fn public(&self) -> &PublicJwk {
        unimplemented!("client-lib")
    }
    /// A raw ES256 signature (r ‖ s, 64 bytes) over `message`.
    pub fn sign_raw(&self, message: &[u8]) -> Vec<u8> {
        let _ = message;
        unimplemented!("client-lib")
    }
}

impl PublicJwk {
    /// Whether `signature` (as [`SigningKey::sign_raw`] makes them, or as the key's JWS algorithm has it) is over `message`.
    pub fn verify_raw(&self, message: &[u8], signature: &[u8]) -> bool {
        let _ = (message, signature);
        unimplemented!("client-lib")
    }
    /// Parses one public JWK.
    ///
    /// # Errors
    /// Malformed, private, weak.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, super::JwtError> {
        let _ = json;
        unimplemented!("client-lib")
    }
}

/// A compact JWS: header exactly `alg`, `kid`, `typ`; `claims` as payload.
pub fn sign(key: &SigningKey, typ: &str, claims: &impl Serialize) -> String {
    let _ = (key, typ, claims);
    unimplemented!("client-lib")
}

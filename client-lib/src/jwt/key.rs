//! Public keys: JWK and JWK sets (RFC 7517), one algorithm per key.

use super::JwtError;

/// Signature algorithms we accept. `none` and HMAC are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Algorithm {
    ES256,
    ES384,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

/// One parsed public key with its `kid`.
#[derive(Debug, Clone)]
pub struct PublicJwk {}

/// Keys by `kid`; parsed once.
#[derive(Debug, Clone, Default)]
pub struct KeySet {}

impl PublicJwk {
    /// The `kid`.
    pub fn kid(&self) -> &str {
        unimplemented!("client-lib")
    }
    /// The JWK as JSON (public members only), with the given `use`.
    pub fn to_json(&self, key_use: &str) -> serde_json::Value {
        let _ = key_use;
        unimplemented!("client-lib")
    }
    /// RFC 7638 SHA-256 thumbprint, base64url.
    pub fn thumbprint(&self) -> String {
        unimplemented!("client-lib")
    }
}

impl KeySet {
    /// Parses a JWK set; keeps keys whose `use` is `key_use` or absent; ignores what it does not know.
    ///
    /// # Errors
    /// Not a JWK set, duplicate `kid`, a private member, a weak or malformed key.
    pub fn from_jwks(json: &[u8], key_use: &str) -> Result<Self, JwtError> {
        let _ = (json, key_use);
        unimplemented!("client-lib")
    }
    /// A set of exactly these.
    pub fn new(keys: Vec<PublicJwk>) -> Self {
        let _ = keys;
        unimplemented!("client-lib")
    }
    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &PublicJwk> {
        std::iter::empty()
    }
    /// The key with this `kid`.
    pub fn find(&self, kid: &str) -> Option<&PublicJwk> {
        let _ = kid;
        unimplemented!("client-lib")
    }
}

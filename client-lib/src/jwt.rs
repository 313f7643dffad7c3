//! Strict JWS/JWT verification over aws-lc-rs (RFC 7515, 7519, 8725, and the JWT-SVID specification).
//!
//! No claim is read before the signature verified; time is an argument. What a token of one kind must look
//! like is its [`Profile`].
//!
//! ```
//! use std::time::SystemTime;
//! use warifu::jwt::{KeySet, Profile, SigningKey, sign, verify};
//!
//! let now = SystemTime::now();
//! let exp = now.duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 300;
//! let key = SigningKey::generate();
//! let token = sign(&key, "JWT", &serde_json::json!({
//!     "sub": "spiffe://example.org/orders", "aud": "payments", "exp": exp,
//! }));
//!
//! let keys = KeySet::new(vec![key.public().clone()]);
//! let claims = verify(&token, &Profile::jwt_svid(vec!["payments".to_owned()]), &keys, now)?;
//! assert_eq!(claims.subject, "spiffe://example.org/orders");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use thiserror::Error;

pub mod aws;
mod claims;
mod hmac;
pub mod json;
pub mod jwks;
mod key;
pub(crate) mod params;
mod profile;
mod sign;
mod verify;

#[cfg(test)]
mod tests;

pub use hmac::{HmacKey, MIN_HMAC_KEY_BYTES};
pub use key::{Algorithm, KeySet, MAX_JWKS_BYTES, MAX_KEYS, PublicJwk};
pub use profile::{AudienceRule, Confirmation, LoadBalancer, Profile, Required, SubjectRule};
pub use sign::{SigningKey, sign};
pub use verify::{verify, verify_document, verify_hs256};

/// Longest token accepted, in bytes (S9).
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Most entries accepted in `aud`. Issuers name one to three.
pub const MAX_AUDIENCES: usize = 32;

/// How far an issuer's clock may differ from ours, unless the configuration says otherwise.
pub const DEFAULT_SKEW: Duration = Duration::from_secs(5);

/// The claims of a token that verified.
#[derive(Debug, Clone)]
pub struct Claims {
    /// `sub`.
    pub subject: String,
    /// `iss`, where present.
    pub issuer: Option<String>,
    /// `aud`, always as a list.
    pub audiences: Vec<String>,
    /// `exp`.
    pub expires_at: SystemTime,
    /// `iat`, where present.
    pub issued_at: Option<SystemTime>,
    /// `jti`, where present; never empty.
    pub id: Option<String>,
    /// `scope`, split at spaces; empty where absent.
    pub scopes: Vec<String>,
    /// The whole payload.
    pub all: Map<String, Value>,
    /// `kid` of the key that signed it; of an HS256 token what its header says, empty where it says nothing.
    pub key_id: String,
    certificate: Option<[u8; 32]>,
}

impl Claims {
    /// SHA-256 of the certificate (DER) the token is bound to (`cnf.x5t#S256`, RFC 8705 §3.1). Who presents
    /// such a token must have proved that certificate's key on the connection. Always `None` unless the profile
    /// says [`Confirmation::Certificate`]: a bound token is refused otherwise.
    pub fn certificate_thumbprint(&self) -> Option<[u8; 32]> {
        self.certificate
    }
}

/// Why a token or a key was refused. The text is for logs; a caller learns only `invalid_token`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JwtError {
    /// Not three canonical base64url parts of JSON objects with unique members, or too long.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// `typ`, `crit`, `b64`, `alg` or another header member is not what the profile pins.
    #[error("refused header: {0}")]
    Header(&'static str),
    /// No key of the issuer has this `kid`. The caller may refresh its keys, within limits (S10).
    #[error("no key with this kid")]
    UnknownKey,
    /// The signature does not verify.
    #[error("the signature does not verify")]
    Signature,
    /// A claim is missing, ill-typed or not acceptable.
    #[error("refused claim: {0}")]
    Claim(&'static str),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// A key, or a set of keys, is malformed, weak or private.
    #[error("refused key: {0}")]
    Key(&'static str),
}

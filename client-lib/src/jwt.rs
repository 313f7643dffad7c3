//! Strict JWS/JWT verification over aws-lc-rs (RFC 7515, 7519, 8725, and the JWT-SVID specification).
//!
//! No claim is read before the signature verified; time is an argument.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use thiserror::Error;

mod key;
mod sign;
mod verify;

pub use key::{Algorithm, KeySet, PublicJwk};
pub use sign::{SigningKey, sign};
pub use verify::verify;

/// Longest token accepted, in bytes (S9).
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How far an issuer's clock may differ from ours, unless the configuration says otherwise.
pub const DEFAULT_SKEW: Duration = Duration::from_secs(5);

/// What a token of one kind must look like. Exceptions to S9 live in the constructors below and nowhere else.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Allowed `typ` values, lower case, without `application/`; empty string means "absent".
    pub typ: &'static [&'static str],
    /// Algorithms this issuer pins.
    pub algorithms: &'static [Algorithm],
    /// Required `iss`; `None` where the profile has none (JWT-SVID).
    pub issuer: Option<String>,
    /// The token must name at least one of these in `aud`.
    pub audiences: Vec<String>,
    /// Tolerated clock difference.
    pub skew: Duration,
}

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
    /// `scope`, split at spaces; empty where absent.
    pub scopes: Vec<String>,
    /// The whole payload.
    pub all: Map<String, Value>,
}

/// Why a token was refused. The text is for logs; a caller learns only `invalid_token`.
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
}

impl Profile {
    /// A JWT-SVID for one of `audiences` (ES256/384, RS256/384/512, PS256/384/512; `typ` JWT or JOSE or absent).
    /// `sub` must be a SPIFFE ID; the caller checks its trust domain against the keys it passed.
    pub fn jwt_svid(audiences: Vec<String>) -> Self {
        let _ = audiences;
        unimplemented!("client-lib")
    }
}

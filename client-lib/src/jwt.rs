//! Strict JWS/JWT verification over aws-lc-rs (RFC 7515, 7519, 8725, and the JWT-SVID specification).
//!
//! No claim is read before the signature verified; time is an argument.
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

pub mod json;
pub mod jwks;
mod key;
pub(crate) mod params;
mod sign;
mod verify;

#[cfg(test)]
mod tests;

pub use key::{Algorithm, KeySet, MAX_JWKS_BYTES, MAX_KEYS, PublicJwk};
pub use sign::{SigningKey, sign};
pub use verify::{verify, verify_document};

/// Longest token accepted, in bytes (S9).
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Most entries accepted in `aud`. Issuers name one to three.
pub const MAX_AUDIENCES: usize = 32;

/// How far an issuer's clock may differ from ours, unless the configuration says otherwise.
pub const DEFAULT_SKEW: Duration = Duration::from_secs(5);

/// What a token of one kind must look like. Made by the constructors below and nowhere else, so that
/// every exception to S9 is written in one place.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Profile {
    /// Allowed `typ` values, compared exactly; an empty string means "absent".
    pub typ: Vec<&'static str>,
    /// Allowed header members; any other refuses the token, `crit` and `jku` among them.
    pub header: &'static [&'static str],
    /// Algorithms this issuer pins.
    pub algorithms: &'static [Algorithm],
    /// Required `iss`; `None` where the profile has none (JWT-SVID).
    pub issuer: Option<String>,
    /// The token must name at least one of these in `aud`.
    pub audiences: Vec<String>,
    /// Whether `aud` must be one audience and no more. Whoever a token is for can present it to the
    /// others it is for.
    pub single_audience: bool,
    /// What `sub` must be.
    pub subject: SubjectRule,
    /// Claims that must be there beside `sub`, `aud` and `exp`.
    pub required: &'static [Required],
    /// Whether `exp`, `nbf` and `iat` may have a fraction (RFC 7519 allows it, JWT-SVID clients don't).
    pub fractional_dates: bool,
    /// Tolerated clock difference.
    pub skew: Duration,
}

/// What the `sub` of a token must be. It is never absent or empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectRule {
    /// Any string of up to 2048 bytes.
    Text,
    /// A SPIFFE ID with a path, in canonical form.
    SpiffeId,
}

/// A claim that a profile demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// `iat`.
    IssuedAt,
    /// `jti`.
    Id,
    /// `client_id`, a string that is not empty.
    ClientId,
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
    /// `iat`, where present.
    pub issued_at: Option<SystemTime>,
    /// `jti`, where present; never empty.
    pub id: Option<String>,
    /// `scope`, split at spaces; empty where absent.
    pub scopes: Vec<String>,
    /// The whole payload.
    pub all: Map<String, Value>,
    /// `kid` of the key that signed it.
    pub key_id: String,
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

/// The header members of a JWT-SVID; we make no others anywhere.
const HEADER_MEMBERS: &[&str] = &["alg", "kid", "typ"];

/// The algorithms of the JWT-SVID specification.
const JWT_SVID_ALGORITHMS: &[Algorithm] = &[
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::ES512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// What every profile starts from: nothing here is an exception to S9.
const STRICT: Profile = Profile {
    typ: Vec::new(),
    header: HEADER_MEMBERS,
    algorithms: JWT_SVID_ALGORITHMS,
    issuer: None,
    audiences: Vec::new(),
    single_audience: false,
    subject: SubjectRule::Text,
    required: &[],
    fractional_dates: false,
    skew: DEFAULT_SKEW,
};

impl Profile {
    /// A JWT-SVID for one of `audiences`. `sub` must be a SPIFFE ID; the caller checks its trust
    /// domain against the keys it passed. `kid` is required, as every issuer and client has it.
    pub fn jwt_svid(audiences: Vec<String>) -> Self {
        Self {
            typ: vec!["JWT", "JOSE", ""],
            audiences,
            subject: SubjectRule::SpiffeId,
            ..STRICT
        }
    }

    /// A document Warifu signs for itself (attestation record, signed context): ES256, exactly this
    /// `typ`, `iss` and `aud`. Like every token it needs `sub` and `exp`.
    pub fn internal(
        typ: &'static str,
        issuer: impl Into<String>,
        audience: impl Into<String>,
    ) -> Self {
        Self {
            typ: vec![typ],
            algorithms: &[Algorithm::ES256],
            issuer: Some(issuer.into()),
            audiences: vec![audience.into()],
            ..STRICT
        }
    }

    /// A token of `sts:GetWebIdentityToken` for `audience` alone. AWS signs it with RS256 or ES384, as
    /// its caller asked. How old it may be, whose account it is of, and that `sub` is a role, is for the
    /// caller to check.
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_token_claims.html>
    pub fn aws_web_identity(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            typ: vec!["JWT", ""],
            algorithms: &[Algorithm::RS256, Algorithm::ES384],
            issuer: Some(issuer.into()),
            audiences: vec![audience.into()],
            single_audience: true,
            required: &[Required::IssuedAt],
            ..STRICT
        }
    }

    /// An ID token (OpenID Connect Core §2) or a Kubernetes service-account token, for `audience`
    /// alone. Exceptions, because issuers in use have them: dates may have a fraction, and the header
    /// may name a certificate by its thumbprint (`x5t`), which nobody looks at.
    pub fn oidc(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            typ: vec!["JWT", ""],
            header: &["alg", "kid", "typ", "x5t", "x5t#S256"],
            algorithms: Algorithm::ALL,
            issuer: Some(issuer.into()),
            audiences: vec![audience.into()],
            single_audience: true,
            required: &[Required::IssuedAt],
            fractional_dates: true,
            ..STRICT
        }
    }

    /// An OAuth access token (RFC 9068). Its `typ` is spelt in either of the two ways of §4.
    pub fn access_token(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            typ: vec!["at+jwt", "application/at+jwt"],
            issuer: Some(issuer.into()),
            audiences: vec![audience.into()],
            required: &[Required::IssuedAt, Required::Id, Required::ClientId],
            ..STRICT
        }
    }
}

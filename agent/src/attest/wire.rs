//! The issuing API, version 1: JSON over HTTPS (see `docs/issuing-api.md`). Bytes are base64url without padding.
//!
//! Members a peer does not know are ignored, so that either side can be upgraded first.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;
use warifu::{Secret, TrustDomain, jwt::PublicJwk};

/// `POST`: a fresh challenge. No body.
pub const CHALLENGE: &str = "/v1/challenge";
/// `POST` [`AttestRequest`] → [`Issued`].
pub const ATTEST: &str = "/v1/attest";
/// `POST` [`RenewRequest`] → [`Issued`].
pub const RENEW: &str = "/v1/renew";
/// `POST` [`JwtSvidRequest`] → [`JwtSvid`].
pub const JWT_SVID: &str = "/v1/jwt-svid";
/// `POST` [`AccessTokenRequest`] → [`AccessToken`].
pub const ACCESS_TOKEN: &str = "/v1/access-token";
/// `POST` [`ExchangeRequest`] → [`AccessToken`].
pub const EXCHANGE: &str = "/v1/exchange";
/// `GET`: the trust bundle in SPIFFE's JWKS form, with an `ETag`.
pub const BUNDLE: &str = "/v1/bundle";
/// `GET`: the bundles of all trust domains the authority knows, its own among them, as SPIFFE's bundle map,
/// with an `ETag`.
pub const BUNDLES: &str = "/v1/bundles";

/// `GET`: issuer and keys of access tokens ([`AccessTokenKeys`]), with an `ETag`.
pub const ACCESS_TOKEN_KEYS: &str = "/v1/access-token-keys";

/// `GET`: the revocation list, a JWS ([`crate::revocation::Published`]), with an `ETag`.
pub const REVOCATIONS: &str = "/v1/revocations";

/// `POST` [`AdminRequest`]: administration from afar. Answers as the act has it.
pub const ADMIN: &str = "/v1/admin";

/// Largest request body: a CSR, a record, a token and a key are 6 KiB together, a token of 8 KiB fits too.
pub const MAX_REQUEST: usize = 64 * 1024;
/// Largest response body an agent reads: a bundle with dozens of keys is below 100 KiB.
pub const MAX_RESPONSE: usize = 1024 * 1024;
/// Most audiences in one JWT-SVID request. A token for two services lets each call the other as us: few clients want
/// one, and those name two or three.
pub const MAX_AUDIENCES: usize = 8;
/// Longest audience, in bytes.
pub const MAX_AUDIENCE: usize = 512;

/// Answer to [`CHALLENGE`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Challenge {
    /// To be sent back, and signed, within `expires_in`.
    pub challenge: String,
    /// Seconds it is good for.
    pub expires_in: u64,
    /// The authority's clock, Unix seconds: an agent whose own clock is off can say so.
    pub time: u64,
}

/// What an agent proves itself with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Evidence {
    /// A single-use token made by the authority's operator.
    JoinToken {
        /// The token.
        #[serde(with = "secret_string")]
        token: Secret<String>,
    },
    /// A token of `sts:GetWebIdentityToken` whose only audience is [`attest_audience`] of the renewal key.
    AwsWebIdentity {
        /// The token.
        #[serde(with = "secret_string")]
        token: Secret<String>,
    },
    /// What a signed request of `sts:GetCallerIdentity` leaves to its sender; the authority makes the rest
    /// of the request itself (S7).
    AwsCallerIdentity(CallerIdentityProof),
    /// A projected service-account token of a Kubernetes cluster.
    Kubernetes {
        /// The token.
        #[serde(with = "secret_string")]
        token: Secret<String>,
    },
    /// A token of an OIDC issuer.
    Oidc {
        /// The token.
        #[serde(with = "secret_string")]
        token: Secret<String>,
    },
}

/// The parts of a SigV4 signature over `sts:GetCallerIdentity` that are the signer's. The request is
/// `POST /` of the region's STS endpoint, its body `Action=GetCallerIdentity&Version=2011-06-15`, and
/// [`BINDING_HEADER`] one of its signed headers.
#[derive(Clone, Serialize, Deserialize)]
pub struct CallerIdentityProof {
    /// The region whose STS endpoint it was signed for.
    pub region: String,
    /// The access key's id.
    pub access_key_id: String,
    /// `X-Amz-Date`: `YYYYMMDD'T'HHMMSS'Z'`.
    pub date: String,
    /// `X-Amz-Security-Token`: roles have one always.
    #[serde(with = "secret_string")]
    pub session_token: Secret<String>,
    /// The signature, 64 lower-case hex digits.
    pub signature: String,
}

/// A renewal key in what is bound to it: base64url of SHA-256 of its SubjectPublicKeyInfo (RFC 5280 §4.1).
pub fn key_hash(renewal_key: &PublicJwk) -> String {
    URL_SAFE_NO_PAD.encode(renewal_key.spki_sha256())
}

/// Binds a `sts:GetCallerIdentity` to a renewal key and a challenge: `<SPKI hash>.<challenge>`.
pub const BINDING_HEADER: &str = "x-warifu-binding";

/// The only audience of a web identity token that attests here: bound to the renewal key by its [`key_hash`].
pub fn attest_audience(trust_domain: &TrustDomain, key_hash: &str) -> String {
    format!("warifu:{trust_domain}:attest:{key_hash}")
}

/// Asks for an X.509-SVID with evidence: for the first one of a lineage, and for the next where evidence can be
/// had again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttestRequest {
    /// From [`CHALLENGE`].
    pub challenge: String,
    /// Proves facts about the agent.
    pub evidence: Evidence,
    /// A PKCS#10 request (DER). Everything in it but the public key is ignored.
    pub csr: Base64,
    /// The renewal key, a public P-256 JWK. What is issued is bound to it. Never the key of the CSR.
    pub renewal_key: serde_json::Value,
    /// The attestation record of an earlier attestation, so that the lineage goes on where the same key proves
    /// the same again. It proves nothing here, and one that is of no use is no mistake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// ES256 by the renewal key over [`super::proof::attest`].
    pub proof: Base64,
}

/// Asks for the next X.509-SVID of a lineage without evidence.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewRequest {
    /// From [`CHALLENGE`].
    pub challenge: String,
    /// The attestation record; it names the renewal key.
    pub record: String,
    /// As in [`AttestRequest`].
    pub csr: Base64,
    /// ES256 by the renewal key over [`super::proof::renew`].
    pub proof: Base64,
}

/// Asks for a JWT-SVID.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JwtSvidRequest {
    /// From [`CHALLENGE`].
    pub challenge: String,
    /// The attestation record; it names the renewal key.
    pub record: String,
    /// `aud`: 1 to [`MAX_AUDIENCES`].
    pub audiences: Vec<String>,
    /// `sub`: one of the identities the rules grant; the first where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// ES256 by the renewal key over [`super::proof::jwt_svid`].
    pub proof: Base64,
}

/// Asks for an access token with a record, as [`JwtSvidRequest`] asks for a JWT-SVID.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccessTokenRequest {
    /// From [`CHALLENGE`].
    pub challenge: String,
    /// The attestation record; it names the renewal key.
    pub record: String,
    /// `aud`.
    pub audience: String,
    /// Of those the rule grants; all of them where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// ES256 by the renewal key over [`super::proof::access_token`].
    pub proof: Base64,
}

/// Asks for an access token with evidence: for a caller without an agent, which needs nothing else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExchangeRequest {
    /// From [`CHALLENGE`].
    pub challenge: String,
    /// Proves facts about the caller.
    pub evidence: Evidence,
    /// A public P-256 JWK, which the evidence is bound to where it can be. The token is bound to none.
    pub renewal_key: serde_json::Value,
    /// As in [`AccessTokenRequest`].
    pub audience: String,
    /// As in [`AccessTokenRequest`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// ES256 by the renewal key over [`super::proof::exchange`].
    pub proof: Base64,
}

/// Asks for an act of administration, with evidence of who asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AdminRequest {
    /// From [`CHALLENGE`]. Good for one act.
    pub challenge: String,
    /// Proves facts about the administrator.
    pub evidence: Evidence,
    /// A public P-256 JWK, made for this request. The evidence is bound to it where it can be.
    pub renewal_key: serde_json::Value,
    /// JSON of the act. As bytes, so that what was signed is what is read.
    pub act: Base64,
    /// ES256 by the renewal key over [`super::proof::admin`].
    pub proof: Base64,
}

/// An X.509-SVID and all that goes with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Issued {
    /// The SPIFFE ID, for people who read this; the leaf is what counts.
    pub spiffe_id: String,
    /// Leaf, then the intermediate; DER.
    pub chain: Vec<Base64>,
    /// The workload's further identities, where the rule grants any. An agent that does not know of them holds the
    /// first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<Further>,
    /// The trust bundle, as [`BUNDLE`] has it; its text, which is the same for everyone.
    pub bundle: Box<RawValue>,
    /// The attestation record: a JWS of the authority's, opaque to the agent. It renews
    /// nothing without a proof by the renewal key.
    pub record: String,
    /// When the record expires, Unix seconds.
    pub record_expires_at: u64,
}

/// A further X.509-SVID, for the same key (docs/adr/0015).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Further {
    /// As in [`Issued`].
    pub spiffe_id: String,
    /// What it is for; unique among those of one workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Leaf, then the intermediate; DER.
    pub chain: Vec<Base64>,
}

/// A JWT-SVID.
#[derive(Clone, Serialize, Deserialize)]
pub struct JwtSvid {
    /// The compact JWS.
    #[serde(with = "secret_string")]
    pub token: Secret<String>,
    /// Its `exp`, Unix seconds.
    pub expires_at: u64,
}

/// An access token (RFC 9068).
#[derive(Clone, Serialize, Deserialize)]
pub struct AccessToken {
    /// The compact JWS.
    #[serde(with = "secret_string")]
    pub token: Secret<String>,
    /// Its `exp`, Unix seconds.
    pub expires_at: u64,
    /// The scopes it has.
    pub scopes: Vec<String>,
}

/// What verifies access tokens: a JWK set (RFC 7517 §5) with one member more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccessTokenKeys {
    /// Their `iss`.
    pub issuer: String,
    /// Public keys, each published ahead of its use.
    pub keys: Vec<serde_json::Value>,
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("expires_at", &self.expires_at)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The body of every answer that is not 2xx or 304.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// For programs.
    pub error: ErrorCode,
    /// For people: what, and what to do.
    pub message: String,
}

/// Why a request was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// Not the JSON this path takes.
    BadRequest,
    /// Not a PKCS#10 request with a P-256 or P-384 key that signed it.
    InvalidCsr,
    /// Not one of ours, or older than it may be. Ask for another.
    InvalidChallenge,
    /// Not signed by the renewal key, or over something else.
    InvalidProof,
    /// The evidence proves nothing (any more). A record is no way around it.
    InvalidEvidence,
    /// Nobody can say now what the evidence proves: what it takes (STS, a cluster, an issuer's keys) is away or
    /// busy. A record may renew meanwhile; else ask again after `Retry-After`.
    EvidenceUnavailable,
    /// The attestation record is not one of ours, or has expired. Attest again.
    InvalidRecord,
    /// What was proved entitles to no identity: no rule matches, or the rule can't be filled in.
    NoRule,
    /// The lineage, the identity or the role is revoked.
    Revoked,
    /// The rules grant no such identity to what was proved, though they may grant another.
    IdentityRefused,
    /// The identity may not have a token for this audience.
    AudienceRefused,
    /// Not an administrator, or not for this act.
    NotAllowed,
    /// The challenge was used for an act of administration already.
    Replayed,
    /// The identity may not have a token with this scope.
    ScopeRefused,
    /// No such path.
    NotFound,
    /// Not this method.
    MethodNotAllowed,
    /// Something else is under way, or there already.
    Conflict,
    /// The body is over [`MAX_REQUEST`].
    TooLarge,
    /// The request took too long to arrive.
    TimedOut,
    /// Over a limit; ask again after `Retry-After`.
    TooManyRequests,
    /// Can't now; ask again after `Retry-After`.
    Unavailable,
    /// A code this version does not know.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The HTTP status that goes with it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::InvalidCsr => StatusCode::BAD_REQUEST,
            Self::InvalidChallenge
            | Self::InvalidProof
            | Self::InvalidEvidence
            | Self::InvalidRecord => StatusCode::UNAUTHORIZED,
            Self::NoRule
            | Self::Revoked
            | Self::IdentityRefused
            | Self::AudienceRefused
            | Self::ScopeRefused
            | Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::Replayed => StatusCode::CONFLICT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::EvidenceUnavailable | Self::Unavailable | Self::Unknown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Evidence {
    /// Its kind, as it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::JoinToken { .. } => "join-token",
            Self::AwsWebIdentity { .. } => "aws-web-identity",
            Self::AwsCallerIdentity(_) => "aws-caller-identity",
            Self::Kubernetes { .. } => "kubernetes",
            Self::Oidc { .. } => "oidc",
        }
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JoinToken { token } => f.debug_struct("JoinToken").field("token", token).finish(),
            Self::AwsWebIdentity { token } => f
                .debug_struct("AwsWebIdentity")
                .field("token", token)
                .finish(),
            Self::AwsCallerIdentity(proof) => {
                f.debug_tuple("AwsCallerIdentity").field(proof).finish()
            }
            Self::Kubernetes { token } => {
                f.debug_struct("Kubernetes").field("token", token).finish()
            }
            Self::Oidc { token } => f.debug_struct("Oidc").field("token", token).finish(),
        }
    }
}

impl fmt::Debug for CallerIdentityProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerIdentityProof")
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("date", &self.date)
            .finish_non_exhaustive()
    }
}

/// Bytes, as base64url without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        URL_SAFE_NO_PAD
            .decode(text)
            .map(Self)
            .map_err(|why| D::Error::custom(format!("expected base64url without padding: {why}")))
    }
}

/// A secret string on the wire.
pub(crate) mod secret_string {
    use serde::{Deserialize, Deserializer, Serializer};
    use warifu::Secret;

    pub(crate) fn serialize<S: Serializer>(
        secret: &Secret<String>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_str(secret.expose())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Secret<String>, D::Error> {
        String::deserialize(d).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s12_evidence_and_tokens_do_not_show_in_debug() {
        let evidence = Evidence::JoinToken {
            token: Secret::new("hunter2".into()),
        };
        assert!(!format!("{evidence:?}").contains("hunter2"));
        let svid = JwtSvid {
            token: Secret::new("hunter2".into()),
            expires_at: 1,
        };
        assert!(!format!("{svid:?}").contains("hunter2"));
        let token = AccessToken {
            token: Secret::new("hunter2".into()),
            expires_at: 1,
            scopes: vec![],
        };
        assert!(!format!("{token:?}").contains("hunter2"));
    }

    #[test]
    fn an_error_code_of_a_newer_authority_is_read_as_unknown() {
        let body: ErrorBody =
            serde_json::from_str(r#"{"error":"moon_phase","message":"wait"}"#).unwrap();
        assert_eq!(body.error, ErrorCode::Unknown);
        assert_eq!(ErrorCode::InvalidRecord.to_string(), "invalid_record");
    }

    #[test]
    fn bytes_are_base64url_without_padding_and_nothing_else() {
        assert_eq!(
            serde_json::to_string(&Base64(vec![0xff, 0xfe])).unwrap(),
            r#""__4""#
        );
        for bad in [r#""__4=""#, r#""//4""#, r#""__5""#, r#"" __4""#] {
            assert!(serde_json::from_str::<Base64>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_member_given_twice_is_refused() {
        let twice = r#"{"error":"no_rule","error":"no_rule","message":""}"#;
        assert!(serde_json::from_str::<ErrorBody>(twice).is_err());
    }
}

//! What the authority mints and publishes for others: tokens, the web listener, federation.

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use warifu::{SpiffeId, TrustDomain};

use crate::config::value::{self, As, Upstream, name};

/// The tokens the authority mints. The two kinds have separate keys and issuers, and neither is accepted
/// as the other.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// JWT-SVIDs. ES256 where nothing is said.
    pub jwt_svid: Option<TokenIssuer>,
    /// Access tokens (RFC 9068); none are minted where absent.
    pub access_token: Option<TokenIssuer>,
}

/// How one kind of token is signed, and by whom it says it is.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenIssuer {
    /// `iss`: the URL under which the world finds the discovery document and the keys.
    #[serde(deserialize_with = "value::one::<name::Issuer, _>")]
    #[schemars(with = "As<name::Issuer>")]
    pub issuer: String,
    /// The signature: `ES256`, or `RS256` where API Gateway or an ALB verifies.
    #[serde(default)]
    pub algorithm: TokenAlgorithm,
}

/// The path of an issuer's URL, without a slash at its end: where the web listener serves its documents.
pub fn issuer_path(issuer: &str) -> String {
    let url: Option<Upstream> = issuer.parse().ok();
    url.map(|url| url.base_path).unwrap_or_default()
}

/// JWS algorithms (RFC 7518 §3.1) we sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum TokenAlgorithm {
    /// ECDSA over P-256 with SHA-256.
    #[default]
    #[serde(rename = "ES256")]
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 bits: all that API Gateway and ALB accept.
    #[serde(rename = "RS256")]
    Rs256,
}

/// The listener for the world: `https_web` of SPIFFE federation, OIDC discovery, JWKS.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Web {
    /// Where it listens.
    #[serde(deserialize_with = "value::one::<name::TcpAddress, _>")]
    #[schemars(with = "As<name::TcpAddress>")]
    pub listen: SocketAddr,
    /// Its certificate, of the Web PKI. Where absent it speaks plaintext, for a load balancer beside it,
    /// and must listen on loopback.
    pub tls: Option<WebTls>,
}

/// A certificate from files; read anew when they change.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebTls {
    /// PEM file: the chain, leaf first.
    #[serde(deserialize_with = "value::one::<name::AbsolutePath, _>")]
    #[schemars(with = "As<name::AbsolutePath>")]
    pub certificate: PathBuf,
    /// PEM file: the private key (0600).
    #[serde(deserialize_with = "value::one::<name::AbsolutePath, _>")]
    #[schemars(with = "As<name::AbsolutePath>")]
    pub key: PathBuf,
}

/// Another trust domain.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Federated {
    /// Its name.
    #[serde(deserialize_with = "value::one::<name::Domain, _>")]
    #[schemars(with = "As<name::Domain>")]
    pub trust_domain: TrustDomain,
    /// How its endpoint is authenticated.
    pub profile: FederationProfile,
    /// Its bundle endpoint (`http://` for loopback only).
    pub url: Upstream,
    /// With `https_spiffe`: the SPIFFE ID of the endpoint.
    #[serde(default, deserialize_with = "value::option::<name::Id, _>")]
    #[schemars(with = "Option<As<name::Id>>")]
    pub endpoint_spiffe_id: Option<SpiffeId>,
    /// With `https_spiffe`: file with the first bundle (SPIFFE's JWKS form).
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    pub bundle: Option<PathBuf>,
    /// With `https_web`: PEM file of CAs; the Web PKI where absent.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    pub ca_file: Option<PathBuf>,
}

/// SPIFFE Federation §5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FederationProfile {
    /// By the Web PKI (or `ca_file`).
    HttpsWeb,
    /// By its SPIFFE ID.
    HttpsSpiffe,
}

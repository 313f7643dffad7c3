//! `oauth` of a route.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{self, As, SecretRef, Upstream, name};

/// An access token of any provider on a route: OAuth 2.0 client credentials (RFC 6749 §4.4).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteOauth {
    /// The provider's token endpoint.
    pub token_url: Upstream,
    /// The provider's issuer identifier (RFC 8414): the audience of a client's assertions.
    #[serde(default, deserialize_with = "value::option::<name::Issuer, _>")]
    #[schemars(with = "Option<As<name::Issuer>>")]
    pub issuer: Option<String>,
    /// Who asks, and how it proves that.
    pub client: RouteOauthClient,
    /// `scope`.
    #[serde(default, deserialize_with = "value::list::<name::Scope, _>")]
    #[schemars(with = "Vec<As<name::Scope>>")]
    pub scopes: Vec<String>,
    /// `audience`, where the provider has such a parameter.
    #[serde(default, deserialize_with = "value::option::<name::Audience, _>")]
    #[schemars(with = "Option<As<name::Audience>>")]
    pub audience: Option<String>,
    /// `resource` (RFC 8707).
    #[serde(default, deserialize_with = "value::list::<name::Resource, _>")]
    #[schemars(with = "Vec<As<name::Resource>>")]
    pub resource: Vec<String>,
    /// A PEM file of the CAs that the provider's certificate is verified with, in place of the public ones; read anew for
    /// each token.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    pub ca_bundle: Option<PathBuf>,
}

/// A client, and exactly one way of authenticating.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteOauthClient {
    /// `client_id`. May be absent where our SPIFFE ID says who asks.
    #[serde(default, deserialize_with = "value::option::<name::ClientId, _>")]
    #[schemars(with = "Option<As<name::ClientId>>")]
    pub id: Option<String>,
    /// The client's secret, by HTTP Basic.
    pub client_secret_basic: Option<SecretRef>,
    /// The client's secret, in the form.
    pub client_secret_post: Option<SecretRef>,
    /// A JWT signed with the client's private key (RFC 7523).
    pub private_key_jwt: Option<PrivateKeyJwt>,
    /// A client certificate (RFC 8705): `{}` for our X.509-SVID.
    pub tls_client_auth: Option<TlsClientAuth>,
    /// Our JWT-SVID (draft-ietf-oauth-spiffe-client-auth): `{}`.
    pub spiffe_jwt: Option<SpiffeJwt>,
}

/// A JWT signed with the client's private key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivateKeyJwt {
    /// The private key as PEM: P-256 (ES256), RSA (RS256 or PS256) or Ed25519 (EdDSA).
    pub key: SecretRef,
    /// What the provider calls the key; its RFC 7638 thumbprint where absent.
    #[serde(default, deserialize_with = "value::option::<name::KeyId, _>")]
    #[schemars(with = "Option<As<name::KeyId>>")]
    pub kid: Option<String>,
    /// How an RSA key signs.
    #[serde(default)]
    pub rsa: RsaSigning,
}

/// How an RSA key signs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum RsaSigning {
    /// PKCS#1 v1.5.
    #[default]
    #[serde(rename = "RS256")]
    Rs256,
    /// PSS, as FAPI demands.
    #[serde(rename = "PS256")]
    Ps256,
}

/// A client certificate: both files, or neither for our X.509-SVID.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsClientAuth {
    /// A PEM file of the chain, leaf first; read anew for each token.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    pub certificate: Option<PathBuf>,
    /// A PEM file of its private key.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    pub key: Option<PathBuf>,
}

/// Our JWT-SVID; its audience is `oauth.issuer`.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpiffeJwt {}

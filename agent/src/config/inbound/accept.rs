//! Ways for a caller to prove itself.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use warifu::TrustDomain;

use crate::config::value::{self, As, SecretRef, name};

mod jwt;

pub use jwt::{BoundCertificate, Issuer, JwtAccept, JwtProfile, LoadBalancer};

/// One way to prove oneself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Accept {
    /// `{mtls: {trust_domains: [...]}}`: an X.509-SVID of one of these trust domains.
    Mtls {
        /// The agent's own, and others that its authority federates with.
        #[serde(deserialize_with = "value::list::<name::Domain, _>")]
        #[schemars(with = "Vec<As<name::Domain>>")]
        trust_domains: Vec<TrustDomain>,
    },
    /// `{jwt: {profile: jwt-svid, audiences: [...]}}`: a token, by who issues it and what it looks like.
    Jwt(JwtAccept),
    /// `{aws-web-identity: {audience: …, issuers: {ACCOUNT: URL}}}`: a token in which AWS says which role calls.
    AwsWebIdentity(WebIdentityAccept),
    /// `{secret-header: {header: …, secret: …, subject: …}}`: a secret, for callers that know nothing else.
    SecretHeader(SecretHeaderAccept),
}

/// Tokens of `sts:GetWebIdentityToken`: whoever holds a session of an IAM role has AWS sign one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebIdentityAccept {
    /// What rules and audit lines call it.
    #[serde(
        default = "aws_web_identity",
        deserialize_with = "value::one::<name::AcceptName, _>"
    )]
    #[schemars(with = "As<name::AcceptName>")]
    pub name: String,
    /// The only audience of its tokens, such as `warifu:example.org:call:payments`.
    #[serde(deserialize_with = "value::one::<name::CallAudience, _>")]
    #[schemars(with = "As<name::CallAudience>")]
    pub audience: String,
    /// Account → the issuer of its tokens (`aws iam get-outbound-web-identity-federation-info`).
    #[serde(deserialize_with = "value::map::<name::Issuer, _>")]
    #[schemars(with = "BTreeMap<String, As<name::Issuer>>")]
    pub issuers: BTreeMap<String, String>,
    /// The organisation every token must be of, such as `o-abc`.
    pub org: Option<String>,
}

/// A secret in a header of its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretHeaderAccept {
    /// What rules and audit lines call it.
    #[serde(
        default = "secret_header",
        deserialize_with = "value::one::<name::AcceptName, _>"
    )]
    #[schemars(with = "As<name::AcceptName>")]
    pub name: String,
    /// The header, such as `x-custom-auth`. It goes no further.
    #[serde(deserialize_with = "value::one::<name::Header, _>")]
    #[schemars(with = "As<name::Header>")]
    pub header: http::HeaderName,
    /// The secret. Two values are live while it is rotated: `AWSCURRENT` and `AWSPENDING`, then `AWSCURRENT` and
    /// `AWSPREVIOUS`; of a file, its first two lines.
    pub secret: SecretRef,
    /// Who has it.
    #[serde(deserialize_with = "value::one::<name::ClientId, _>")]
    #[schemars(with = "As<name::ClientId>")]
    pub subject: String,
}

fn aws_web_identity() -> String {
    "aws-web-identity".to_owned()
}

fn secret_header() -> String {
    "secret-header".to_owned()
}

impl Accept {
    /// What rules and audit lines call it; a certificate needs no name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Mtls { .. } => None,
            Self::Jwt(jwt) => Some(&jwt.name),
            Self::AwsWebIdentity(aws) => Some(&aws.name),
            Self::SecretHeader(secret) => Some(&secret.name),
        }
    }

    /// Whether it proves AWS roles.
    pub fn proves_roles(&self) -> bool {
        matches!(self, Self::AwsWebIdentity(_))
    }

    /// The secret it names.
    pub fn secret(&self) -> Option<&SecretRef> {
        match self {
            Self::Mtls { .. } | Self::AwsWebIdentity(_) => None,
            Self::Jwt(jwt) => match &jwt.profile {
                JwtProfile::Hs256 { secret, .. } => Some(secret),
                _ => None,
            },
            Self::SecretHeader(header) => Some(&header.secret),
        }
    }
}

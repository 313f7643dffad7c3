//! `aws_web_identity` of a route.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    defaults,
    value::{self, As, RoleRef, Span, name},
};

/// A token of `sts:GetWebIdentityToken` on a route: AWS says which role calls.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteAwsWebIdentity {
    /// Its audiences, 1 to 10.
    #[serde(deserialize_with = "value::list::<name::CallAudience, _>")]
    #[schemars(with = "Vec<As<name::CallAudience>>")]
    pub audiences: Vec<String>,
    /// Whose token: a name of `aws.roles`, or an ARN; that of the base credentials where absent.
    pub role: Option<RoleRef>,
    /// How long it lives, 1 min to 1 h; never longer than the role's session.
    #[serde(default = "defaults::web_identity_ttl")]
    pub duration: Span,
    /// What it is signed with.
    #[serde(default)]
    pub algorithm: WebIdentityAlgorithm,
    /// Whose STS gives it; the agent's region where absent.
    #[serde(default, deserialize_with = "value::option::<name::Region, _>")]
    #[schemars(with = "Option<As<name::Region>>")]
    pub region: Option<String>,
}

/// What a token of `sts:GetWebIdentityToken` is signed with.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub enum WebIdentityAlgorithm {
    /// The one that an ALB takes.
    #[default]
    #[serde(rename = "RS256")]
    Rs256,
    /// Shorter tokens.
    #[serde(rename = "ES384")]
    Es384,
}

impl WebIdentityAlgorithm {
    /// Its name in a token's header (RFC 7518 §3.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es384 => "ES384",
        }
    }
}

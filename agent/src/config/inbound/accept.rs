//! Ways for a caller to prove itself.

use schemars::JsonSchema;
use serde::Deserialize;
use warifu::TrustDomain;

use crate::config::value::{self, As, name};

/// One way to prove oneself.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Accept {
    /// `{mtls: {trust_domains: [...]}}`: an X.509-SVID of one of these trust domains.
    Mtls {
        /// The agent's own, and others that its authority federates with.
        #[serde(deserialize_with = "value::list::<name::Domain, _>")]
        #[schemars(with = "Vec<As<name::Domain>>")]
        trust_domains: Vec<TrustDomain>,
    },
    /// `{jwt: {profile: jwt-svid, audiences: [...]}}`: a bearer token.
    Jwt(JwtAccept),
}

impl Accept {
    /// What rules call it, where it proves a subject.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Mtls { .. } => None,
            Self::Jwt(_) => Some("jwt-svid"),
        }
    }

    /// Whether it may prove an AWS role.
    pub fn proves_roles(&self) -> bool {
        match self {
            Self::Mtls { .. } | Self::Jwt(_) => false,
        }
    }
}

/// A bearer token by issuer profile.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtAccept {
    /// Which kind of token.
    pub profile: JwtProfile,
    /// Audiences that mean us.
    #[serde(deserialize_with = "value::list::<name::Audience, _>")]
    #[schemars(with = "Vec<As<name::Audience>>")]
    pub audiences: Vec<String>,
    /// Whose tokens; those of the agent's own trust domain where empty.
    #[serde(default, deserialize_with = "value::list::<name::Domain, _>")]
    #[schemars(with = "Vec<As<name::Domain>>")]
    pub trust_domains: Vec<TrustDomain>,
}

/// Kinds of bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum JwtProfile {
    /// `jwt-svid`, verified with the trust domain's bundle.
    JwtSvid,
}

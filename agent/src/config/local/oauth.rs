//! `local.oauth`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Clients;
use crate::config::value::{self, As, Listen, SecretFile, name};

/// An OAuth 2.0 token endpoint: access tokens of the authority for programs that know OAuth alone.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oauth {
    /// A unix socket, or a loopback address with `client`.
    pub listen: Listen,
    /// Which processes may ask, on a unix socket.
    #[serde(default)]
    pub clients: Clients,
    /// What a client must present on a loopback address.
    pub client: Option<OauthClient>,
    /// Audiences it may ask for; the first, where it names none.
    #[serde(deserialize_with = "value::list::<name::Audience, _>")]
    #[schemars(with = "Vec<As<name::Audience>>")]
    pub audiences: Vec<String>,
    /// Scopes it may ask for; all that the authority's rule grants, where empty.
    #[serde(default, deserialize_with = "value::list::<name::Scope, _>")]
    #[schemars(with = "Vec<As<name::Scope>>")]
    pub scopes: Vec<String>,
}

/// Client credentials (RFC 6749 §2.3.1).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OauthClient {
    /// `client_id`.
    pub id: String,
    /// `client_secret`: 32 bytes or more, chosen at random.
    pub secret: SecretFile,
}

//! `access_token` of a route.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{self, As, name};

/// An access token (RFC 9068) of the authority on a route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteAccessToken {
    /// Its only audience.
    #[serde(deserialize_with = "value::one::<name::Audience, _>")]
    #[schemars(with = "As<name::Audience>")]
    pub audience: String,
    /// Scopes, of those that the authority's rule grants; all of them where empty.
    #[serde(default, deserialize_with = "value::list::<name::Scope, _>")]
    #[schemars(with = "Vec<As<name::Scope>>")]
    pub scopes: Vec<String>,
}

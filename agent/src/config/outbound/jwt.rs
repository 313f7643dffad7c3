//! `jwt` of a route.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{self, As, name};

/// A JWT-SVID on a route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteJwt {
    /// Its only audience.
    #[serde(deserialize_with = "value::one::<name::Audience, _>")]
    #[schemars(with = "As<name::Audience>")]
    pub audience: String,
}

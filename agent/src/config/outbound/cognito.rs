//! `cognito` of a route.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{self, As, SecretRef, name};

/// A user pool's API: SECRET_HASH is added, so that no app holds the client's secret.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteCognito {
    /// The only app client that requests may name.
    #[serde(deserialize_with = "value::one::<name::ClientId, _>")]
    #[schemars(with = "As<name::ClientId>")]
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretRef,
}

//! `secret_header` of a route.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{self, As, SecretRef, name};

/// A secret in a header of its own on a route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSecretHeader {
    /// The header, such as `x-custom-auth`. What the app says there is removed.
    #[serde(deserialize_with = "value::one::<name::Header, _>")]
    #[schemars(with = "As<name::Header>")]
    pub name: http::HeaderName,
    /// Its value.
    pub value: SecretRef,
}

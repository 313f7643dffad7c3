//! Rego, where rules don't reach.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    defaults,
    value::{self, As, Span, name},
};

/// A policy in Rego. It is asked where no rule of `allow` and `deny` decides, and allows what its query is `true` of.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rego {
    /// Its files, in Rego v1. The agent looks at them as it does at its own file, and compiles them anew when they change.
    #[serde(deserialize_with = "value::list::<name::AbsolutePath, _>")]
    #[schemars(with = "Vec<As<name::AbsolutePath>>")]
    pub files: Vec<PathBuf>,
    /// The rule that is `true` of a request that may pass.
    #[serde(
        default = "defaults::rego_query",
        deserialize_with = "value::one::<name::RegoRule, _>"
    )]
    #[schemars(with = "As<name::RegoRule>")]
    pub query: String,
    /// How long an answer may take before the request is refused.
    #[serde(default = "defaults::rego_timeout")]
    pub timeout: Span,
}

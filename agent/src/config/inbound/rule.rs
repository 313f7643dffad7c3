//! Rules: who may call what.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{self, As, IdPattern, Target, name};

/// A rule that allows. All parts that are present must hold.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// The TLS peer's SPIFFE ID.
    pub peer: Option<IdPattern>,
    /// What a token must say.
    pub subject: Option<SubjectMatch>,
    /// What may be asked.
    pub to: Vec<Target>,
}

/// What a token must say.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubjectMatch {
    /// `sub`, a SPIFFE ID (jwt-svid).
    pub spiffe_id: Option<IdPattern>,
    /// A scope it must have.
    #[serde(default, deserialize_with = "value::option::<name::Scope, _>")]
    #[schemars(with = "Option<As<name::Scope>>")]
    pub scope: Option<String>,
}

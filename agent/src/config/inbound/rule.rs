//! Rules: who may call what.

use std::collections::BTreeMap;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::When;
use crate::config::value::{self, AnyOf, As, Cidr, IdPattern, RolePattern, Target, name};

/// A rule, of `allow` or of `deny`. All parts that are present must hold.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What the audit log calls it; by its place (`allow[0]`) where absent.
    #[serde(default, deserialize_with = "value::option::<name::RuleName, _>")]
    #[schemars(with = "Option<As<name::RuleName>>")]
    pub name: Option<String>,
    /// The TLS peer's SPIFFE ID.
    pub peer: Option<IdPattern>,
    /// What a token, or another proof inside the request, must say.
    pub subject: Option<SubjectMatch>,
    /// What is asked, any of these; `deny` may leave it out, and then means everything.
    #[serde(default)]
    pub to: Vec<Target>,
    /// Where from, any of these.
    #[serde(default)]
    pub source: Vec<Cidr>,
    /// Headers, by name, and which values each may have.
    #[serde(default, deserialize_with = "header_map")]
    #[schemars(with = "BTreeMap<String, Vec<String>>")]
    pub headers: Vec<(HeaderName, Vec<String>)>,
    /// At what time.
    pub when: Option<When>,
    /// Decide nothing; say in the audit log and in a metric what the rule would have done.
    #[serde(default)]
    pub shadow: bool,
}

/// What a token, or another proof inside the request, must say.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubjectMatch {
    /// Which entry of `accept` proved it, by its name.
    pub issuer: Option<String>,
    /// `sub`, a SPIFFE ID (jwt-svid).
    pub spiffe_id: Option<IdPattern>,
    /// The AWS role.
    pub role: Option<RolePattern>,
    /// A scope it must have.
    #[serde(default, deserialize_with = "value::option::<name::Scope, _>")]
    #[schemars(with = "Option<As<name::Scope>>")]
    pub scope: Option<String>,
    /// Claims, by name, and what each must be, or contain where it is a list.
    #[serde(default)]
    pub claims: BTreeMap<String, AnyOf>,
}

/// A mapping whose keys are names of headers.
pub(in crate::config) fn header_map<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(HeaderName, Vec<String>)>, D::Error> {
    let headers = BTreeMap::<String, Vec<String>>::deserialize(deserializer)?;
    let mut read = Vec::<(HeaderName, Vec<String>)>::new();
    for (name, values) in headers {
        let name = value::read::<name::Header>(&name).map_err(serde::de::Error::custom)?;
        if read.iter().any(|(other, _)| *other == name) {
            let twice =
                format!("the header {name} is given twice; give it once, with all its values");
            return Err(serde::de::Error::custom(twice));
        }
        read.push((name, values));
    }
    Ok(read)
}

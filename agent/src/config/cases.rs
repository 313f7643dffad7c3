//! A file of `warifu policy test`: made-up requests, and what is expected of each.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use warifu::SpiffeId;

use super::{
    ConfigErrors,
    inbound::header_map,
    parse, read_file,
    validate::{self, Problem},
    value::{self, As, Moment, ProvedRole, name},
};

/// Cases for the rules of one listener.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// The agent's configuration; beside this file where the path is not absolute.
    pub config: Option<String>,
    /// Which listener of it: its place from 0, or its address; the only one where absent.
    pub listener: Option<String>,
    /// The cases.
    pub cases: Vec<Case>,
}

/// A made-up request, and what is expected.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Whom the connection proves.
    #[serde(default, deserialize_with = "value::option::<name::Id, _>")]
    #[schemars(with = "Option<As<name::Id>>")]
    pub peer: Option<SpiffeId>,
    /// Whom a token, or another proof inside the request, proves.
    pub subject: Option<CaseSubject>,
    /// Method and path, such as `GET /charges/1`.
    pub request: String,
    /// Headers, by name, with a value for each line.
    #[serde(default, deserialize_with = "header_map")]
    #[schemars(with = "BTreeMap<String, Vec<String>>")]
    pub headers: Vec<(HeaderName, Vec<String>)>,
    /// Where it comes from; not known where absent.
    pub source: Option<IpAddr>,
    /// When; now where absent.
    pub at: Option<Moment>,
    /// What is expected.
    pub expect: Expect,
    /// By which rule; any where absent.
    pub by: Option<String>,
}

/// Whom a proof inside the request proves.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseSubject {
    /// Which entry of `accept` proves it; where absent, the only one that proves a subject.
    pub issuer: Option<String>,
    /// A SPIFFE ID, proved by a JWT-SVID.
    #[serde(default, deserialize_with = "value::option::<name::Id, _>")]
    #[schemars(with = "Option<As<name::Id>>")]
    pub spiffe_id: Option<SpiffeId>,
    /// An AWS role.
    pub role: Option<ProvedRole>,
    /// Scopes it has.
    #[serde(default, deserialize_with = "value::list::<name::Scope, _>")]
    #[schemars(with = "Vec<As<name::Scope>>")]
    pub scopes: Vec<String>,
    /// Claims it has.
    #[serde(default)]
    pub claims: Map<String, Value>,
}

/// What is expected of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// It is forwarded.
    Allow,
    /// It is answered 403.
    Deny,
}

/// Reads a file of cases.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Cases, ConfigErrors> {
    let (file, text) = read_file(path)?;
    parse(&text, &file, check)
}

fn check(cases: &Cases) -> Vec<Problem> {
    let mut problems = validate::Problems::default();
    let at = validate::root().key("cases");
    problems.add_if(
        cases.cases.is_empty(),
        at.clone(),
        "expected at least one case: none would be tested",
    );
    for (index, case) in cases.cases.iter().enumerate() {
        let at = at.index(index);
        problems.add_if(
            case.split().is_none(),
            at.key("request"),
            format!(
                "expected a method and a path such as \"GET /charges/1\", found {:?}",
                value::shortened(&case.request)
            ),
        );
        let subject = case.subject.as_ref();
        problems.add_if(
            subject.is_some_and(|it| it.spiffe_id.is_some() && it.role.is_some()),
            at.key("subject"),
            "expected spiffe_id or role: no proof is of both",
        );
    }
    problems.0
}

impl Case {
    /// Method and path.
    pub fn split(&self) -> Option<(&str, &str)> {
        let (method, path) = self.request.split_once(' ')?;
        (!method.is_empty() && path.starts_with('/')).then_some((method, path))
    }
}

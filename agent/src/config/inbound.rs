//! `inbound:` of the agent's file.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    defaults,
    outbound::{Protocol, Timeouts},
    value::{self, As, Forward, Listen, Span, name},
};

mod accept;
mod ext_authz;
mod limits;
mod rule;
mod when;

pub use accept::{Accept, JwtAccept, JwtProfile};
pub use ext_authz::ExtAuthz;
pub use limits::{Limits, PerCaller, Rate};
pub(in crate::config) use rule::header_map;
pub use rule::{Rule, SubjectMatch};
pub use when::{Day, When};

/// A listener for calls to the app.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    /// Where callers connect.
    pub listen: Listen,
    /// The app. This or `ext_authz` is required.
    pub forward: Option<Forward>,
    /// No app: Envoy asks here what it may let pass.
    pub ext_authz: Option<ExtAuthz>,
    /// Which HTTP the app speaks.
    #[serde(default)]
    pub app_protocol: Protocol,
    /// What a request may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How a caller may prove itself; at least one.
    pub accept: Vec<Accept>,
    /// Who may call what; nobody where empty.
    #[serde(default)]
    pub allow: Vec<Rule>,
    /// Who may not, whatever `allow` says.
    #[serde(default)]
    pub deny: Vec<Rule>,
    /// How many proxies in front of this listener add to `x-forwarded-for`: `source` is then about the address that
    /// the first of them saw, counted from the right. With none it is about who connects.
    #[serde(default)]
    pub trusted_hops: usize,
    /// Claims put into headers: claim → header name.
    #[serde(default, deserialize_with = "value::map::<name::Header, _>")]
    #[schemars(with = "BTreeMap<String, As<name::Header>>")]
    pub forward_claims: BTreeMap<String, http::HeaderName>,
    /// Sign the caller for apps that are reached over TCP.
    pub context: Option<Context>,
    /// Oldest age of a connection before it is closed in favour of a new handshake.
    #[serde(default = "defaults::max_connection_age")]
    pub max_connection_age: Span,
    /// How much is served.
    #[serde(default)]
    pub limits: Limits,
    /// Connections at once.
    #[serde(default = "defaults::max_connections")]
    pub max_connections: usize,
}

/// The signed context ([`warifu::caller::context`]).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Where the agent writes its public context key (JWK set) at start.
    #[serde(deserialize_with = "value::one::<name::AbsolutePath, _>")]
    #[schemars(with = "As<name::AbsolutePath>")]
    pub key_file: PathBuf,
}

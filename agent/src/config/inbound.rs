//! `inbound:` of the agent's file.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    defaults,
    outbound::{Protocol, Timeouts},
    value::{self, As, Forward, Listen, Moment, Span, name},
};

mod accept;
mod client_cert_headers;
mod ext_authz;
mod limits;
mod rego;
mod rule;
mod tls;
mod when;

pub use accept::{
    Accept, BoundCertificate, Issuer, JwtAccept, JwtProfile, LoadBalancer, SecretHeaderAccept,
    WebIdentityAccept,
};
pub use client_cert_headers::ClientCertHeader;
pub use ext_authz::ExtAuthz;
pub use limits::{Limits, PerCaller, Rate};
pub use rego::Rego;
pub(in crate::config) use rule::header_map;
pub use rule::{Rule, SubjectMatch};
pub use tls::{CertificateFiles, ClientCert, InboundTls, Presents};
pub use when::{Day, When};

/// A listener for calls to the app.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    /// Where callers connect.
    pub listen: Listen,
    /// What callers are shown, and asked for.
    pub tls: Option<InboundTls>,
    /// The app. This or `ext_authz` is required.
    pub forward: Option<Forward>,
    /// What the app is told of each connection, where it speaks no HTTP (`tcp://`); nothing where absent.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// No app: Envoy asks here what it may let pass.
    pub ext_authz: Option<ExtAuthz>,
    /// Not ready while the port of `forward` is open on another address than loopback: the app could be reached around
    /// the agent. Off where that port is another program's.
    #[serde(default = "yes")]
    pub app_port_check: bool,
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
    /// A policy in Rego, asked where no rule decides.
    pub rego: Option<Rego>,
    /// How many proxies in front of this listener add to `x-forwarded-for`: `source` is then about the address that
    /// the first of them saw, counted from the right. With none it is about who connects.
    #[serde(default)]
    pub trusted_hops: usize,
    /// Claims put into headers: claim → header name.
    #[serde(default, deserialize_with = "value::map::<name::Header, _>")]
    #[schemars(with = "BTreeMap<String, As<name::Header>>")]
    pub forward_claims: BTreeMap<String, http::HeaderName>,
    /// The headers that say which certificate the caller presented, where it did; none where empty.
    #[serde(default = "client_cert_headers::default")]
    pub client_cert_headers: Vec<ClientCertHeader>,
    /// Let pass, for now, what would be refused.
    pub permissive: Option<Permissive>,
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

/// The PROXY protocol: what comes before the first byte of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    /// Version 2, with the caller's addresses, its TLS and its SPIFFE ID.
    V2,
}

/// Refusals are written down and don't happen, until a moment that is near: for services whose callers don't prove
/// themselves yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Permissive {
    /// From then on refusals happen.
    pub until: Moment,
}

/// The signed context ([`warifu::caller::context`]).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Where the agent writes its public context key (JWK set) at start.
    #[serde(deserialize_with = "value::one::<name::AbsolutePath, _>")]
    #[schemars(with = "As<name::AbsolutePath>")]
    pub key_file: PathBuf,
}

impl Inbound {
    /// Whether connections are carried as bytes: the app speaks no HTTP.
    pub fn is_opaque(&self) -> bool {
        matches!(self.forward, Some(Forward::Opaque(_)))
    }

    /// Whether callers are asked for an X.509-SVID.
    pub fn client_cert(&self) -> ClientCert {
        let said = self.tls.as_ref().and_then(|tls| tls.client_cert);
        let mtls = |accept: &Accept| matches!(accept, Accept::Mtls { .. });
        said.unwrap_or_else(|| match self.accept.iter().any(mtls) {
            true => ClientCert::Required,
            false => ClientCert::None,
        })
    }
}

fn yes() -> bool {
    true
}

//! `authority.yaml`.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use warifu::TrustDomain;

use super::{
    aws::Aws,
    defaults,
    value::{self, As, DnsTemplate, Glob, IdTemplate, Listen, Span, name},
};

mod attestor;
mod ca;
pub mod facts;
mod publish;

pub use attestor::{
    Attestor, CallerIdentityAttestor, KubernetesAttestor, OidcAttestor, TokenReview,
    WebIdentityAttestor,
};
pub use ca::{Ca, CaKey, PcaMode, Sealing};
pub use publish::{
    Federated, FederationProfile, TokenAlgorithm, TokenIssuer, Tokens, Web, WebTls, issuer_path,
};

/// The authority's configuration file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorityConfig {
    /// The trust domain it issues for.
    #[serde(deserialize_with = "value::one::<name::Domain, _>")]
    #[schemars(with = "As<name::Domain>")]
    pub trust_domain: TrustDomain,
    /// Where agents connect.
    #[serde(deserialize_with = "value::one::<name::TcpAddress, _>")]
    #[schemars(with = "As<name::TcpAddress>")]
    pub listen: std::net::SocketAddr,
    /// The administration socket.
    pub admin: Listen,
    /// Where the keys live and how long they last.
    pub ca: Ca,
    /// Attestors by name.
    pub attestors: BTreeMap<String, Attestor>,
    /// First match wins; facts belong to the attestor that proved them.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Who may administer without being on the authority's machine; nobody where empty.
    #[serde(default)]
    pub administrators: Vec<Administrator>,
    /// What replicas agree on, single use, revocation.
    pub state: State,
    /// How many of this authority run at once. More than one need `state: {dynamodb: …}`.
    #[serde(default = "defaults::replicas")]
    pub replicas: u32,
    /// AWS settings: for a key or state in AWS, and for verifying callers through STS.
    #[serde(default)]
    pub aws: Aws,
    /// The tokens it mints.
    #[serde(default)]
    pub tokens: Tokens,
    /// The bundle, OIDC discovery and keys for the world, over HTTPS with a certificate of the Web PKI.
    pub web: Option<Web>,
    /// Other trust domains whose bundles agents are given.
    #[serde(default)]
    pub federation: Vec<Federated>,
    /// How long an attestation record may renew an identity.
    #[serde(default = "defaults::max_attestation_age")]
    pub max_attestation_age: Span,
    /// Attestations a second that each account (AWS), namespace (Kubernetes) or subject (OIDC) is granted by
    /// one replica; twenty times as many at once.
    #[serde(default = "defaults::attestations_per_second")]
    pub attestations_per_second: u32,
    /// `spiffe_refresh_hint` of the bundle: how often agents ask again.
    #[serde(default = "defaults::bundle_refresh_hint")]
    pub bundle_refresh_hint: Span,
    /// DNS names (beside the SPIFFE ID) in the authority's own certificate.
    #[serde(default, deserialize_with = "value::list::<name::DnsName, _>")]
    #[schemars(with = "Vec<As<name::DnsName>>")]
    pub dns_names: Vec<String>,
    /// `/healthz`, `/readyz`, `/metrics`.
    pub probes: Option<Listen>,
    /// Audit log; standard output where absent.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    pub audit_file: Option<PathBuf>,
}

/// Facts to identity.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whose facts.
    pub attestor: String,
    /// Fact → glob (`*` any characters); all must match.
    pub r#match: BTreeMap<String, Glob>,
    /// The SPIFFE ID's path, with `{fact}` templates. Of a workload with several identities this is the first: the
    /// default one.
    pub id: IdTemplate,
    /// Further identities of the same workload. They live as long as the first, and on the same private key.
    #[serde(default)]
    pub also: Vec<Also>,
    /// Life of an X.509-SVID.
    #[serde(default = "defaults::svid_ttl")]
    pub ttl: Span,
    /// Life of a JWT-SVID.
    #[serde(default = "defaults::jwt_ttl")]
    pub jwt_ttl: Span,
    /// DNS SANs, with `{fact}` templates.
    #[serde(default)]
    pub dns: Vec<DnsTemplate>,
    /// Audiences a JWT-SVID may name: exact, or `*`.
    #[serde(default, deserialize_with = "value::list::<name::Audience, _>")]
    #[schemars(with = "Vec<As<name::Audience>>")]
    pub audiences: Vec<String>,
    /// Scopes a token may carry.
    #[serde(default, deserialize_with = "value::list::<name::Scope, _>")]
    #[schemars(with = "Vec<As<name::Scope>>")]
    pub scopes: Vec<String>,
    /// This SPIFFE ID is meant for more than one account, cluster or namespace. Without it, a template
    /// that could give two of them one ID is refused.
    #[serde(default)]
    pub shared: bool,
}

/// A further identity.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Also {
    /// The SPIFFE ID's path, with `{fact}` templates.
    pub id: IdTemplate,
    /// Tells the workload what this identity is for (`hint` of the Workload API): 1 to 1024 bytes, and no other
    /// identity of the rule has it.
    pub hint: Option<String>,
    /// DNS SANs, with `{fact}` templates.
    #[serde(default)]
    pub dns: Vec<DnsTemplate>,
    /// Audiences a JWT-SVID of this identity may name: exact, or `*`.
    #[serde(default, deserialize_with = "value::list::<name::Audience, _>")]
    #[schemars(with = "Vec<As<name::Audience>>")]
    pub audiences: Vec<String>,
    /// Scopes a JWT-SVID of this identity carries.
    #[serde(default, deserialize_with = "value::list::<name::Scope, _>")]
    #[schemars(with = "Vec<As<name::Scope>>")]
    pub scopes: Vec<String>,
}

impl Rule {
    /// The templates of all its identities: of the first, and of those of `also`, which are counted from 0.
    pub fn templates(
        &self,
    ) -> impl Iterator<Item = (Option<usize>, &IdTemplate, &[DnsTemplate])> + Clone {
        let also = self.also.iter().enumerate();
        let also = also.map(|(number, it)| (Some(number), &it.id, it.dns.as_slice()));
        std::iter::once((None, &self.id, self.dns.as_slice())).chain(also)
    }
}

/// Who may administer from afar, by what an attestor proved.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Administrator {
    /// Whose facts.
    pub attestor: String,
    /// Fact → glob (`*` any characters); all must match.
    pub r#match: BTreeMap<String, Glob>,
    /// What they may do.
    pub may: Vec<AdminAction>,
}

/// An act of administration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AdminAction {
    /// Make join tokens.
    JoinToken,
    /// Revoke, and take a revocation back.
    Revoke,
    /// Start a rotation.
    Rotate,
    /// Ask what the rules make of facts or evidence.
    Explain,
    /// Read the status.
    Status,
}

impl AdminAction {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::JoinToken => "join-token",
            Self::Revoke => "revoke",
            Self::Rotate => "rotate",
            Self::Explain => "explain",
            Self::Status => "status",
        }
    }
}

/// Where state lives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum State {
    /// In the process (memory CA only).
    Memory,
    /// `DIR/state.db` of the disk CA: one replica.
    Sqlite,
    /// `{dynamodb: {table: NAME}}`: any number of replicas.
    Dynamodb {
        /// The table. Its partition key is the string `pk`; no sort key.
        #[serde(deserialize_with = "value::one::<name::Table, _>")]
        #[schemars(with = "As<name::Table>")]
        table: String,
    },
}

macro_rules! described_as_written {
    ($kind:ty => $fields:ty) => {
        impl schemars::JsonSchema for $kind {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                <$fields>::schema_name()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <$fields>::json_schema(generator)
            }
        }
    };
}
use described_as_written;

//! `authority.yaml`.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use warifu::TrustDomain;

use super::{
    defaults,
    value::{self, As, Listen, Span, name},
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
    /// Single use and `ca_state`.
    pub state: State,
    /// How long an attestation record may renew an identity.
    #[serde(default = "defaults::max_attestation_age")]
    pub max_attestation_age: Span,
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

/// The certificate authority.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "CaFields")]
pub struct Ca {
    /// `disk` or `memory`.
    pub key: CaKey,
    /// A root's life.
    pub root_ttl: Span,
    /// A replica's intermediate's life: about twice the longest leaf.
    pub intermediate_ttl: Span,
    /// How long a new root is published before it signs.
    pub publish_ahead: Span,
}

/// Where private keys live.
#[derive(Debug, Clone)]
pub enum CaKey {
    /// `{key: memory}`: gone with the process.
    Memory,
    /// `{key: disk, path: DIR}`: a key-encryption key in DIR (0600); everything else is wrapped by it.
    Disk {
        /// The directory (0700).
        path: PathBuf,
    },
}

/// Where state lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum State {
    /// In the process (memory CA only).
    Memory,
    /// `DIR/state.db` of the disk CA.
    Sqlite,
}

/// How agents prove facts.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "AttestorFields")]
pub enum Attestor {
    /// `{kind: join-token}`.
    JoinToken,
}

/// Facts to identity.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whose facts.
    pub attestor: String,
    /// Fact → glob (`*` any characters); all must match.
    pub r#match: BTreeMap<String, String>,
    /// The SPIFFE ID's path, with `{fact}` templates.
    #[serde(deserialize_with = "value::one::<name::IdTemplate, _>")]
    #[schemars(with = "As<name::IdTemplate>")]
    pub id: String,
    /// Life of an X.509-SVID.
    #[serde(default = "defaults::svid_ttl")]
    pub ttl: Span,
    /// Life of a JWT-SVID.
    #[serde(default = "defaults::jwt_ttl")]
    pub jwt_ttl: Span,
    /// DNS SANs, with `{fact}` templates.
    #[serde(default, deserialize_with = "value::list::<name::DnsTemplate, _>")]
    #[schemars(with = "Vec<As<name::DnsTemplate>>")]
    pub dns: Vec<String>,
    /// Audiences a JWT-SVID may name: exact, or `*`.
    #[serde(default, deserialize_with = "value::list::<name::Audience, _>")]
    #[schemars(with = "Vec<As<name::Audience>>")]
    pub audiences: Vec<String>,
    /// Scopes a JWT-SVID carries.
    #[serde(default, deserialize_with = "value::list::<name::Scope, _>")]
    #[schemars(with = "Vec<As<name::Scope>>")]
    pub scopes: Vec<String>,
}

/// `ca`, as it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Ca")]
struct CaFields {
    /// Where private keys live: `memory` (gone with the process) or `disk` (with `path`).
    key: CaKeyKind,
    /// With `key: disk`: the directory of the keys (0700) and of `state.db`.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    path: Option<PathBuf>,
    /// A root's life.
    #[serde(default = "defaults::root_ttl")]
    root_ttl: Span,
    /// A replica's intermediate's life: about twice the longest leaf.
    #[serde(default = "defaults::intermediate_ttl")]
    intermediate_ttl: Span,
    /// How long a new root is published before it signs.
    #[serde(default = "defaults::publish_ahead")]
    publish_ahead: Span,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum CaKeyKind {
    Memory,
    Disk,
}

/// An attestor, as it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Attestor")]
struct AttestorFields {
    /// What an agent presents.
    kind: AttestorKind,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum AttestorKind {
    /// A single-use token made by `warifu authority join-token`.
    JoinToken,
}

impl TryFrom<CaFields> for Ca {
    type Error = &'static str;

    fn try_from(fields: CaFields) -> Result<Self, Self::Error> {
        let key = match (fields.key, fields.path) {
            (CaKeyKind::Memory, None) => CaKey::Memory,
            (CaKeyKind::Memory, Some(_)) => {
                return Err("with \"key: memory\" there is no path; remove it, or use key: disk");
            }
            (CaKeyKind::Disk, Some(path)) => CaKey::Disk { path },
            (CaKeyKind::Disk, None) => {
                return Err(
                    "with \"key: disk\" the key \"path\" is required, such as path: \
                            /var/lib/warifu",
                );
            }
        };
        Ok(Self {
            key,
            root_ttl: fields.root_ttl,
            intermediate_ttl: fields.intermediate_ttl,
            publish_ahead: fields.publish_ahead,
        })
    }
}

impl From<AttestorFields> for Attestor {
    fn from(fields: AttestorFields) -> Self {
        match fields.kind {
            AttestorKind::JoinToken => Self::JoinToken,
        }
    }
}

macro_rules! described_as_written {
    ($($kind:ty => $fields:ty),+ $(,)?) => {$(
        impl JsonSchema for $kind {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                <$fields>::schema_name()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <$fields>::json_schema(generator)
            }
        }
    )+};
}
described_as_written!(Ca => CaFields, Attestor => AttestorFields);

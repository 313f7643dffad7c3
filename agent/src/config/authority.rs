//! `authority.yaml`.

use std::{collections::BTreeMap, path::PathBuf};

use warifu::TrustDomain;

use super::value::{Listen, Span};

/// The authority's configuration file.
#[derive(Debug, Clone)]
pub struct AuthorityConfig {
    /// The trust domain it issues for.
    pub trust_domain: TrustDomain,
    /// Where agents connect.
    pub listen: std::net::SocketAddr,
    /// The administration socket.
    pub admin: Listen,
    /// Where the keys live and how long they last.
    pub ca: Ca,
    /// Attestors by name.
    pub attestors: BTreeMap<String, Attestor>,
    /// First match wins; facts belong to the attestor that proved them.
    pub rules: Vec<Rule>,
    /// Single use and `ca_state`.
    pub state: State,
    /// How long an attestation record may renew an identity.
    pub max_attestation_age: Span,
    /// `spiffe_refresh_hint` of the bundle: how often agents ask again.
    pub bundle_refresh_hint: Span,
    /// DNS names (beside the SPIFFE ID) in the authority's own certificate.
    pub dns_names: Vec<String>,
    /// `/healthz`, `/readyz`, `/metrics`.
    pub probes: Option<Listen>,
    /// Audit log; standard output where absent.
    pub audit_file: Option<PathBuf>,
}

/// The certificate authority.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In the process (memory CA only).
    Memory,
    /// `DIR/state.db` of the disk CA.
    Sqlite,
}

/// How agents prove facts.
#[derive(Debug, Clone)]
pub enum Attestor {
    /// `{kind: join-token}`.
    JoinToken,
}

/// Facts to identity.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Whose facts.
    pub attestor: String,
    /// Fact → glob (`*` any characters); all must match.
    pub r#match: BTreeMap<String, String>,
    /// The SPIFFE ID's path, with `{fact}` templates.
    pub id: String,
    /// Life of an X.509-SVID.
    pub ttl: Span,
    /// Life of a JWT-SVID.
    pub jwt_ttl: Span,
    /// DNS SANs, with `{fact}` templates.
    pub dns: Vec<String>,
    /// Audiences a JWT-SVID may name: exact, or `*`.
    pub audiences: Vec<String>,
    /// Scopes a JWT-SVID carries.
    pub scopes: Vec<String>,
}

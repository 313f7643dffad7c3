//! `agent.yaml`.

use std::{num::NonZeroU32, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use warifu::TrustDomain;

use super::{
    aws::Aws,
    defaults,
    inbound::Inbound,
    local::Local,
    outbound::Outbound,
    value::{self, As, HttpsOrigin, Listen, SecretFile, Span, SpkiPin, name},
};

/// The agent's configuration file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The trust domain this agent belongs to.
    #[serde(deserialize_with = "value::one::<name::Domain, _>")]
    #[schemars(with = "As<name::Domain>")]
    pub trust_domain: TrustDomain,
    /// Who issues its identity.
    pub authority: AuthorityRef,
    /// What it proves itself with.
    pub attestation: Attestation,
    /// Where the renewal key and attestation record survive a restart (0700); kept in memory when absent.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    pub state_dir: Option<PathBuf>,
    /// How old the revocation list may be, and what then.
    #[serde(default)]
    pub revocation: Revocation,
    /// Listeners for calls to the app.
    #[serde(default)]
    pub inbound: Vec<Inbound>,
    /// The listener for calls from the app.
    pub outbound: Option<Outbound>,
    /// What the app can ask for on this machine.
    #[serde(default)]
    pub local: Local,
    /// AWS settings shared by all that needs credentials of AWS.
    #[serde(default)]
    pub aws: Aws,
    /// Probes, metrics, status.
    #[serde(default)]
    pub admin: Admin,
    /// Audit log.
    #[serde(default)]
    pub audit: Audit,
    /// How long a drain waits for requests under way.
    #[serde(default = "defaults::drain")]
    pub drain: Span,
    /// Threads that carry requests: where absent, as many as there are processors, at most 4.
    #[serde(default = "defaults::workers")]
    #[schemars(transform = super::schema::without_default)]
    pub workers: usize,
}

/// How to reach the authority and know that it is the authority.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorityRef {
    /// Its URL. Its certificate must be `spiffe://TD/warifu/authority`.
    pub url: HttpsOrigin,
    /// Pins: SHA-256 of a root's SubjectPublicKeyInfo. This or `bundle` is required.
    #[serde(default)]
    pub root_spki_sha256: Vec<SpkiPin>,
    /// A PEM file of root certificates.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    pub bundle: Option<PathBuf>,
}

/// The authority's revocation list, as far as this agent can have it.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// How long the authority may be out of reach before the list counts as stale. The list is asked for
    /// three times as often at least.
    #[serde(default = "defaults::revocation_max_age")]
    pub max_age: Span,
    /// What a stale list leads to.
    #[serde(default)]
    pub when_stale: WhenStale,
}

impl Default for Revocation {
    fn default() -> Self {
        Self {
            max_age: defaults::revocation_max_age(),
            when_stale: WhenStale::default(),
        }
    }
}

/// What a stale revocation list leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum WhenStale {
    /// The last list stays in force.
    #[default]
    Serve,
    /// Nobody is believed: callers get 503, mTLS routes are not used, the agent is not ready.
    Refuse,
}

/// What the agent proves itself with.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Attestation {
    /// `{join-token: {token: "file:/…"}}`.
    JoinToken {
        /// The single-use token.
        token: SecretFile,
    },
    /// A token of `sts:GetWebIdentityToken`, for the role this process has.
    AwsWebIdentity,
    /// A signed request of `sts:GetCallerIdentity`, where the account has no outbound web identity.
    AwsCallerIdentity,
    /// `{kubernetes: {token_file: /…}}`.
    Kubernetes {
        /// A projected service-account token with the authority's audience; read anew each time.
        #[serde(deserialize_with = "value::one::<name::AbsolutePath, _>")]
        #[schemars(with = "As<name::AbsolutePath>")]
        token_file: PathBuf,
    },
    /// `{oidc: {token_file: /…}}`.
    Oidc {
        /// A token of the configured issuer; read anew each time.
        #[serde(deserialize_with = "value::one::<name::AbsolutePath, _>")]
        #[schemars(with = "As<name::AbsolutePath>")]
        token_file: PathBuf,
    },
}

/// Admin listeners.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Status and drain: a unix socket (or loopback).
    pub listen: Option<Listen>,
    /// `/healthz`, `/readyz`, `/metrics` only; may be exposed.
    pub probes: Option<Listen>,
}

/// The audit log.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Standard output where absent.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    pub file: Option<PathBuf>,
    /// Of requests that were allowed, one line in so many; every other request has its line. All where absent.
    pub allowed_one_in: Option<NonZeroU32>,
    /// Counts of decisions for CloudWatch, in the same place.
    pub emf: Option<Emf>,
}

impl Audit {
    /// Of requests that were allowed, one line in so many.
    pub fn one_in(&self) -> NonZeroU32 {
        self.allowed_one_in.unwrap_or(NonZeroU32::MIN)
    }
}

/// Counts in CloudWatch's embedded metric format.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Emf {
    /// The metrics' namespace.
    #[serde(default = "defaults::emf_namespace")]
    pub namespace: String,
    /// How often they are written.
    #[serde(default = "defaults::emf_every")]
    pub every: Span,
}

//! The agent's identity: obtain, renew, rotate, publish.
//!
//! ```text
//! evidence ─▶ attest ─▶ record ─▶ attest again ─▶ …         task: when, and what if not
//!                │         │            │
//!                │         └─▶ renew ───┤ while evidence can't be had (a join token: always)
//!                └─────────────┴────────┴─▶ publisher ─▶ Current   (immutable snapshots)
//! ```
//!
//! [`start`] never fails because the authority is away: the identity becomes available when it can
//! be had, the readiness condition says what is missing until then, and what was obtained is served
//! to its real expiry.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::sync::watch;
use warifu::{SpiffeId, TrustDomain, identity::Identity};

use crate::{
    attest::{AccessToken, AnchorError, Client, ClientError, MintedJwt},
    aws::Roles,
    config::{
        AgentConfig,
        agent::{Attestation, AuthorityRef, Revocation},
        private::PrivateError,
    },
    telemetry::ready::Condition,
};

mod access_keys;
mod clock;
mod csr;
mod evidence;
mod issued;
mod metrics;
mod publisher;
mod revocations;
pub mod rotation;
mod task;
mod vault;

pub use access_keys::AccessKeys;
pub use evidence::Gatherer;
pub use revocations::{Known, Revocations};

/// The current identity; `None` until the first one is issued. Every change is a new snapshot.
pub type Current = watch::Receiver<Option<Arc<Identity>>>;

/// What an identity is obtained with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The trust domain the agent belongs to.
    pub trust_domain: TrustDomain,
    /// Who issues.
    pub authority: AuthorityRef,
    /// What the agent proves itself with.
    pub attestation: Attestation,
    /// Whose credentials prove it, where the attestation is one of AWS's.
    pub aws: Option<Roles>,
    /// Where renewal key and attestation record survive a restart.
    pub state_dir: Option<PathBuf>,
    /// How old the revocation list may be, and what then.
    pub revocation: Revocation,
}

/// Without credentials of AWS's.
impl From<&AgentConfig> for Settings {
    fn from(config: &AgentConfig) -> Self {
        Self {
            trust_domain: config.trust_domain.clone(),
            authority: config.authority.clone(),
            attestation: config.attestation.clone(),
            aws: None,
            state_dir: config.state_dir.clone(),
            revocation: config.revocation,
        }
    }
}

/// Why there can be no identity at all: mistakes on this machine, found before anything is asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is nothing to know the authority by.
    #[error(transparent)]
    Anchors(#[from] AnchorError),
    /// `state_dir` can't be used.
    #[error("state_dir: {0}")]
    StateDir(#[from] PrivateError),
}

/// The running task's handle; cheap to clone. When the last one goes, renewing stops; what was
/// published stays.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<task::Shared>,
    revocations: Revocations,
    _tasks: Arc<Tasks>,
}

/// What `warifu status` tells of the identity.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// When the next renewal (or attempt) is due.
    pub next_attempt: Option<SystemTime>,
    /// Why the last attempt failed; `None` if it did not.
    pub last_error: Option<String>,
    /// Failures since the last success.
    pub failures: u32,
    /// Whether the last attempt failed because the authority decided that there is to be no identity.
    pub refused: bool,
    /// When the attestation record expires: from then on the agent must attest anew.
    pub attested_until: Option<SystemTime>,
    /// Why the last renewal was by the record, where evidence is presented usually; `None` if it was not.
    pub bridging: Option<String>,
}

#[derive(Debug)]
struct Tasks(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Starts obtaining and renewing, in tasks of the current runtime. `condition` is met while a valid
/// X.509-SVID and bundle are published.
///
/// # Errors
/// See [`StartError`]. An authority that is away is no error here.
pub fn start(
    settings: &Settings,
    condition: Condition,
    registry: &mut Registry,
) -> Result<(Current, Handle), StartError> {
    let client = Client::new(&settings.trust_domain, &settings.authority)?;
    let (vault, kept) = vault::Vault::open(settings.state_dir.as_deref(), &settings.trust_domain)?;
    let metrics = metrics::Metrics::new(registry);
    let (publisher, current) = publisher::Publisher::new(condition, metrics.clone());
    let revocations = Revocations::new(settings.revocation, metrics.clone());
    let shared = Arc::new(task::Shared::new(client, kept.renewal_key));
    let tasks = vec![
        tokio::spawn(publisher::withdraw_expired(publisher.clone())),
        tokio::spawn(revocations::watch_age(revocations.clone())),
        tokio::spawn(
            task::Task::new(
                settings,
                Arc::clone(&shared),
                publisher,
                revocations.clone(),
                vault,
                kept.attested,
                metrics,
            )
            .run(),
        ),
    ];
    let handle = Handle {
        shared,
        revocations,
        _tasks: Arc::new(Tasks(tasks)),
    };
    Ok((current, handle))
}

impl Handle {
    /// A fresh JWT-SVID for exactly `audiences`, from the authority; of the identity `spiffe_id`, or of the first.
    ///
    /// # Errors
    /// See [`ClientError`]; also before the first attestation succeeded.
    pub async fn mint_jwt(
        &self,
        audiences: &[String],
        spiffe_id: Option<&SpiffeId>,
    ) -> Result<MintedJwt, ClientError> {
        self.shared.mint_jwt(audiences, spiffe_id).await
    }

    /// A fresh access token for `audience`, with `scopes`, or all that the rule grants where there are none.
    ///
    /// # Errors
    /// As [`mint_jwt`](Self::mint_jwt).
    pub async fn mint_access_token(
        &self,
        audience: &str,
        scopes: &[String],
    ) -> Result<AccessToken, ClientError> {
        self.shared.mint_access_token(audience, scopes).await
    }

    /// What is revoked, now and from now on.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// What verifies the authority's access tokens, now and from now on.
    pub fn access_keys(&self) -> &AccessKeys {
        self.shared.access_keys()
    }

    /// From now on `condition` is met while the revocation list is young enough.
    pub fn tell_age_of_revocations(&self, condition: Condition) {
        self.revocations.tell(condition);
    }

    /// Renews now, whatever the schedule says.
    pub fn renew_now(&self) {
        self.shared.renew_now();
    }

    /// How renewing goes.
    pub fn status(&self) -> Status {
        self.shared.status().borrow().clone()
    }

    /// How renewing goes, from now on.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.shared.status()
    }
}

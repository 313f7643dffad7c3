//! Revocation: the list every replica follows, issues by, and publishes.
//!
//! ```text
//! administrator ─▶ change ─ compare-and-swap ─▶ store ─▶ follow (every replica) ─▶ Revoked
//!                                                          issuing refuses ◀────────┤
//!                                                          GET /v1/revocations ◀────┘ (a JWS)
//! ```
//!
//! Without the store nothing can be revoked or taken back; the list as it was last known stays in force.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    ca,
    denied::Denied,
    issue::Issuing,
    live::Live,
    metrics::Metrics,
    publish::Page,
    state::{Document as Stored, Store, StoreError},
};
use crate::{
    attest::wire::ErrorCode,
    revocation::{Kind, List, Provenance, hex},
};

mod document;

pub use document::{Change, Entry, ListError};

use document::Document;

/// Attempts to change the list: replicas collide only when two administrators act in the same moment.
const ATTEMPTS: usize = 8;

/// How long ago a replica may have looked at the store and still say "not modified". Several rounds of
/// maintenance; a replica cut off from the store hands the list out with the time when it last knew.
const CONFIRMED: Duration = Duration::from_secs(60);

/// What a replica knows of the list; immutable, a change makes a new one.
#[derive(Debug)]
pub(super) struct Revoked {
    document: Document,
    pub(super) list: List,
    /// The signed list.
    pub(super) page: Page,
    /// When the store last said that this is the list.
    confirmed_at: SystemTime,
}

/// What an administrator is told of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The list's number from now on.
    pub number: u64,
    /// The entry that was made, or taken back.
    pub entry: Entry,
    /// What to do, where the change alone is not enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// What is revoked, for administrators: with times and reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    /// Counts up with every change; 0: nothing was ever revoked.
    pub number: u64,
    /// When this replica last knew that this is the list, Unix seconds.
    pub as_of: u64,
    /// What is revoked.
    pub entries: Vec<Entry>,
}

/// Why the list could not be loaded or changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change, or the list.
    #[error(transparent)]
    List(#[from] ListError),
    /// Others kept changing it.
    #[error("the revocation list changed {ATTEMPTS} times while changing it; try again")]
    Contended,
}

impl RevokeError {
    /// Whether it may pass by itself.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Store(why) => why.is_outage(),
            Self::List(_) => false,
            Self::Contended => true,
        }
    }
}

/// Loads the list; there is none before the first revocation.
pub(super) async fn first(
    store: &dyn Store,
    live: &Live,
    metrics: &Metrics,
    now: SystemTime,
) -> Result<Revoked, RevokeError> {
    let document = match store.load(Stored::Revocations).await? {
        Some(found) => Document::parse(&found.document)?,
        None => Document::default(),
    };
    let revoked = Revoked::new(document, live, now);
    metrics.revoked(&revoked.list);
    Ok(revoked)
}

impl Revoked {
    fn new(document: Document, live: &Live, confirmed_at: SystemTime) -> Self {
        let published = document.published(confirmed_at);
        let jws = published.sign(&live.jwt_key, &live.bundle.trust_domain);
        Self {
            list: List::new(&published),
            page: Page::numbered(jws.into(), document.number),
            confirmed_at,
            document,
        }
    }

    /// Whether "not modified" can be said at `now`, and not only "this is what I knew then".
    pub(super) fn is_confirmed(&self, now: SystemTime) -> bool {
        let age = now.duration_since(self.confirmed_at);
        age.is_ok_and(|age| age <= CONFIRMED)
    }
}

impl Issuing {
    /// Revokes, or takes back. In force here when this returns, at other replicas when they look next.
    pub(super) async fn revoke(
        &self,
        change: &Change,
        now: SystemTime,
    ) -> Result<Changed, RevokeError> {
        let (entry, number) = self.try_change(Some(change), now).await?;
        let entry = entry.ok_or(RevokeError::Contended)?;
        let warning = self.warning(&entry, change.undo);
        Ok(Changed {
            number,
            entry,
            warning,
        })
    }

    /// What is revoked.
    pub(super) fn revocations(&self) -> Revocations {
        let revoked = self.revoked.load();
        Revocations {
            number: revoked.document.number,
            as_of: super::record::unix(revoked.confirmed_at),
            entries: revoked.document.entries.clone(),
        }
    }

    /// Follows the list of the store, and lets go of entries whose time is over.
    pub(super) async fn follow_revocations(&self, now: SystemTime) -> Result<(), RevokeError> {
        self.try_change(None, now).await.map(|_| ())
    }

    /// Refuses what is revoked: nothing more is issued for it.
    pub(super) fn refuse_revoked(&self, it: &Provenance) -> Result<(), Denied> {
        let revoked = self.revoked.load();
        match revoked.list.revokes(it) {
            None => Ok(()),
            Some(kind) => Err(Denied::new(
                ErrorCode::Revoked,
                format!(
                    "revoked by {kind} (list {}); `warifu authority revoke --list` says why, --undo takes it back",
                    revoked.list.number()
                ),
            )),
        }
    }

    /// Whether what this replica signs with is revoked: then it needs another intermediate.
    pub(super) fn is_own_issuer_revoked(&self, live: &Live) -> bool {
        let key = live.signer.certificate().map(ca::spki_sha256);
        key.and_then(Result::ok)
            .is_some_and(|key| self.revoked.load().list.revokes_issuer(&hex(&key)))
    }

    /// Changes the list by compare-and-swap, where there is something to change, and goes by it.
    async fn try_change(
        &self,
        change: Option<&Change>,
        now: SystemTime,
    ) -> Result<(Option<Entry>, u64), RevokeError> {
        for _ in 0..ATTEMPTS {
            let found = self.store.load(Stored::Revocations).await?;
            let version = found.as_ref().map(|found| found.version);
            let stored = match found {
                Some(found) => Document::parse(&found.document)?,
                None => Document::default(),
            };
            // The store was lost, or restored from before: what replicas know is put back.
            let known = self.revoked.load_full();
            let mut changed = stored.number < known.document.number;
            let mut document = match changed {
                true => known.document.clone(),
                false => stored,
            };
            let entry = match change {
                Some(change) => Some(document.apply(change, &self.settings, now)?),
                None => None,
            };
            changed |= document.sweep(now) | change.is_some();
            if changed {
                document.count_up(now);
                let bytes = document.to_bytes()?;
                let swapped = self
                    .store
                    .compare_and_swap(Stored::Revocations, version, bytes);
                if !swapped.await? {
                    continue;
                }
            }
            let number = document.number;
            self.go_by(Revoked::new(document, &self.live.load(), now));
            return Ok((entry, number));
        }
        Err(RevokeError::Contended)
    }

    /// From now on this list is in force, unless a newer one came meanwhile.
    fn go_by(&self, next: Revoked) {
        let next = Arc::new(next);
        let before =
            self.revoked.rcu(
                |current| match current.document.number > next.document.number {
                    true => Arc::clone(current),
                    false => Arc::clone(&next),
                },
            );
        self.metrics.revoked(&self.revoked.load().list);
        if before.document.number < next.document.number {
            tracing::info!(
                number = next.document.number,
                entries = next.document.entries.len(),
                "the revocation list changed"
            );
        }
    }

    /// What a change brings with it that the administrator may not expect.
    fn warning(&self, entry: &Entry, undo: bool) -> Option<String> {
        let live = self.live.load();
        let signs = [Some(&live.jwt_key), live.access_key.as_ref()]
            .into_iter()
            .flatten()
            .any(|key| key.public().kid() == entry.value);
        (!undo && entry.kind == Kind::IssuerKey && signs).then(|| {
            "this key still signs tokens, and all of them are refused now: `warifu authority rotate` replaces it"
                .to_owned()
        })
    }
}

impl From<RevokeError> for Denied {
    fn from(why: RevokeError) -> Self {
        match why {
            RevokeError::List(why @ (ListError::Damaged(_) | ListError::Newer(_))) => {
                Self::busy(why.to_string())
            }
            RevokeError::List(why) => Self::new(ErrorCode::BadRequest, why.to_string()),
            why => Self::busy(why.to_string()),
        }
    }
}

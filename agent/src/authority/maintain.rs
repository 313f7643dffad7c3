//! Keeping issuing able to issue: loading the document, rotating, renewing what is in memory.

use std::{sync::Arc, time::SystemTime};

use thiserror::Error;

use super::{
    ca_state::{By, CaState, CaStateError, Line},
    issue::Issuing,
    keyring::Keyring,
    keys::Kek,
    live::Live,
    revocation::RevokeError,
    rotation::Action,
    settings::Settings,
    state::{Document, Store, StoreError},
};

/// Attempts to change the document before leaving it to the next round: replicas collide rarely,
/// and whoever wins did the same work.
const ATTEMPTS: usize = 8;

/// Why the document could not be loaded or changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MaintainError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The document, or what is made of it.
    #[error(transparent)]
    State(#[from] CaStateError),
    /// The revocation list.
    #[error(transparent)]
    Revocations(#[from] RevokeError),
    /// Other replicas kept changing it.
    #[error("the CA's state changed {ATTEMPTS} times while changing it; trying again later")]
    Contended,
    /// An older one took its place.
    #[error(
        "the CA's state in the store is older than the one in use: it was restored from backup, or somebody put it back; if it was you, restart every replica"
    )]
    WentBack,
    /// Somebody removed it.
    #[error("the CA's state is gone from the store; restore it from backup")]
    Gone,
}

impl MaintainError {
    /// Whether it may pass by itself.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::State(why) => why.is_outage(),
            Self::Store(why) => why.is_outage(),
            Self::Revocations(why) => why.is_outage(),
            Self::Contended => true,
            Self::Gone | Self::WentBack => false,
        }
    }
}

/// Why no rotation was started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RotateError {
    /// One at a time.
    #[error(
        "a rotation of the {what} is under way: it will {next} at {at}; start another when it is over (`warifu authority status` shows it), as a second one now would publish a third {what}",
        at = crate::telemetry::timestamp::Timestamp(*at)
    )]
    UnderWay {
        /// Of what.
        what: &'static str,
        /// The next step.
        next: &'static str,
        /// When that is due.
        at: SystemTime,
    },
    /// See there.
    #[error(transparent)]
    Maintain(#[from] MaintainError),
}

/// Loads the document, or makes the first one.
pub(super) async fn first(
    store: &dyn Store,
    settings: &Settings,
    keyring: &Keyring,
    now: SystemTime,
) -> Result<Live, MaintainError> {
    for _ in 0..ATTEMPTS {
        let (version, mut state, mut changed) = match store.load(Document::CaState).await? {
            Some(found) => {
                let state = CaState::parse(&found.document, settings)?;
                (Some(found.version), state, false)
            }
            None => (None, CaState::new(settings, keyring, now).await?, true),
        };
        // Unwraps before it changes anything: a wrong key must not rotate the right one away.
        let kek = keyring.kek(&state).await.map_err(CaStateError::from)?;
        state.secrets(Line::ChallengeKeys, settings, &kek)?;
        if version.is_some() {
            state.check_seal(settings, &kek)?;
        }
        let by = By {
            settings,
            keyring,
            kek: &kek,
            now,
        };
        let done = state.advance(by).await?;
        changed |= !done.is_empty();
        if !changed
            || store
                .compare_and_swap(
                    Document::CaState,
                    version,
                    state.to_sealed_document(settings, &kek)?,
                )
                .await?
        {
            log(&done);
            let version = version.unwrap_or(0) + i64::from(changed);
            return Ok(Live::build(version, state, None, settings, keyring, now).await?);
        }
    }
    Err(MaintainError::Contended)
}

/// A change of the document, beside what is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Rotate,
}

impl Issuing {
    /// One round: follow the documents, do what is due in it, renew what is in memory.
    pub(super) async fn maintain(&self, now: SystemTime) -> Result<(), MaintainError> {
        // First: an intermediate that is revoked is replaced below.
        let followed = self.follow_revocations(now).await;
        let changed = self.change(Change::None, now).await;
        if changed.is_err() && self.live.load().is_stale(now) {
            // Without the store nothing rotates; issuing goes on with what is known.
            let live = self.live.load_full();
            self.go_live(live.version, live.state.clone(), now).await?;
        }
        if let Err(RotateError::Maintain(why)) = changed {
            return Err(why);
        }
        Ok(followed?)
    }

    /// Starts the rotation of the root and of the keys early.
    pub(super) async fn rotate(&self, now: SystemTime) -> Result<(), RotateError> {
        self.change(Change::Rotate, now).await
    }

    /// Changes the document by compare-and-swap, and goes live with it.
    async fn change(&self, change: Change, now: SystemTime) -> Result<(), RotateError> {
        for _ in 0..ATTEMPTS {
            let found = self.store.load(Document::CaState).await;
            let found = found.map_err(MaintainError::from)?;
            let found = found.ok_or(MaintainError::Gone)?;
            let mut state =
                CaState::parse(&found.document, &self.settings).map_err(MaintainError::from)?;
            let before = state.to_document().map_err(MaintainError::from)?;
            let (done, kek) = self.advance(&mut state, change, now).await?;
            let changed = before != state.to_document().map_err(MaintainError::from)?;
            let swapped = match changed {
                false => true,
                true => {
                    let sealed = state.to_sealed_document(&self.settings, &kek);
                    let sealed = sealed.map_err(MaintainError::from)?;
                    let swap =
                        self.store
                            .compare_and_swap(Document::CaState, Some(found.version), sealed);
                    swap.await.map_err(MaintainError::from)?
                }
            };
            if swapped {
                log(&done);
                self.go_live(found.version + i64::from(changed), state, now)
                    .await?;
                return Ok(());
            }
        }
        Err(MaintainError::Contended.into())
    }

    async fn advance(
        &self,
        state: &mut CaState,
        change: Change,
        now: SystemTime,
    ) -> Result<(Vec<(Line, Action)>, Arc<Kek>), RotateError> {
        let (settings, keyring) = (&self.settings, &self.keyring);
        let kek = async |state: &CaState| {
            let kek = keyring.kek(state).await.map_err(CaStateError::from);
            kek.map_err(MaintainError::from)
        };
        let opened = kek(state).await?;
        let seal = state.check_seal(settings, &opened);
        seal.map_err(MaintainError::from)?;
        if state.sequence < self.live.load().state.sequence {
            return Err(MaintainError::WentBack.into());
        }
        if change == Change::Rotate {
            let by = By {
                settings,
                keyring,
                kek: &opened,
                now,
            };
            let started = state.start_rotation(by).await;
            if let Err((action, at)) = started.map_err(MaintainError::from)? {
                return Err(RotateError::UnderWay {
                    what: Line::Roots.name(),
                    next: name(action),
                    at,
                });
            }
        }
        let kek = kek(state).await?;
        let by = By {
            settings,
            keyring,
            kek: &kek,
            now,
        };
        let done = state.advance(by).await.map_err(MaintainError::from)?;
        Ok((done, kek))
    }

    async fn go_live(
        &self,
        version: i64,
        state: CaState,
        now: SystemTime,
    ) -> Result<(), MaintainError> {
        let live = self.live.load_full();
        // An intermediate that is revoked while its replica runs was copied: this replica takes another.
        let is_revoked = self.is_own_issuer_revoked(&live);
        if live.version == version && !live.is_stale(now) && !is_revoked {
            return Ok(());
        }
        let (settings, keyring) = (&self.settings, &self.keyring);
        let previous = (!is_revoked).then_some(&*live);
        let mut next = Live::build(version, state, previous, settings, keyring, now).await?;
        let trouble = next.stale_because.take();
        self.metrics.live(&next);
        self.live.store(Arc::new(next));
        trouble.map_or(Ok(()), |why| Err(CaStateError::from(why).into()))
    }
}

fn log(done: &[(Line, Action)]) {
    for (line, action) in done {
        tracing::info!(what = line.name(), step = ?action, "CA rotation");
    }
}

/// For people.
pub(super) fn name(action: Action) -> &'static str {
    match action {
        Action::Prepare => "be prepared",
        Action::Activate => "be activated",
        Action::Retire => "be retired",
    }
}

//! Keeping issuing able to issue: loading the document, rotating, renewing what is in memory.

use std::{sync::Arc, time::SystemTime};

use thiserror::Error;

use super::{
    ca_state::{CaState, CaStateError, Line},
    issue::Issuing,
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
    /// Somebody removed it.
    #[error("the CA's state is gone from the store; restore it from backup")]
    Gone,
}

/// Why no rotation was started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RotateError {
    /// One at a time.
    #[error(
        "a rotation of the {what} is under way: it will {next} at {at}; a second one would publish a third",
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
    kek: &Kek,
    now: SystemTime,
) -> Result<Live, MaintainError> {
    for _ in 0..ATTEMPTS {
        let (version, mut state, mut changed) = match store.load(Document::CaState).await? {
            Some(found) => {
                let state = CaState::parse(&found.document, settings)?;
                (Some(found.version), state, false)
            }
            None => (None, CaState::new(settings, kek, now)?, true),
        };
        // Unwraps before it changes anything: a wrong key must not rotate the right one away.
        state.secrets(Line::ChallengeKeys, settings, kek)?;
        let done = state.advance(settings, kek, now)?;
        changed |= !done.is_empty();
        if !changed
            || store
                .compare_and_swap(Document::CaState, version, state.to_document()?)
                .await?
        {
            log(&done);
            let version = version.unwrap_or(0) + i64::from(changed);
            return Ok(Live::build(version, state, None, settings, kek, now)?);
        }
    }
    Err(MaintainError::Contended)
}

impl Issuing {
    /// One round: follow the documents, do what is due in it, renew what is in memory.
    pub(super) async fn maintain(&self, now: SystemTime) -> Result<(), MaintainError> {
        // First: an intermediate that is revoked is replaced below.
        let followed = self.follow_revocations(now).await;
        let changed: Result<(), MaintainError> = self.change(now, |_| Ok(())).await;
        if changed.is_err() && self.live.load().is_stale(now) {
            // Without the store nothing rotates; issuing goes on with what is known.
            let live = self.live.load_full();
            self.go_live(live.version, live.state.clone(), now)?;
        }
        changed?;
        Ok(followed?)
    }

    /// Starts the rotation of the root and of the keys early.
    pub(super) async fn rotate(&self, now: SystemTime) -> Result<(), RotateError> {
        self.change(now, |state: &mut CaState| {
            for line in Line::ALL {
                // A key's rotation under way is no reason to keep a root from rotating.
                let started = state.start_rotation(line, &self.settings, &self.kek, now);
                if let (Err((action, at)), Line::Roots) =
                    (started.map_err(MaintainError::from)?, line)
                {
                    return Err(RotateError::UnderWay {
                        what: line.name(),
                        next: name(action),
                        at,
                    });
                }
            }
            Ok(())
        })
        .await
    }

    /// Changes the document by compare-and-swap, and goes live with it.
    async fn change<E: From<MaintainError>>(
        &self,
        now: SystemTime,
        by: impl Fn(&mut CaState) -> Result<(), E>,
    ) -> Result<(), E> {
        for _ in 0..ATTEMPTS {
            let found = self.store.load(Document::CaState).await;
            let found = found.map_err(MaintainError::from)?;
            let found = found.ok_or(MaintainError::Gone)?;
            let mut state =
                CaState::parse(&found.document, &self.settings).map_err(MaintainError::from)?;
            let before = state.to_document().map_err(MaintainError::from)?;
            by(&mut state)?;
            let done = state
                .advance(&self.settings, &self.kek, now)
                .map_err(MaintainError::from)?;
            let after = state.to_document().map_err(MaintainError::from)?;
            let changed = before != after;
            let swapped = !changed
                || self
                    .store
                    .compare_and_swap(Document::CaState, Some(found.version), after)
                    .await
                    .map_err(MaintainError::from)?;
            if swapped {
                log(&done);
                self.go_live(found.version + i64::from(changed), state, now)?;
                return Ok(());
            }
        }
        Err(MaintainError::Contended.into())
    }

    fn go_live(&self, version: i64, state: CaState, now: SystemTime) -> Result<(), MaintainError> {
        let live = self.live.load_full();
        // An intermediate that is revoked while its replica runs was copied: this replica takes another.
        let is_revoked = self.is_own_issuer_revoked(&live);
        if live.version == version && !live.is_stale(now) && !is_revoked {
            return Ok(());
        }
        let previous = (!is_revoked).then_some(&*live);
        let next = Live::build(version, state, previous, &self.settings, &self.kek, now)?;
        self.metrics.live(&next);
        self.live.store(Arc::new(next));
        Ok(())
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

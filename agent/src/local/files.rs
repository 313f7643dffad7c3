//! Certificate, key and bundle as files, for programs that read nothing else (PostgreSQL, nginx).
//!
//! ```text
//! snapshot ─▶ write beside, one rename ─▶ signal or command ─▶ the set before goes
//!    ▲              └──────────┴─ failed: again, later, with what is current then
//! ```
//!
//! What is written stays, whatever becomes of the agent: also when the identity has expired. A program that finds an
//! expired certificate is refused by its peers, and says so; one that finds no file doesn't start, or ends at the next
//! reload, and neither helps anybody. It is reported instead.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::task::{JoinHandle, spawn_blocking};
use warifu::{SpiffeId, identity::Identity};

use crate::{
    config::local::{After, Files},
    http::server::Draining,
    identity,
    telemetry::timestamp::Timestamp,
};
use after::AfterError;
use metrics::Metrics;

mod after;
mod metrics;
mod set;

pub use set::{Content, Place, WriteError};

/// Between two attempts: a disk that is full for a moment is soon tried again, one that stays so costs nothing.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why files can't be what the configuration says.
#[derive(Debug, Error)]
#[error(
    "local.files[{index}]: giving files to {owner}: {why}; run the agent as that user (and in that group), give it \
     CAP_CHOWN, or remove uid and gid"
)]
pub struct OwnerError {
    index: usize,
    owner: String,
    why: io::Error,
}

/// The sets of files, kept fresh.
#[derive(Debug, Default)]
pub struct Kept {
    /// What became of each.
    pub states: Vec<State>,
    /// The tasks; each ends with the drain.
    pub tasks: Vec<JoinHandle<usize>>,
}

/// What became of a set of files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct State {
    place: Arc<Place>,
    status: Arc<Mutex<Status>>,
}

/// What became of a set of files.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// When this agent last wrote it.
    pub written: Option<SystemTime>,
    /// When the certificate in it expires.
    pub not_after: Option<SystemTime>,
    /// Whether that has passed, and there is no new one.
    pub expired: bool,
    /// Attempts since the last success.
    pub failures: u32,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<String>,
}

/// Keeps `sets` as fresh as `identity`, in tasks of the current runtime.
///
/// # Errors
/// When this process may not give files to the owners that are asked for.
pub fn start(
    sets: &[Files],
    identity: &identity::Current,
    draining: &Draining,
    registry: &mut Registry,
) -> Result<Kept, OwnerError> {
    let mut kept = Kept::default();
    if sets.is_empty() {
        return Ok(kept);
    }
    let metrics = Metrics::new(registry);
    let places: Vec<Place> = sets.iter().map(Place::from).collect();
    for (index, place) in places.iter().enumerate() {
        place.check_owner().map_err(|why| OwnerError {
            index,
            owner: owner(place),
            why,
        })?;
    }
    for (place, set) in places.into_iter().zip(sets) {
        let state = State {
            place: Arc::new(place),
            status: Arc::default(),
        };
        kept.states.push(state.clone());
        let keeper = Keeper {
            metrics: metrics.set(&state.place),
            state,
            spiffe_id: set.spiffe_id.clone(),
            after: set.after.clone(),
            after_is_due: false,
        };
        let (identity, mut draining) = (identity.clone(), draining.clone());
        kept.tasks.push(tokio::spawn(async move {
            tokio::select! {
                // A command that runs is killed; a write that has begun ends by itself.
                _ = draining.started() => 0,
                () = keeper.keep(identity) => 0,
            }
        }));
    }
    Ok(kept)
}

fn owner(place: &Place) -> String {
    match (place.uid, place.gid) {
        (Some(uid), Some(gid)) => format!("uid {uid} and gid {gid}"),
        (Some(uid), None) => format!("uid {uid}"),
        (None, Some(gid)) => format!("gid {gid}"),
        (None, None) => "this user".to_owned(),
    }
}

impl State {
    /// Where the files are.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What became of them.
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps one set.
struct Keeper {
    state: State,
    /// Whose, if not the first identity's.
    spiffe_id: Option<SpiffeId>,
    after: Option<After>,
    /// Files changed, and nobody was told yet.
    after_is_due: bool,
    metrics: metrics::Set,
}

/// Why a set is not as it should be, or its program was not told.
#[derive(Debug, Error)]
enum KeepError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    After(#[from] AfterError),
    #[error("writing files: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error(
        "this workload is not {wanted}; it is {held}. Does the authority's rule grant it, in `also`, and is it not \
         revoked?"
    )]
    NotHeld { wanted: SpiffeId, held: String },
}

impl KeepError {
    fn not_held(wanted: &SpiffeId, identity: &Identity) -> Self {
        let held: Vec<String> = identity.svids().map(|svid| svid.id().to_string()).collect();
        Self::NotHeld {
            wanted: wanted.clone(),
            held: held.join(" and "),
        }
    }
}

impl Keeper {
    /// Until nobody publishes identities any more.
    async fn keep(mut self, mut identity: identity::Current) {
        let mut pause = FIRST_PAUSE;
        loop {
            let current = identity.borrow_and_update().clone();
            let done = match current {
                Some(current) => self.bring(current).await,
                None => {
                    self.report_expired();
                    Ok(())
                }
            };
            let changed = match done {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    identity.changed().await
                }
                Err(why) => {
                    self.failed(&why);
                    let retry = tokio::time::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    tokio::select! {
                        changed = identity.changed() => changed,
                        () = retry => Ok(()),
                    }
                }
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Has the files be those of `identity`, and whom it concerns told.
    async fn bring(&mut self, identity: Arc<Identity>) -> Result<(), KeepError> {
        let svid = match &self.spiffe_id {
            None => &identity.svid,
            Some(id) => match identity.svid_of(id) {
                Some(svid) => svid,
                None => {
                    self.report_expired_by(SystemTime::now());
                    return Err(KeepError::not_held(id, &identity));
                }
            },
        };
        let not_after = svid.not_after();
        let content = Content::new(svid, &identity.bundle);
        let place = Arc::clone(&self.state.place);
        let written = spawn_blocking(move || place.write(&content)).await?;
        if matches!(written, Ok(true)) {
            self.written(not_after);
            self.after_is_due = self.after.is_some();
        }
        let done = match written {
            Ok(_) => self.tell().await.map_err(KeepError::from),
            Err(why) => Err(why.into()),
        };
        // Now that the program has read the new ones, or can't be told; and what failed may have wanted the room.
        let place = Arc::clone(&self.state.place);
        let tidied = spawn_blocking(move || place.tidy()).await?;
        done?;
        tidied?;
        let mut status = self.state.lock();
        (status.failures, status.last_error) = (0, None);
        Ok(())
    }

    async fn tell(&mut self) -> Result<(), AfterError> {
        if let (true, Some(after)) = (self.after_is_due, &self.after) {
            after::run(after).await?;
            self.after_is_due = false;
        }
        Ok(())
    }

    fn written(&self, not_after: SystemTime) {
        let now = SystemTime::now();
        self.metrics.written(now, not_after);
        let mut status = self.state.lock();
        (status.written, status.not_after) = (Some(now), Some(not_after));
        status.expired = false;
        let directory = self.state.place.directory.display();
        tracing::info!(%directory, not_after = %Timestamp(not_after), "wrote certificate, key and bundle");
    }

    fn failed(&self, why: &KeepError) {
        self.metrics.failed(match why {
            KeepError::NotHeld { .. } => "not-held",
            KeepError::Write(_) | KeepError::Task(_) => "write",
            KeepError::After(_) => "after",
        });
        let why = why.to_string();
        let mut status = self.state.lock();
        // A line when it begins or changes, not at every attempt.
        let is_new = status.last_error.as_ref() != Some(&why);
        status.failures += 1;
        let directory = self.state.place.directory.display();
        let failures = status.failures;
        match is_new {
            true => {
                tracing::warn!(%directory, why, "the files are not up to date; what is there stays, and it is tried again")
            }
            false => {
                tracing::debug!(%directory, why, failures, "the files are still not up to date")
            }
        }
        status.last_error = Some(why);
    }

    /// Of an identity that this workload has no more, the files stay until their certificate is good for nothing.
    fn report_expired_by(&self, now: SystemTime) {
        let not_after = self.state.status().not_after;
        if not_after.is_some_and(|not_after| not_after <= now) {
            self.report_expired();
        }
    }

    fn report_expired(&self) {
        let mut status = self.state.lock();
        let Some(not_after) = status.not_after else {
            return;
        };
        if !std::mem::replace(&mut status.expired, true) {
            let directory = self.state.place.directory.display();
            tracing::warn!(%directory, not_after = %Timestamp(not_after),
                "the certificate in the files has expired, and there is no new one; they are left as they are");
        }
    }
}

#[cfg(test)]
mod tests;

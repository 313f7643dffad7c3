//! How much one caller may ask (S14): so many requests in a time, and so many at once.
//!
//! A caller is who it proved to be, whatever connections and tokens it uses: its certificate's SPIFFE ID, or else
//! what its token names. What one caller has used up takes nothing from the others.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use warifu::Caller;

use super::{Inbound, recent::Recent, refusal::Refusal};
use crate::config::inbound::PerCaller;

/// Callers remembered in each of two halves: at some 300 bytes each, 5 MiB at most. Who is not heard of for as long
/// as so many others are has long filled up again.
const HALF: usize = 8192;

/// The callers of a listener, and what each has left.
#[derive(Debug)]
pub(super) struct Quotas {
    limits: PerCaller,
    callers: Mutex<Recent<Box<str>, Arc<Quota>>>,
}

/// What one caller has left.
#[derive(Debug)]
pub(super) struct Quota {
    limits: PerCaller,
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    /// When all that was asked will have been paid for, at the rate (GCRA: one date stands for the whole bucket).
    paid: Instant,
    /// Requests under way.
    under_way: usize,
}

/// A request that is under way, until dropped.
#[derive(Debug)]
pub(super) struct Taken(Arc<Quota>);

/// A request's places, until the last clone is dropped. Costs nothing where nothing is limited.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    _held: Option<Arc<Held>>,
}

#[derive(Debug)]
struct Held {
    _caller: Option<Taken>,
    _listener: Option<OwnedSemaphorePermit>,
}

impl Inbound {
    /// A place for a request of `caller`, if both have one. Whom permissive mode lets pass is nobody, and has the
    /// listener's limit alone.
    pub(super) fn place(&self, caller: Option<&Caller>, now: Instant) -> Result<Places, Refusal> {
        let listener = match &self.places {
            None => None,
            Some(places) => Some(
                Arc::clone(places)
                    .try_acquire_owned()
                    .map_err(|_| Refusal::Crowded)?,
            ),
        };
        let caller = match (&self.quotas, caller) {
            (None, _) | (_, None) => None,
            (Some(quotas), Some(caller)) => {
                Some(quotas.of(caller, now).take(now).map_err(Refusal::TooMany)?)
            }
        };
        if listener.is_none() && caller.is_none() {
            return Ok(Places::default());
        }
        let held = Held {
            _caller: caller,
            _listener: listener,
        };
        Ok(Places {
            _held: Some(Arc::new(held)),
        })
    }
}

/// Why a request has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Exceeded {
    /// For as long, till the rate allows one more.
    #[error("its rate allows one more in {0:?}")]
    Rate(Duration),
    /// Till another of the caller's is answered.
    #[error("as many of its requests as are allowed are under way")]
    Concurrency,
}

impl Exceeded {
    /// How long to wait, for `retry-after`.
    pub(super) fn seconds(self) -> u64 {
        match self {
            Self::Rate(wait) => wait.as_secs().saturating_add(1),
            Self::Concurrency => 1,
        }
    }
}

impl Quotas {
    /// `None` where nothing is limited.
    pub(super) fn new(limits: PerCaller) -> Option<Self> {
        let limited = limits.rate.is_some() || limits.concurrency.is_some();
        limited.then(|| Self {
            limits,
            callers: Mutex::new(Recent::new(HALF)),
        })
    }

    /// What `caller` has left.
    pub(super) fn of(&self, caller: &Caller, now: Instant) -> Arc<Quota> {
        let key = key(caller);
        let mut callers = self.lock();
        if let Some(quota) = callers.find(&*key, |_| true) {
            return Arc::clone(quota);
        }
        let quota = Quota {
            limits: self.limits,
            used: Mutex::new(Used {
                paid: now,
                under_way: 0,
            }),
        };
        Arc::clone(callers.keep(key, Arc::new(quota)))
    }

    fn lock(&self) -> MutexGuard<'_, Recent<Box<str>, Arc<Quota>>> {
        // Whole after every step.
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who asks. No two callers share one: a SPIFFE ID has no space, and a proof's name has none either.
fn key(caller: &Caller) -> Box<str> {
    match (&caller.peer, &caller.subject) {
        (Some(peer), _) => peer.spiffe_id.to_string().into(),
        (None, Some(subject)) => {
            let issuer = subject.issuer.as_deref().unwrap_or_default();
            format!("{} {issuer} {}", subject.proof, subject.subject).into()
        }
        (None, None) => Box::default(),
    }
}

impl Quota {
    /// One more request, begun at `now`.
    pub(super) fn take(self: &Arc<Self>, now: Instant) -> Result<Taken, Exceeded> {
        let mut used = self.lock();
        if self
            .limits
            .concurrency
            .is_some_and(|most| used.under_way >= most.get())
        {
            return Err(Exceeded::Concurrency);
        }
        if let Some(rate) = &self.limits.rate {
            let (each, burst) = (rate.each(), rate.whole_burst());
            let paid = used.paid.max(now) + each;
            let ahead = paid.saturating_duration_since(now);
            if let Some(wait) = ahead.checked_sub(burst).filter(|wait| !wait.is_zero()) {
                return Err(Exceeded::Rate(wait));
            }
            used.paid = paid;
        }
        used.under_way += 1;
        drop(used);
        Ok(Taken(Arc::clone(self)))
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut used = self.0.lock();
        used.under_way = used.under_way.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;

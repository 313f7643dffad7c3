//! How much one caller may ask (S14): so many requests in a time, and so many at once.
//!
//! A caller is who it proved to be, whatever connections and tokens it uses: its certificate's SPIFFE ID, or else
//! what its token names. What one caller has used up takes nothing from the others. What is used up lives as long
//! as the listener; the limits are those of the request.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use thiserror::Error;
use warifu::Caller;

use super::{recent::Recent, refusal::Refusal};
use crate::config::inbound::{Limits, PerCaller};

/// Callers remembered in each of two halves: at some 300 bytes each, 5 MiB at most. Who is not heard of for as long
/// as so many others are has long filled up again.
const HALF: usize = 8192;

/// What the callers of a listener have used up.
#[derive(Debug)]
pub(super) struct Quotas {
    callers: Mutex<Recent<Box<str>, Arc<Quota>>>,
    /// Requests under way, of those that were counted.
    under_way: Arc<AtomicUsize>,
}

/// What one caller has used up.
#[derive(Debug)]
pub(super) struct Quota(Mutex<Used>);

#[derive(Debug)]
struct Used {
    /// When all that was asked will have been paid for, at the rate (GCRA: one date stands for the whole bucket).
    paid: Instant,
    /// Requests under way.
    under_way: usize,
}

/// A request of a caller that is under way, until dropped.
#[derive(Debug)]
pub(super) struct Taken(Arc<Quota>);

/// The same, as one of the listener's.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

/// A request's places, until the last clone is dropped. Costs nothing where nothing is limited.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    _held: Option<Arc<Held>>,
}

#[derive(Debug)]
struct Held {
    _caller: Option<Taken>,
    _listener: Option<Place>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            callers: Mutex::new(Recent::new(HALF)),
            under_way: Arc::default(),
        }
    }
}

impl Quotas {
    /// A place for a request of `caller`, if both have one. Whom permissive mode lets pass is nobody, and has the
    /// listener's limit alone.
    pub(super) fn place(
        &self,
        caller: Option<&Caller>,
        limits: &Limits,
        now: Instant,
    ) -> Result<Places, Refusal> {
        let of_listener = |most| self.take(most).ok_or(Refusal::Crowded);
        let listener = limits.concurrency.map(of_listener).transpose()?;
        let PerCaller { rate, concurrency } = limits.per_caller;
        let limited = rate.is_some() || concurrency.is_some();
        let of_caller = |caller| self.of(caller, now).take(limits.per_caller, now);
        let caller = caller.filter(|_| limited).map(of_caller);
        let caller = caller.transpose().map_err(Refusal::TooMany)?;
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
    /// One more request of the listener's, where fewer than `most` are under way.
    fn take(&self, most: NonZeroUsize) -> Option<Place> {
        let one_more = |under_way: usize| (under_way < most.get()).then_some(under_way + 1);
        let taken = &self.under_way;
        let taken = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Place(Arc::clone(&self.under_way)))
    }

    /// What `caller` has used up.
    fn of(&self, caller: &Caller, now: Instant) -> Arc<Quota> {
        let key = key(caller);
        let mut callers = self.lock();
        if let Some(quota) = callers.find(&*key, |_| true) {
            return Arc::clone(quota);
        }
        let quota = Quota(Mutex::new(Used {
            paid: now,
            under_way: 0,
        }));
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
    fn take(self: &Arc<Self>, limits: PerCaller, now: Instant) -> Result<Taken, Exceeded> {
        let mut used = self.lock();
        let most = limits.concurrency;
        if most.is_some_and(|most| used.under_way >= most.get()) {
            return Err(Exceeded::Concurrency);
        }
        if let Some(rate) = &limits.rate {
            let (each, burst) = (rate.each(), rate.whole_burst());
            // What was used up at a slower rate, before the limits changed, is a whole burst at most.
            used.paid = used.paid.clamp(now, now + burst);
            let paid = used.paid + each;
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut used = self.0.lock();
        used.under_way = used.under_way.saturating_sub(1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;

//! The one place that publishes and withdraws snapshots, and says so to readiness.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::watch;
use warifu::identity::{Identity, TrustBundle, X509Svid};

use super::{Current, metrics::Metrics};
use crate::telemetry::{ready::Condition, timestamp::Timestamp};

/// Longest sleep before the clock is looked at again: a suspended machine or a corrected clock
/// must not stretch a life.
pub(super) const MAX_SLEEP: Duration = Duration::from_secs(30);

/// Publishes snapshots; clones share one channel.
#[derive(Debug, Clone)]
pub(super) struct Publisher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    current: watch::Sender<Option<Arc<Identity>>>,
    /// Held while publishing or withdrawing, so that the condition never contradicts the channel.
    generation: Mutex<u64>,
    /// Why the last attempt to renew failed; told when the identity expires.
    trouble: Mutex<Option<String>>,
    condition: Condition,
    metrics: Metrics,
}

impl Publisher {
    pub(super) fn new(condition: Condition, metrics: Metrics) -> (Self, Current) {
        let (current, receiver) = watch::channel(None);
        let inner = Inner {
            current,
            generation: Mutex::new(0),
            trouble: Mutex::new(None),
            condition,
            metrics,
        };
        (Self(Arc::new(inner)), receiver)
    }

    /// The snapshot that is published.
    pub(super) fn current(&self) -> Option<Arc<Identity>> {
        self.0.current.borrow().clone()
    }

    /// Publishes a new snapshot.
    pub(super) fn publish(&self, svid: X509Svid, bundle: TrustBundle) {
        let mut generation = lock(&self.0.generation);
        *generation += 1;
        let snapshot = Identity {
            svid,
            bundle,
            generation: *generation,
        };
        self.0
            .metrics
            .published(*generation, snapshot.svid.not_after());
        self.0.current.send_replace(Some(Arc::new(snapshot)));
        self.0.condition.met();
    }

    /// Notes why there is no new identity. While the old one is good nothing else changes (S13).
    pub(super) fn failed(&self, why: &str) {
        let _ordered = lock(&self.0.generation);
        *lock(&self.0.trouble) = Some(why.to_owned());
        if self.0.current.borrow().is_none() {
            self.0.condition.unmet(why);
        }
    }

    /// Forgets the trouble: a renewal succeeded.
    pub(super) fn succeeded(&self) {
        *lock(&self.0.trouble) = None;
    }

    /// Takes back what has expired.
    fn withdraw(&self, now: SystemTime) {
        let _ordered = lock(&self.0.generation);
        let mut expired = None;
        self.0.current.send_if_modified(|current| {
            expired = current
                .as_ref()
                .map(|identity| identity.svid.not_after())
                .filter(|not_after| *not_after <= now);
            if expired.is_some() {
                *current = None;
            }
            expired.is_some()
        });
        if let Some(not_after) = expired {
            let trouble = lock(&self.0.trouble);
            let why = trouble.as_deref().unwrap_or("no renewal succeeded in time");
            self.0.condition.unmet(&format!(
                "the X.509-SVID expired at {}: {why}",
                Timestamp(not_after)
            ));
            self.0.metrics.withdrawn();
        }
    }
}

/// Withdraws each snapshot when it expires (S13: expired ones are not served), beside whatever the
/// renewing task is waiting for.
pub(super) async fn withdraw_expired(publisher: Publisher) {
    let mut current = publisher.0.current.subscribe();
    loop {
        let not_after = current
            .borrow_and_update()
            .as_ref()
            .map(|identity| identity.svid.not_after());
        let now = SystemTime::now();
        let sleep = match not_after {
            Some(not_after) => match not_after.duration_since(now) {
                Ok(left) if !left.is_zero() => left.min(MAX_SLEEP),
                _ => {
                    publisher.withdraw(now);
                    continue;
                }
            },
            None => Duration::MAX,
        };
        tokio::select! {
            changed = current.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The one place that publishes and withdraws snapshots, and says so to readiness.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::watch;
use warifu::identity::{FurtherSvid, Identity, TrustBundle, X509Svid};

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
    /// When the last identity expired, while there is no new one.
    expired: Mutex<Option<SystemTime>>,
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
            expired: Mutex::new(None),
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
    pub(super) fn publish(
        &self,
        svid: X509Svid,
        further: Arc<[FurtherSvid]>,
        bundle: TrustBundle,
        federated: Arc<[TrustBundle]>,
    ) {
        let mut generation = lock(&self.0.generation);
        *generation += 1;
        self.send(Identity {
            svid,
            further,
            bundle,
            federated,
            generation: *generation,
        });
    }

    /// While the generation is held.
    fn send(&self, snapshot: Identity) {
        self.0
            .metrics
            .published(snapshot.generation, snapshot.svid.not_after());
        self.0.current.send_replace(Some(Arc::new(snapshot)));
        *lock(&self.0.expired) = None;
        self.0.condition.met();
    }

    /// Publishes `identity` again, with these further identities.
    pub(super) fn republish(&self, identity: &Identity, further: Arc<[FurtherSvid]>) {
        let (svid, bundle) = (identity.svid.clone(), identity.bundle.clone());
        self.publish(svid, further, bundle, Arc::clone(&identity.federated));
    }

    /// Notes why there is no new identity. While the old one is good nothing else changes (S13).
    pub(super) fn failed(&self, why: &str) {
        let _ordered = lock(&self.0.generation);
        *lock(&self.0.trouble) = Some(why.to_owned());
        if self.0.current.borrow().is_none() {
            let why = self.what_is_missing();
            // The task has a line of its own for it.
            self.0.condition.unmet_quietly(&why);
        }
    }

    /// Forgets the trouble: a renewal succeeded.
    pub(super) fn succeeded(&self) {
        *lock(&self.0.trouble) = None;
    }

    /// Takes back what has expired: all, with the first identity; else those further ones that have.
    fn withdraw(&self, now: SystemTime) {
        let mut generation = lock(&self.0.generation);
        let current = self.current();
        if let Some(identity) = current.filter(|identity| identity.svid.not_after() > now) {
            let is_good = |further: &&FurtherSvid| further.svid.not_after() > now;
            let left: Arc<[_]> = identity.further.iter().filter(is_good).cloned().collect();
            if left.len() < identity.further.len() {
                tracing::warn!("a further identity has expired, and could not be renewed");
                *generation += 1;
                self.send(Identity {
                    svid: identity.svid.clone(),
                    further: left,
                    bundle: identity.bundle.clone(),
                    federated: Arc::clone(&identity.federated),
                    generation: *generation,
                });
            }
            return;
        }
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
        if expired.is_some() {
            *lock(&self.0.expired) = expired;
            self.0.condition.unmet(&self.what_is_missing());
            self.0.metrics.withdrawn();
        }
    }

    /// What happened last, and that there was an identity once, if there was.
    fn what_is_missing(&self) -> String {
        let trouble = lock(&self.0.trouble);
        let why = trouble.as_deref().unwrap_or("no renewal succeeded in time");
        match *lock(&self.0.expired) {
            None => why.to_owned(),
            Some(at) => format!("the X.509-SVID expired at {}: {why}", Timestamp(at)),
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
            .map(|identity| identity.first_expiry());
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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
    use warifu::jwt::KeySet;

    use super::*;
    use crate::telemetry::ready::Readiness;

    /// Valid until `not_after`, which has whole seconds.
    fn publish(publisher: &Publisher, not_after: SystemTime) {
        publish_with(publisher, not_after, &[]);
    }

    /// With further ones that are valid so long.
    fn publish_with(publisher: &Publisher, not_after: SystemTime, further: &[SystemTime]) {
        let first = svid("/orders", not_after);
        let further = further.iter().enumerate().map(|(number, not_after)| {
            let svid = svid(&format!("/further-{number}"), *not_after);
            FurtherSvid { svid, hint: None }
        });
        let bundle = TrustBundle {
            trust_domain: first.id().trust_domain().clone(),
            x509_authorities: Vec::new(),
            jwt_authorities: KeySet::new(Vec::new()),
            sequence: 1,
            refresh_hint: Duration::from_secs(300),
        };
        publisher.publish(first, further.collect(), bundle, Arc::default());
    }

    fn svid(path: &str, not_after: SystemTime) -> X509Svid {
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://example.org{path}");
        let uri = uri.as_str().try_into().unwrap();
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.not_after = not_after.into();
        let key = KeyPair::generate().unwrap();
        let leaf = params.self_signed(&key).unwrap().der().clone();
        X509Svid::new(vec![leaf], key.into()).unwrap()
    }

    #[test]
    fn s13_a_further_identity_that_expires_goes_alone_and_the_first_takes_all_with_it() {
        let readiness = Readiness::default();
        let condition = readiness.condition("identity", "starting");
        let (publisher, current) = Publisher::new(condition, Metrics::default());
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let held = || {
            let current = current.borrow();
            let current = current.as_ref()?;
            let ids = current.svids().map(|svid| svid.id().path().to_owned());
            Some((current.generation, ids.collect::<Vec<_>>()))
        };
        let some = |generation, ids: &[&str]| {
            Some((generation, ids.iter().map(|&id| id.to_owned()).collect()))
        };
        publish_with(
            &publisher,
            at(2_000_000_020),
            &[at(2_000_000_010), at(2_000_000_030)],
        );
        assert_eq!(
            current.borrow().as_ref().unwrap().first_expiry(),
            at(2_000_000_010)
        );
        publisher.withdraw(at(2_000_000_009));
        assert_eq!(held(), some(1, &["/orders", "/further-0", "/further-1"]));
        publisher.withdraw(at(2_000_000_010));
        assert_eq!(held(), some(2, &["/orders", "/further-1"]));
        assert!(readiness.missing().is_empty());
        publisher.withdraw(at(2_000_000_020));
        assert_eq!(held(), None);
        assert_eq!(readiness.missing().len(), 1);
    }

    #[test]
    fn s13_an_expired_identity_is_withdrawn_and_the_reason_stays_while_renewals_go_on_failing() {
        let readiness = Readiness::default();
        let condition = readiness.condition("identity", "starting");
        let (publisher, current) = Publisher::new(condition, Metrics::default());
        let missing = || readiness.missing().pop().map(|(_, why)| why);
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);

        publisher.failed("the authority is away");
        assert_eq!(missing().unwrap(), "the authority is away");
        publish(&publisher, end);
        publisher.failed("the authority is away");
        publisher.withdraw(end - Duration::from_secs(1));
        assert!(current.borrow().is_some() && missing().is_none());

        publisher.withdraw(end);
        assert!(current.borrow().is_none());
        let expired = |why| format!("the X.509-SVID expired at 2033-05-18T03:33:20.000Z: {why}");
        assert_eq!(missing().unwrap(), expired("the authority is away"));
        publisher.failed("still away");
        assert_eq!(missing().unwrap(), expired("still away"));

        publish(&publisher, end);
        assert_eq!(missing(), None);
    }
}

//! The revocation list this agent goes by: polled with the bundle, kept over a restart, and how old it is.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, Guard};
use http::HeaderValue;
use tokio::{sync::Notify, time::timeout};
use warifu::identity::{FurtherSvid, Identity, TrustBundle, X509Svid};

use super::{metrics::Metrics, publisher::MAX_SLEEP, vault::Vault};
use crate::{
    attest::Client,
    config::agent::{Revocation, WhenStale},
    revocation::{List, Provenance, Published},
    telemetry::{ready::Condition, timestamp::Timestamp},
};

/// How long the first identity may wait for the first list. An authority that has just issued answers in
/// milliseconds; one that does not must not keep an agent from its identity.
const FIRST: Duration = Duration::from_secs(2);

/// Polls that fit into the age a list may have: one may fail, and the next is in time.
const POLLS_PER_AGE: u32 = 3;

/// A poll that failed is repeated in this part of the time: half a minute, usually.
const RETRIES_PER_POLL: u32 = 10;

/// The list as it is now. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Revocations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    current: ArcSwap<Known>,
    settings: Revocation,
    metrics: Metrics,
    changed: Notify,
    /// Told of staleness, where that is to keep the agent from being ready.
    condition: OnceLock<Condition>,
}

/// What is known of the list at one moment.
#[derive(Debug, Default)]
pub struct Known {
    /// What is revoked.
    pub list: List,
    /// When the authority last said that this is the list; `None`: it never did.
    pub as_of: Option<SystemTime>,
    /// From then on nothing is accepted on the word of credentials; `None` where a stale list serves on.
    refuse_from: Option<SystemTime>,
    /// Why the last poll failed; `None` if it did not.
    pub last_error: Option<String>,
}

/// What came of a list that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learned {
    /// It is in force.
    New,
    /// It was already, and still is the one.
    Same,
    /// A newer one is in force.
    Older,
}

impl Known {
    /// Whether the list is so old that credentials count for nothing.
    pub fn is_too_old(&self) -> bool {
        // The clock is read only where its answer matters.
        self.refuse_from
            .is_some_and(|from| SystemTime::now() >= from)
    }
}

impl Revocations {
    pub(super) fn new(settings: Revocation, metrics: Metrics) -> Self {
        let revocations = Self(Arc::new(Inner {
            current: ArcSwap::default(),
            settings,
            metrics,
            changed: Notify::new(),
            condition: OnceLock::new(),
        }));
        revocations.set(List::default(), None, None);
        revocations
    }

    /// What is known now: a pointer, read without a lock.
    pub fn load(&self) -> Guard<Arc<Known>> {
        self.0.current.load()
    }

    /// The same, to keep.
    pub fn load_full(&self) -> Arc<Known> {
        self.0.current.load_full()
    }

    /// How long the list may go unconfirmed, and what happens then.
    pub fn settings(&self) -> &Revocation {
        &self.0.settings
    }

    /// Whether the list is older than it should be, whatever that leads to.
    pub fn is_stale(&self, now: SystemTime) -> bool {
        let known = self.load();
        known
            .as_of
            .is_none_or(|as_of| now >= as_of + self.0.settings.max_age.0)
    }

    /// How long to wait before asking again, where the bundle would wait for `hint`.
    pub(super) fn poll_in(&self, hint: Duration) -> Duration {
        let wait = hint.min(self.0.settings.max_age.0 / POLLS_PER_AGE);
        match self.load().last_error {
            None => wait,
            Some(_) => wait / RETRIES_PER_POLL,
        }
    }

    /// Goes by what was published, unless that is older than what is known.
    pub(crate) fn learn(&self, published: &Published, now: SystemTime) -> Learned {
        let known = self.load();
        if published.number < known.list.number() {
            tracing::debug!(
                known = known.list.number(),
                offered = published.number,
                "ignoring an older revocation list, from a replica that is behind"
            );
            self.failed("the authority offers an older list".to_owned());
            return Learned::Older;
        }
        // A clock ahead of ours must not make the list look fresher than it is.
        let as_of = published.as_of.min(now);
        let as_of = known.as_of.map_or(as_of, |known| known.max(as_of));
        let is_new = known.as_of.is_none() || published.number > known.list.number();
        if is_new && published.number > 0 {
            tracing::info!(
                number = published.number,
                entries = published.entries.len(),
                as_of = %Timestamp(as_of),
                "revocation list"
            );
        }
        self.set(List::new(published), Some(as_of), None);
        match is_new {
            true => Learned::New,
            false => Learned::Same,
        }
    }

    /// Readiness is told of a list that is too old, too.
    pub(super) fn tell(&self, condition: Condition) {
        let _ = self.0.condition.set(condition);
        self.0.changed.notify_one();
    }

    /// The authority said that nothing changed.
    fn confirmed(&self, now: SystemTime) {
        let known = self.load();
        self.set(known.list.clone(), Some(now), None);
    }

    fn failed(&self, why: String) {
        let known = self.load();
        if known.last_error.is_none() {
            tracing::warn!(%why, "the revocation list could not be refreshed; the last one stays in force");
        }
        self.set(known.list.clone(), known.as_of, Some(why));
    }

    fn set(&self, list: List, as_of: Option<SystemTime>, last_error: Option<String>) {
        let Revocation {
            max_age,
            when_stale,
        } = self.0.settings;
        let stale_from = as_of.map_or(SystemTime::UNIX_EPOCH, |as_of| as_of + max_age.0);
        self.0.metrics.revocations(&list, as_of);
        self.0.current.store(Arc::new(Known {
            list,
            as_of,
            refuse_from: (when_stale == WhenStale::Refuse).then_some(stale_from),
            last_error,
        }));
        self.0.changed.notify_one();
    }
}

/// Empty, and never too old.
impl Default for Revocations {
    fn default() -> Self {
        Self::new(Revocation::default(), Metrics::default())
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_of {
            Some(as_of) => write!(f, "list {} as of {}", self.list.number(), Timestamp(as_of)),
            None => f.write_str("no list yet"),
        }
    }
}

/// Asks the authority for the list.
#[derive(Debug)]
pub(super) struct Follower {
    revocations: Revocations,
    vault: Arc<Vault>,
    etag: Option<HeaderValue>,
    asked: bool,
}

impl Follower {
    /// Begins with what was kept over a restart.
    pub(super) fn new(revocations: Revocations, vault: Arc<Vault>, client: &Client) -> Self {
        if let Some(kept) = vault.revocations() {
            revocations.learn(&kept, SystemTime::now());
            client.distrust(List::new(&kept));
        }
        Self {
            revocations,
            vault,
            etag: None,
            asked: false,
        }
    }

    /// Before the first identity is published: whoever calls with it may be revoked.
    pub(super) async fn first(&mut self, client: &Client, bundle: &TrustBundle) {
        if !self.asked && timeout(FIRST, self.poll(client, bundle)).await.is_err() {
            self.revocations.failed(format!("no list within {FIRST:?}"));
        }
    }

    /// One poll. What is known stays when it fails.
    pub(super) async fn poll(&mut self, client: &Client, bundle: &TrustBundle) {
        self.asked = true;
        match client.revocations(self.etag.as_ref(), bundle).await {
            Ok(None) => self.revocations.confirmed(SystemTime::now()),
            Ok(Some((published, etag))) => {
                let learned = self.revocations.learn(&published, SystemTime::now());
                // "Not modified" must be about the list we have.
                if learned != Learned::Older {
                    self.etag = etag;
                }
                if learned == Learned::New {
                    client.distrust(self.revocations.load().list.clone());
                    self.keep(published).await;
                }
            }
            Err(why) => self.revocations.failed(why.to_string()),
        }
    }

    /// Whether what `identity` goes back to is revoked, as far as a renewal would help: by a key of its
    /// chain, whose replica has another by now.
    pub(super) fn is_issuer_revoked(&self, identity: &Identity) -> bool {
        let known = self.revocations.load();
        if known.list.is_empty() {
            return false;
        }
        let is_revoked = |svid: &X509Svid| {
            let chain = Provenance::of_chain(svid.id(), svid.chain());
            let mut issuers = chain.issuers.iter();
            issuers.any(|key| known.list.revokes_issuer(key))
        };
        identity.svids().any(is_revoked)
    }

    /// Those of `further` identities whose SPIFFE IDs are not revoked. What else revokes one (its lineage, its role)
    /// revokes the first, too, and a renewal tells of that.
    pub(super) fn without_revoked(&self, further: Arc<[FurtherSvid]>) -> Arc<[FurtherSvid]> {
        let known = self.revocations.load();
        let is_revoked = |further: &FurtherSvid| {
            let it = Provenance {
                spiffe_id: Some(further.svid.id().to_string().into()),
                ..Provenance::default()
            };
            known.list.revokes(&it).is_some()
        };
        if known.list.is_empty() || !further.iter().any(is_revoked) {
            return further;
        }
        let left = further.iter().filter(|further| !is_revoked(further));
        left.cloned().collect()
    }

    async fn keep(&self, published: Published) {
        let vault = Arc::clone(&self.vault);
        // Syncing a file may block for long.
        let _ = tokio::task::spawn_blocking(move || vault.keep_revocations(&published)).await;
    }
}

/// Says when the list has become too old, and when it no longer is.
pub(super) async fn watch_age(revocations: Revocations) {
    let inner = &revocations.0;
    let max_age = inner.settings.max_age;
    let mut was_stale = false;
    loop {
        let now = SystemTime::now();
        let is_stale = revocations.is_stale(now);
        let known = revocations.load_full();
        if is_stale && !was_stale && known.as_of.is_some() {
            tracing::warn!(%known, %max_age, "the revocation list is older than revocation.max_age");
        }
        was_stale = is_stale;
        if let Some(condition) = inner.condition.get() {
            match (is_stale, &known.last_error) {
                (false, _) => condition.met(),
                (true, Some(why)) => condition.unmet(&format!("{known}: {why}")),
                (true, None) => condition.unmet(&known.to_string()),
            }
        }
        let left = known
            .as_of
            .and_then(|as_of| (as_of + max_age.0).duration_since(now).ok());
        let sleep = left.filter(|left| !left.is_zero()).unwrap_or(MAX_SLEEP);
        tokio::select! {
            () = inner.changed.notified() => {}
            () = tokio::time::sleep(sleep.min(MAX_SLEEP)) => {}
        }
    }
}

#[cfg(test)]
impl Revocations {
    /// Refuses when the list is older than that.
    pub(crate) fn refusing_after(max_age: Duration) -> Self {
        let settings = Revocation {
            max_age: crate::config::value::Span(max_age),
            when_stale: WhenStale::Refuse,
        };
        Self::new(settings, Metrics::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{revocation::Kind, telemetry::ready::Readiness};

    const MINUTE: Duration = Duration::from_secs(60);

    fn published(number: u64, as_of: SystemTime, lineage: &str) -> Published {
        Published {
            number,
            as_of,
            entries: vec![(Kind::Lineage, lineage.to_owned())],
        }
    }

    fn refusing() -> Revocations {
        Revocations::refusing_after(MINUTE)
    }

    fn revokes(revocations: &Revocations, lineage: &str) -> bool {
        let lineage = Some(lineage.into());
        let it = Provenance {
            lineage,
            ..Provenance::default()
        };
        revocations.load().list.revokes(&it).is_some()
    }

    #[test]
    fn an_older_number_is_ignored_and_makes_nothing_fresher() {
        let now = SystemTime::now();
        let revocations = Revocations::default();
        assert_eq!(
            revocations.learn(&published(7, now - MINUTE, "l1"), now),
            Learned::New
        );
        let older = published(6, now, "l2");
        assert_eq!(revocations.learn(&older, now), Learned::Older);
        assert!(revokes(&revocations, "l1") && !revokes(&revocations, "l2"));
        let known = revocations.load_full();
        assert_eq!(known.as_of, Some(now - MINUTE));
        assert!(known.last_error.as_deref().unwrap().contains("older list"));

        let same = published(7, now, "l1");
        assert_eq!(revocations.learn(&same, now), Learned::Same);
        assert_eq!(revocations.load().as_of, Some(now));
        assert_eq!(revocations.load().last_error, None);
        assert_eq!(
            revocations.learn(&published(8, now, "l2"), now),
            Learned::New
        );
        assert!(!revokes(&revocations, "l1") && revokes(&revocations, "l2"));
    }

    #[test]
    fn what_is_known_stays_in_force_when_a_poll_fails() {
        let now = SystemTime::now();
        let revocations = refusing();
        revocations.learn(&published(7, now - MINUTE / 2, "l1"), now);
        revocations.failed("away".into());
        assert!(revokes(&revocations, "l1"));
        assert_eq!(revocations.load().as_of, Some(now - MINUTE / 2));
        assert_eq!(revocations.load().last_error.as_deref(), Some("away"));
        revocations.confirmed(now);
        assert_eq!(revocations.load().as_of, Some(now));
    }

    #[test]
    fn a_list_that_is_too_old_counts_for_nothing_where_the_configuration_says_refuse() {
        let now = SystemTime::now();
        let revocations = refusing();
        assert!(revocations.load().is_too_old(), "no list at all");
        revocations.learn(&published(1, now, "l1"), now);
        assert!(!revocations.load().is_too_old());
        let old = refusing();
        old.learn(&published(1, now - MINUTE, "l1"), now);
        assert!(old.load().is_too_old() && old.is_stale(now));

        let serving = Revocations::default();
        assert!(serving.is_stale(now) && !serving.load().is_too_old());
    }

    #[test]
    fn a_clock_ahead_of_ours_makes_no_list_fresher_than_now() {
        let now = SystemTime::now();
        let revocations = refusing();
        revocations.learn(&published(1, now + MINUTE * 60, "l1"), now);
        assert_eq!(revocations.load().as_of, Some(now));
    }

    #[test]
    fn it_is_asked_for_as_often_as_its_age_demands() {
        let hint = MINUTE * 5;
        assert_eq!(refusing().poll_in(hint), MINUTE / 3);
        let revocations = Revocations::default();
        assert_eq!(revocations.poll_in(hint), hint);
        revocations.failed("away".into());
        assert_eq!(revocations.poll_in(hint), hint / 10);
    }

    #[tokio::test]
    async fn readiness_is_told_of_a_list_that_is_too_old_and_of_one_that_is_not() {
        let readiness = Readiness::default();
        let revocations = refusing();
        let watching = tokio::spawn(watch_age(revocations.clone()));
        revocations.tell(readiness.condition("revocations", "not asked yet"));
        revocations.failed("the authority is away".into());
        let missing = async |wanted: &str| {
            for _ in 0..1000 {
                let missing = readiness.missing().pop().map(|(_, why)| why);
                if missing.as_deref().unwrap_or("nothing") == wanted {
                    return;
                }
                tokio::task::yield_now().await;
            }
            panic!("{:?}", readiness.missing());
        };
        missing("no list yet: the authority is away").await;
        let now = SystemTime::now();
        revocations.learn(&published(1, now, "l1"), now);
        missing("nothing").await;
        watching.abort();
    }
}

//! Credentials kept while they are good: renewed ahead of expiry, by one task at a time, and served to
//! their real expiry while a renewal fails.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use aws_credential_types::Credentials;
use tokio::{sync::watch, time::timeout};
use tracing::{debug, warn};

use super::{
    clock::Clock,
    error::CredentialsError,
    metrics::{Meter, Metrics},
    refresh::{Phase, Schedule, retry_at},
    source::Source,
};

/// Between two looks at whether to renew unasked. The clock may jump, and a suspended machine wakes up late.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// After a decided refusal that nobody waits for. STS need not say no every few seconds for as long as a trust
/// policy is wrong.
const REFUSED_UNASKED: Duration = Duration::from_secs(60);

/// A role session's credentials, or the base ones. Clones share them.
#[derive(Clone)]
pub(super) struct Cache(Arc<Shared>);

struct Shared {
    /// For logs and errors: a role ARN, or `the base credentials`.
    name: String,
    /// The role session's.
    session: Option<String>,
    source: Source,
    clock: Clock,
    limits: Limits,
    meter: Meter,
    held: ArcSwapOption<Held>,
    renewal: Mutex<Renewal>,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// One renewal, with the SDK's own retries in it.
    pub(super) renewal: Duration,
    /// How long a caller waits for a renewal while it could be served from the cache.
    pub(super) patience: Duration,
}

/// One set of credentials, immutable.
pub(super) struct Held {
    /// For the signer and the SDK.
    pub(super) credentials: Credentials,
    schedule: Schedule,
    obtained: SystemTime,
}

#[derive(Default)]
struct Renewal {
    /// Of the task at work; it is closed when that ends, however it ends.
    under_way: Option<watch::Receiver<()>>,
    failures: u32,
    not_before: Option<SystemTime>,
    last_error: Option<Arc<CredentialsError>>,
}

/// What the status page says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialsStatus {
    /// A role ARN, or `the base credentials`.
    pub name: String,
    /// The role session's name.
    pub session: Option<String>,
    /// When the credentials in use were obtained.
    pub obtained: Option<SystemTime>,
    /// When they expire; `None` also where they don't.
    pub expires: Option<SystemTime>,
    /// Renewals that failed since the last that didn't.
    pub failures: u32,
    /// Why the last one failed.
    pub last_error: Option<String>,
}

impl Cache {
    pub(super) fn new(source: Source, clock: Clock, limits: Limits, metrics: &Metrics) -> Self {
        let (name, session) = source.names();
        Self(Arc::new(Shared {
            meter: metrics.meter(&name, session.as_deref()),
            name,
            session,
            source,
            clock,
            limits,
            held: ArcSwapOption::empty(),
            renewal: Mutex::default(),
        }))
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// Credentials that are valid now.
    ///
    /// # Errors
    /// When there are none and none can be had; the last failure, if it is too soon to ask again.
    pub(super) async fn get(&self) -> Result<Arc<Held>, Arc<CredentialsError>> {
        let now = self.0.clock.now();
        let held = self.0.held.load_full();
        let phase = held
            .as_ref()
            .map_or(Phase::Expired, |held| held.schedule.phase(now));
        match (phase, held) {
            (Phase::Fresh, Some(held)) => Ok(held),
            (Phase::Advisory, Some(held)) => {
                let _ = self.renew(now, Some(&held));
                Ok(held)
            }
            (Phase::Mandatory, Some(held)) => {
                if let Ok(mut done) = self.renew(now, Some(&held)) {
                    let _ = timeout(self.0.limits.patience, done.changed()).await;
                }
                // The new ones if they came; else what was still good a moment ago, if it still is.
                match self.valid() {
                    Some(held) => Ok(held),
                    None => self.renewed(Some(&held)).await,
                }
            }
            (Phase::Expired, held) | (_, held @ None) => self.renewed(held.as_ref()).await,
        }
    }

    /// Waits for the end of a renewal, which has a limit of its own. `seen` is what the caller found expired.
    async fn renewed(&self, seen: Option<&Arc<Held>>) -> Result<Arc<Held>, Arc<CredentialsError>> {
        let mut done = self.renew(self.0.clock.now(), seen)?;
        // An error only says that it ended.
        let _ = done.changed().await;
        self.valid().ok_or_else(|| self.last_error())
    }

    /// Renews while `ahead` of the life is left, whether or not anybody asks. Ends when dropped.
    pub(super) async fn keep_fresh(&self, ahead: Duration) -> Infallible {
        loop {
            let now = self.0.clock.now();
            let held = self.0.held.load_full();
            let due = held.as_ref().map_or(now, |held| held.due(ahead));
            let next = if now < due {
                due
            } else {
                match self.renew(now, held.as_ref()) {
                    Ok(mut done) => {
                        // An error only says that it ended.
                        let _ = done.changed().await;
                        continue;
                    }
                    Err(why) => self.next_try(now, why.is_refusal()),
                }
            };
            let pause = next.duration_since(now).unwrap_or_default();
            tokio::time::sleep(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
        }
    }

    /// When to try again after a failure that nobody waits for.
    fn next_try(&self, now: SystemTime, refused: bool) -> SystemTime {
        let not_before = self.0.renewal().not_before.unwrap_or(now);
        match refused {
            // A client that asks meanwhile has it tried sooner.
            true => not_before.max(now + REFUSED_UNASKED),
            false => not_before,
        }
    }

    /// AWS refused these credentials: renew them before they are used again, if that works.
    pub(super) fn doubt(&self, refused: &Held) {
        let now = self.0.clock.now();
        let held = self.0.held.load_full();
        if let Some(held) = held
            && held.obtained == refused.obtained
        {
            let schedule = held.schedule.doubted(now);
            self.0.held.store(Some(Arc::new(held.with(schedule))));
        }
    }

    pub(super) fn status(&self) -> CredentialsStatus {
        let held = self.0.held.load();
        let renewal = self.0.renewal();
        CredentialsStatus {
            name: self.0.name.clone(),
            session: self.0.session.clone(),
            obtained: held.as_ref().map(|held| held.obtained),
            expires: held.as_ref().and_then(|held| held.schedule.expires),
            failures: renewal.failures,
            last_error: renewal.last_error.as_ref().map(ToString::to_string),
        }
    }

    /// What is valid now, if anything is.
    pub(super) fn valid(&self) -> Option<Arc<Held>> {
        let now = self.0.clock.now();
        let held = self.0.held.load_full()?;
        (held.schedule.phase(now) != Phase::Expired).then_some(held)
    }

    fn last_error(&self) -> Arc<CredentialsError> {
        let last = self.0.renewal().last_error.clone();
        last.unwrap_or_else(|| Arc::new(CredentialsError::interrupted(&self.0.name)))
    }

    /// Joins the renewal under way, or starts one, in a task of its own: a caller that goes away
    /// takes nobody's credentials with it.
    /// `seen` is what the caller found wanting.
    fn renew(
        &self,
        now: SystemTime,
        seen: Option<&Arc<Held>>,
    ) -> Result<watch::Receiver<()>, Arc<CredentialsError>> {
        let mut renewal = self.0.renewal();
        let held = self.0.held.load_full();
        if held.as_ref().map(Arc::as_ptr) != seen.map(Arc::as_ptr) {
            // Renewed since the caller looked: nothing to wait for.
            return Ok(watch::channel(()).1);
        }
        if let Some(under_way) = &renewal.under_way
            && under_way.has_changed().is_ok()
        {
            return Ok(under_way.clone());
        }
        if let (Some(not_before), Some(error)) = (renewal.not_before, &renewal.last_error)
            && now < not_before
        {
            return Err(error.clone());
        }
        let (ended, under_way) = watch::channel(());
        renewal.under_way = Some(under_way.clone());
        let shared = self.0.clone();
        tokio::spawn(async move {
            shared.load().await;
            drop(ended);
        });
        Ok(under_way)
    }
}

impl Shared {
    fn renewal(&self) -> MutexGuard<'_, Renewal> {
        // Its fields are independent: a panic while it was held leaves nothing half-done.
        self.renewal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn load(&self) {
        let loaded = match timeout(self.limits.renewal, self.source.load()).await {
            Ok(loaded) => loaded,
            Err(_) => Err(CredentialsError::timed_out(&self.name, self.limits.renewal)),
        };
        // The clock may have learned something from the answer.
        let now = self.clock.now();
        match loaded.and_then(|credentials| Held::new(&self.name, credentials, now)) {
            Ok(held) => {
                debug!(credentials = self.name, expires = ?held.schedule.expires, "renewed");
                self.meter.renewed(held.schedule.expires);
                // First the credentials, then the end of the failure: never neither.
                self.held.store(Some(Arc::new(held)));
                *self.renewal() = Renewal::default();
            }
            Err(error) => {
                self.meter.failed(&error);
                let held = self.held.load();
                let schedule = held.as_ref().map(|held| &held.schedule);
                let mut renewal = self.renewal();
                renewal.failures = renewal.failures.saturating_add(1);
                let failures = renewal.failures;
                let refused = error.is_refusal();
                let at = retry_at(now, schedule, failures, refused, jitter());
                warn!(
                    credentials = self.name,
                    failures,
                    serving_cached = schedule.is_some_and(|s| s.phase(now) != Phase::Expired),
                    retry_in = ?at.duration_since(now).unwrap_or_default(),
                    "credentials not renewed: {error}"
                );
                renewal.not_before = Some(at);
                renewal.last_error = Some(Arc::new(error));
            }
        }
    }
}

impl Held {
    fn new(
        name: &str,
        credentials: Credentials,
        now: SystemTime,
    ) -> Result<Self, CredentialsError> {
        let expires = credentials.expiry();
        if expires.is_some_and(|expires| expires <= now) {
            return Err(CredentialsError::born_expired(name));
        }
        Ok(Self {
            credentials,
            schedule: Schedule::new(now, expires, jitter()),
            obtained: now,
        })
    }

    /// When they were obtained.
    pub(super) fn obtained(&self) -> SystemTime {
        self.obtained
    }

    /// When they are renewed with `ahead` of their life left, or three quarters of it where that is shorter.
    fn due(&self, ahead: Duration) -> SystemTime {
        let Some(expires) = self.schedule.expires else {
            return self.schedule.advisory;
        };
        let life = expires.duration_since(self.obtained).unwrap_or_default();
        let early = expires.checked_sub(ahead.min(life * 3 / 4));
        early.map_or(self.schedule.advisory, |early| {
            early.min(self.schedule.advisory)
        })
    }

    fn with(&self, schedule: Schedule) -> Self {
        Self {
            credentials: self.credentials.clone(),
            schedule,
            obtained: self.obtained,
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("access_key_id", &self.credentials.access_key_id())
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache").field(&self.0.name).finish()
    }
}

/// In `0.0..1.0`; in the middle should there be no randomness.
fn jitter() -> f64 {
    let mut random = [0; 4];
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        return 0.5;
    }
    f64::from(u32::from_ne_bytes(random)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s13_what_is_kept_fresh_is_renewed_before_any_sdk_is_in_a_hurry() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let now = SystemTime::UNIX_EPOCH + minutes(1_000_000);
        for (life, left) in [(15, 11), (20, 15), (30, 20), (60, 20), (720, 20)] {
            let expires = now + minutes(life);
            let credentials = Credentials::new("a", "s", None, Some(expires), "test");
            let held = Held::new("test", credentials, now).unwrap();
            let due = held.due(minutes(20));
            // boto3 insists on new ones in the last ten minutes.
            assert!(expires - minutes(left) >= due && due > now, "{life}");
        }
    }
}

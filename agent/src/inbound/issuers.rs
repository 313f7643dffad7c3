//! The keys of the issuers that listeners accept tokens of: fetched ahead, kept while an issuer is away, one cache
//! each, so that one issuer's trouble is no other's (S10). They are kept as long as a listener accepts their tokens.

use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, poll_fn},
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    task::Poll,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use tokio::{sync::Semaphore, task::JoinHandle};
use warifu::jwt::{
    Claims, MAX_JWKS_BYTES, Profile,
    jwks::{COOL_DOWN, Cache, FetchError, FetchKey, KeysByKid, MAX_AGE, Status, Unverified},
};

use crate::{
    config::inbound::Issuer,
    http::fetch::{Fetcher, FetcherError, Limits, OidcKeys},
    telemetry::ready::Condition,
};

/// What each of the two fetches for an issuer's keys may take: a request that waits for both is answered well before
/// its caller gives up.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(2),
    total: Duration::from_secs(3),
    answer: MAX_JWKS_BYTES,
};

/// Requests that may wait for one issuer's keys at once; more are answered 503. They wait once in
/// [`COOL_DOWN`], and each holds a place of its listener's.
const MAX_WAITING: usize = 256;

/// How often keys are looked at, so that they are fetched before a request would have to wait.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The keys of all issuers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Issuers(Arc<Mutex<BTreeMap<Place, Weak<Held>>>>);

/// Where keys come from, and what they are used with: who shares all of it shares the keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    issuer: String,
    keys: Option<String>,
    ca_bundle: Option<PathBuf>,
    algorithms: Vec<&'static str>,
}

/// The keys of one issuer. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Keys(Arc<Held>);

#[derive(Debug)]
struct Held {
    published: Published,
    waiting: Semaphore,
    /// Keeps them at hand.
    warming: OnceLock<JoinHandle<()>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(warming) = self.warming.get() {
            warming.abort();
        }
    }
}

/// How an issuer publishes its keys.
#[derive(Debug, Clone)]
enum Published {
    AsOne(Cache),
    EachByItself(KeysByKid),
}

impl Issuers {
    /// None yet.
    pub fn new(registry: &mut Registry) -> Self {
        let issuers = Self::default();
        let registry = registry.sub_registry_with_prefix("inbound");
        registry.register_collector(Box::new(issuers.clone()));
        issuers
    }

    /// The keys of `issuer`, to verify tokens of `profile` with.
    pub(super) fn of(&self, issuer: &Issuer, profile: &Profile) -> Result<Keys, FetcherError> {
        let keys = issuer.jwks_uri.as_ref().map(ToString::to_string);
        let place = Place {
            issuer: issuer.url.clone(),
            keys: keys.clone(),
            ca_bundle: issuer.ca_bundle.clone(),
            algorithms: profile.algorithms.iter().map(|it| it.name()).collect(),
        };
        let fetcher = fetcher(issuer.ca_bundle.clone())?;
        let source = OidcKeys::new(fetcher, issuer.url.clone(), keys);
        let cache = Cache::new(Arc::new(source), profile.algorithms.clone());
        Ok(self.shared(place, Published::AsOne(cache)))
    }

    /// The keys at `place`, each at an address of its own.
    pub(super) fn by_kid(&self, place: &str, source: Arc<dyn FetchKey>) -> Keys {
        let place = Place {
            issuer: place.to_owned(),
            keys: None,
            ca_bundle: None,
            algorithms: Vec::new(),
        };
        self.shared(place, Published::EachByItself(KeysByKid::new(source)))
    }

    fn shared(&self, place: Place, published: Published) -> Keys {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, keys| keys.strong_count() > 0);
        if let Some(keys) = known.get(&place).and_then(Weak::upgrade) {
            return Keys(keys);
        }
        let keys = Arc::new(Held {
            published,
            waiting: Semaphore::new(MAX_WAITING),
            warming: OnceLock::new(),
        });
        known.insert(place, Arc::downgrade(&keys));
        Keys(keys)
    }

    /// Whether any are in use.
    pub fn is_empty(&self) -> bool {
        self.known().is_empty()
    }

    /// Fetches the keys of every issuer that is in use and whose keys are not kept warm yet, and again before they grow
    /// old. `tried` is met when each was tried once: an issuer that is away keeps its own tokens out, and the agent not
    /// from being ready.
    pub fn keep_warm(&self, tried: Option<Condition>) {
        let tried = tried.map(|tried| Arc::new(Tried(tried)));
        for (place, Keys(keys)) in self.known() {
            // Which key it is to be only a token knows.
            let Published::AsOne(cache) = &keys.published else {
                continue;
            };
            keys.warming.get_or_init(|| {
                tokio::spawn(keep_warm(cache.clone(), place.issuer, tried.clone()))
            });
        }
    }

    fn known(&self) -> Vec<(Place, Keys)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = known.iter();
        pairs
            .filter_map(|(place, keys)| Some((place.clone(), Keys(keys.upgrade()?))))
            .collect()
    }
}

/// What fetches an issuer's keys.
pub(super) fn fetcher(ca_bundle: Option<PathBuf>) -> Result<Fetcher, FetcherError> {
    Ok(Fetcher::new(ca_bundle)?.limited(LIMITS))
}

/// Met when the last clone is dropped.
struct Tried(Condition);

impl Drop for Tried {
    fn drop(&mut self) {
        self.0.met();
    }
}

impl Keys {
    /// Which keys there are: another number when they were fetched again. `None` where there are none to verify with.
    pub(super) fn generation(&self, now: SystemTime) -> Option<u64> {
        let Status {
            fetched_at, keys, ..
        } = self.0.published.status();
        let fetched_at = fetched_at?;
        let age = |at: SystemTime| now.duration_since(at).unwrap_or_default();
        if age(fetched_at) >= MAX_AGE {
            return None;
        }
        let since = fetched_at.duration_since(SystemTime::UNIX_EPOCH);
        let since = u64::try_from(since.unwrap_or_default().as_nanos()).ok()?;
        Some(since.wrapping_add(keys as u64))
    }

    /// The claims of a token that verifies. Who has to wait for the keys needs a place.
    pub(super) async fn verify(
        &self,
        token: &str,
        profile: &Profile,
        now: SystemTime,
    ) -> Result<Claims, Unverified> {
        let mut verifying = pin!(self.0.published.verify(token, profile, now));
        let at_once = poll_fn(|context| Poll::Ready(verifying.as_mut().poll(context))).await;
        if let Poll::Ready(verdict) = at_once {
            return verdict;
        }
        let Ok(_place) = self.0.waiting.try_acquire() else {
            let why = FetchError::new("too many requests wait for them already");
            return Err(Unverified::Unavailable(why));
        };
        verifying.await
    }

    /// Asks the issuer, unless its keys are at hand: what becomes of that is for those who verify tokens.
    pub(super) async fn try_once(self) {
        if let Published::AsOne(cache) = &self.0.published {
            let _ = cache.warm(SystemTime::now()).await;
        }
    }
}

async fn keep_warm(cache: Cache, issuer: String, mut tried: Option<Arc<Tried>>) {
    let mut trouble = None;
    loop {
        let why = cache.warm(SystemTime::now()).await.err();
        let why = why.map(|why| why.to_string());
        let why = why.or_else(|| cache.status().failure.map(|why| why.to_string()));
        if let Some(why) = &why
            && trouble.as_ref() != Some(why)
        {
            tracing::warn!(issuer, %why, "the keys of this issuer; its tokens are refused where there are none");
        }
        if why.is_none() && trouble.is_some() {
            tracing::info!(issuer, "the keys of this issuer were fetched");
        }
        drop(tried.take());
        let wait = if why.is_some() { COOL_DOWN } else { LOOK_EVERY };
        trouble = why;
        tokio::time::sleep(wait).await;
    }
}

impl Published {
    fn status(&self) -> Status {
        match self {
            Self::AsOne(cache) => cache.status(),
            Self::EachByItself(keys) => keys.status(),
        }
    }

    async fn verify(
        &self,
        token: &str,
        profile: &Profile,
        now: SystemTime,
    ) -> Result<Claims, Unverified> {
        match self {
            Self::AsOne(cache) => cache.verify(token, profile, now).await,
            Self::EachByItself(keys) => keys.verify(token, profile, now).await,
        }
    }
}

impl Collector for Issuers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = SystemTime::now();
        // One line an issuer: who has it twice, with other algorithms say, sees the first.
        let mut known: Vec<(Place, Keys)> = self.known();
        known.dedup_by(|one, other| one.0.issuer == other.0.issuer);
        let known: Vec<([(&str, &str); 1], Status)> = known
            .iter()
            .map(|(place, keys)| {
                (
                    [("issuer", place.issuer.as_str())],
                    keys.0.published.status(),
                )
            })
            .collect();
        let help = "Keys of an issuer that tokens are verified with";
        let gauge = MetricType::Gauge;
        let mut family = encoder.encode_descriptor("issuer_keys", help, None, gauge)?;
        for (labels, status) in &known {
            let keys = i64::try_from(status.keys).unwrap_or(i64::MAX);
            ConstGauge::new(keys).encode(family.encode_family(labels)?)?;
        }
        let help = "Time since the keys of an issuer were fetched";
        let mut family =
            encoder.encode_descriptor("issuer_keys_age", help, Some(&Unit::Seconds), gauge)?;
        for (labels, status) in &known {
            if let Some(at) = status.fetched_at {
                let age = now.duration_since(at).unwrap_or_default().as_secs_f64();
                ConstGauge::new(age).encode(family.encode_family(labels)?)?;
            }
        }
        let help = "Whether the last fetch of an issuer's keys failed";
        let mut family = encoder.encode_descriptor("issuer_keys_failing", help, None, gauge)?;
        for (labels, status) in &known {
            let failing = i64::from(status.failure.is_some());
            ConstGauge::new(failing).encode(family.encode_family(labels)?)?;
        }
        let help = "Fetches of an issuer's keys";
        let counter = MetricType::Counter;
        let mut family = encoder.encode_descriptor("issuer_key_fetches", help, None, counter)?;
        for (labels, status) in &known {
            ConstCounter::new(status.attempts).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

//! The keys of one issuer, fetched when they are needed and kept when it is away (S10).
//!
//! ```text
//! token ─▶ verified with the keys at hand ─▶ claims
//!               │ no such kid, or no keys yet
//!               └─▶ one fetch for all who wait ─▶ verified again ─▶ claims, or refused
//!                        │ none within the cool-down      │ failed
//!                        └─▶ refused                      └─▶ unavailable
//! ```
//!
//! A token can make its issuer be asked again, once in [`COOL_DOWN`]; it can never say whom to ask: `jku`,
//! `x5u` and `jwk` are refused with the header. A cache is for one issuer, so `kid`s need to be unique
//! within it only: the keys of every AWS account are called `RSA_0` and `EC384_0`.

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use thiserror::Error;
use tokio::sync::watch;

use super::{Algorithm, Claims, JwtError, KeySet, Profile, verify};

mod by_kid;

pub use by_kid::{FETCHES_A_WINDOW, FetchKey, FetchingKey, KeysByKid};

/// Keys older than this are fetched again in the background when they are used next. Issuers publish a
/// key hours before they use it, and take one back at the latest when it was stolen.
pub const REFRESH_AFTER: Duration = Duration::from_secs(5 * 60);

/// Keys older than this are not used any more: an issuer that is away so long may have had a reason to
/// take its keys back.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Least time between two fetches, whatever became of the first: what a flood of unknown `kid`s can
/// cost an issuer.
pub const COOL_DOWN: Duration = Duration::from_secs(10);

/// Longest reason of a failed fetch that is kept: it goes into logs and answers.
const MAX_REASON: usize = 512;

/// Where an issuer's JWK set comes from.
pub trait Fetch: fmt::Debug + Send + Sync + 'static {
    /// The document (RFC 7517 §5) as it is now. It must end by itself in bounded time, and stop
    /// reading at [`MAX_JWKS_BYTES`](super::MAX_JWKS_BYTES).
    fn fetch(&self) -> Fetching<'_>;
}

/// A fetch under way.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + 'a>>;

/// Why a JWK set could not be had; tells what was asked and what went wrong. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct FetchError(Arc<str>);

/// Why a token was not verified.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unverified {
    /// The token is refused: 401.
    #[error(transparent)]
    Refused(#[from] JwtError),
    /// The token may be good, but its issuer's keys can't be had now: 503.
    #[error("the issuer's keys are unavailable: {0}")]
    Unavailable(FetchError),
}

/// How the keys are, for metrics and status pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How many there are.
    pub keys: usize,
    /// When those were asked for; `None` where there never were any.
    pub fetched_at: Option<SystemTime>,
    /// Why the last attempt failed, where it did.
    pub failure: Option<FetchError>,
    /// How often the issuer was asked.
    pub attempts: u64,
}

/// The keys of one issuer. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Arc<dyn Fetch>,
    algorithms: Cow<'static, [Algorithm]>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    /// The fetch under way; it closes when that has ended and the state says how.
    flight: Option<watch::Receiver<()>>,
    last_attempt: Option<SystemTime>,
    failure: Option<FetchError>,
    attempts: u64,
}

#[derive(Debug, Clone)]
struct Held {
    keys: Arc<KeySet>,
    /// When they were asked for.
    at: SystemTime,
}

/// What became of asking for a fetch.
enum Attempt {
    Flying(watch::Receiver<()>),
    /// One was made a moment ago.
    Cooling,
}

impl Cache {
    /// No keys yet. Those from `source` are used with `algorithms`: give those of the profile.
    pub fn new(source: Arc<dyn Fetch>, algorithms: impl Into<Cow<'static, [Algorithm]>>) -> Self {
        Self(Arc::new(Inner {
            source,
            algorithms: algorithms.into(),
            state: Mutex::default(),
        }))
    }

    /// Fetches the keys if there are none or they should be asked for again, and waits for them. Call
    /// it at start, and now and then, so that no request has to wait. Must run on tokio.
    ///
    /// # Errors
    /// [`Unverified::Unavailable`] where afterwards there are no keys to verify with.
    pub async fn warm(&self, now: SystemTime) -> Result<(), Unverified> {
        if self.0.lock().is_due(now) {
            self.fetch(now).await;
        }
        let state = self.0.lock();
        state
            .usable(now)
            .map(drop)
            .ok_or_else(|| state.unavailable())
    }

    /// [`verify`](super::verify()) with the issuer's keys, which are fetched if need be. Must run on
    /// tokio. What was started for a caller who gave up goes on for the others.
    ///
    /// # Errors
    /// [`Unverified`] tells a refused token from keys that can't be had.
    pub async fn verify(
        &self,
        token: &str,
        profile: &Profile,
        now: SystemTime,
    ) -> Result<Claims, Unverified> {
        let keys = self.at_hand(now);
        match verify(token, profile, &keys, now) {
            Err(JwtError::UnknownKey) => {}
            verdict => return Ok(verdict?),
        }
        // Only here does a token cause a fetch: it is well-formed, and all but its key is known.
        self.fetch(now).await;
        let keys = self.0.lock().up_to_date(now)?;
        Ok(verify(token, profile, &keys, now)?)
    }

    /// How the keys are.
    pub fn status(&self) -> Status {
        let state = self.0.lock();
        Status {
            keys: state
                .held
                .as_ref()
                .map_or(0, |held| held.keys.iter().count()),
            fetched_at: state.held.as_ref().map(|held| held.at),
            failure: state.failure.clone(),
            attempts: state.attempts,
        }
    }

    /// The keys there are, or none; refreshed in the background where they are getting old.
    fn at_hand(&self, now: SystemTime) -> Arc<KeySet> {
        let mut state = self.0.lock();
        let Some(held) = state.usable(now).cloned() else {
            return Arc::default();
        };
        if state.is_due(now) {
            // Nobody waits for it.
            self.start(&mut state, now);
        }
        held.keys
    }

    /// Waits for the fetch under way, or for one of its own where that is not too early.
    async fn fetch(&self, now: SystemTime) {
        let attempt = {
            let mut state = self.0.lock();
            self.start(&mut state, now)
        };
        if let Attempt::Flying(mut flight) = attempt {
            // Ends with an error, when the sender is dropped: the flight is over.
            while flight.changed().await.is_ok() {}
        }
    }

    fn start(&self, state: &mut State, now: SystemTime) -> Attempt {
        if let Some(flight) = &state.flight {
            return Attempt::Flying(flight.clone());
        }
        if state.is_cooling(now) {
            return Attempt::Cooling;
        }
        let (over, flight) = watch::channel(());
        state.flight = Some(flight.clone());
        state.last_attempt = Some(now);
        state.attempts = state.attempts.saturating_add(1);
        let landing = Landing {
            inner: Arc::clone(&self.0),
            at: now,
            outcome: None,
            _over: over,
        };
        // A task of its own, so that no caller's giving up ends it.
        tokio::spawn(async move {
            let fetched = landing.inner.source.fetch().await;
            landing.end(fetched);
        });
        Attempt::Flying(flight)
    }
}

impl FetchError {
    /// A reason, such as `GET https://issuer.example/keys: 502 Bad Gateway`; cut off where it is long.
    pub fn new(why: impl fmt::Display) -> Self {
        let mut why = why.to_string();
        let end = (0..=MAX_REASON.min(why.len()))
            .rfind(|end| why.is_char_boundary(*end))
            .unwrap_or(0);
        why.truncate(end);
        Self(why.into())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it, and if it did, the state is whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn usable(&self, now: SystemTime) -> Option<&Held> {
        self.held
            .as_ref()
            .filter(|held| age(held.at, now) < MAX_AGE)
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let young = |held: &Held| age(held.at, now) < REFRESH_AFTER;
        !self.held.as_ref().is_some_and(young)
    }

    fn is_cooling(&self, now: SystemTime) -> bool {
        self.last_attempt.is_some_and(|at| age(at, now) < COOL_DOWN)
    }

    /// The keys, where the last attempt got them: whether a key they lack exists by now, nobody could
    /// say otherwise.
    fn up_to_date(&self, now: SystemTime) -> Result<Arc<KeySet>, Unverified> {
        match (self.usable(now), &self.failure) {
            (Some(held), None) => Ok(Arc::clone(&held.keys)),
            _ => Err(self.unavailable()),
        }
    }

    fn unavailable(&self) -> Unverified {
        let never = || FetchError::new("they have not been fetched yet");
        Unverified::Unavailable(self.failure.clone().unwrap_or_else(never))
    }
}

/// Time between the two. The clock may have been set back: nothing lasts until it has caught up.
fn age(at: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(at)
        .unwrap_or_else(|back| back.duration())
}

/// Ends a flight however it ends: also when the fetch panics, or the runtime goes away under it.
struct Landing {
    inner: Arc<Inner>,
    at: SystemTime,
    outcome: Option<Result<KeySet, FetchError>>,
    /// Dropped after the state was written.
    _over: watch::Sender<()>,
}

impl Landing {
    fn end(mut self, fetched: Result<Vec<u8>, FetchError>) {
        self.outcome = Some(fetched.and_then(|json| {
            KeySet::of_issuer(&json, &self.inner.algorithms)
                .map_err(|why| FetchError::new(format!("what came is no usable JWK set: {why}")))
        }));
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let outcome = self
            .outcome
            .take()
            .unwrap_or_else(|| Err(FetchError::new("the fetch broke off")));
        let mut state = self.inner.lock();
        state.flight = None;
        match outcome {
            Ok(keys) => {
                state.failure = None;
                state.held = Some(Held {
                    keys: Arc::new(keys),
                    at: self.at,
                });
            }
            Err(why) => state.failure = Some(why),
        }
    }
}

#[cfg(test)]
mod tests;

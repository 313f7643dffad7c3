//! The keys of a signer that publishes each at an address of its own, as Application Load Balancers do. The `kid`
//! of a token then says which address is asked, so it is held to a narrow form, and how often it can have one
//! asked is bounded, whatever comes of it (S10).

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::watch;

use super::{COOL_DOWN, FetchError, MAX_AGE, REFRESH_AFTER, Status, Unverified, age};
use crate::jwt::{Claims, JwtError, KeySet, Profile, PublicJwk, verify, verify::key_id};

/// Most fetches within [`COOL_DOWN`]: as many load balancers as one listener may have in front of it can come up
/// with a new key at once, and a flood of made-up `kid`s costs no more.
pub const FETCHES_A_WINDOW: usize = 4;

/// Most keys kept; the one that was fetched first goes.
const MAX_KEPT: usize = 32;

/// Most `kid`s remembered that led to nothing.
const MAX_MISSING: usize = 64;

/// Longest `kid` that is asked for: a UUID has 36 characters.
const MAX_KID: usize = 64;

/// Where each key comes from.
pub trait FetchKey: fmt::Debug + Send + Sync + 'static {
    /// The key called `kid` as PEM, or `None` where there is no such key. `kid` is 1 to 64 letters, digits and
    /// hyphens. It must end by itself in bounded time, and read a bounded answer.
    fn fetch(&self, kid: &str) -> FetchingKey<'_>;
}

/// A fetch under way.
pub type FetchingKey<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>, FetchError>> + Send + 'a>>;

/// The keys of one signer. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub struct KeysByKid(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Arc<dyn FetchKey>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order they were fetched.
    held: VecDeque<Held>,
    /// Those of `held`.
    keys: Arc<KeySet>,
    /// The fetch under way; one at a time.
    flight: Option<watch::Receiver<()>>,
    /// When the last fetches began, at most [`FETCHES_A_WINDOW`] of them.
    begun: VecDeque<SystemTime>,
    missing: VecDeque<Missing>,
    failure: Option<FetchError>,
    attempts: u64,
}

#[derive(Debug)]
struct Held {
    key: PublicJwk,
    at: SystemTime,
}

/// A `kid` that led to nothing a moment ago.
#[derive(Debug)]
struct Missing {
    kid: String,
    at: SystemTime,
    /// `None`: there is no such key.
    why: Option<FetchError>,
}

impl KeysByKid {
    /// No keys yet.
    pub fn new(source: Arc<dyn FetchKey>) -> Self {
        Self(Arc::new(Inner {
            source,
            state: Mutex::default(),
        }))
    }

    /// [`verify`](crate::jwt::verify()) with the key the token names, which is fetched if need be. Must run on tokio.
    /// What was started for a caller who gave up goes on for the others.
    ///
    /// # Errors
    /// [`Unverified`] tells a refused token from a key that can't be had.
    pub async fn verify(
        &self,
        token: &str,
        profile: &Profile,
        now: SystemTime,
    ) -> Result<Claims, Unverified> {
        loop {
            let keys = self.at_hand(now);
            match verify(token, profile, &keys, now) {
                Err(JwtError::UnknownKey) => {}
                verdict => return Ok(verdict?),
            }
            // Only here does a token cause a fetch: it is well-formed, and all but its key is known.
            let kid = key_id(token, profile, now)?;
            if !is_askable(&kid) {
                return Err(JwtError::UnknownKey.into());
            }
            // Ends: each round but the last waits for one of a bounded number of fetches.
            let mut flight = self.ask(&kid, now)?;
            while flight.changed().await.is_ok() {}
        }
    }

    /// How the keys are.
    pub fn status(&self) -> Status {
        let state = self.0.lock();
        Status {
            keys: state.held.len(),
            fetched_at: state.held.back().map(|held| held.at),
            failure: state.failure.clone(),
            attempts: state.attempts,
        }
    }

    /// The keys there are; one that is getting old is asked for again in the background.
    fn at_hand(&self, now: SystemTime) -> Arc<KeySet> {
        let mut state = self.0.lock();
        let before = state.held.len();
        state.held.retain(|held| age(held.at, now) < MAX_AGE);
        if state.held.len() != before {
            state.collect();
        }
        let old = state
            .held
            .iter()
            .find(|held| {
                age(held.at, now) >= REFRESH_AFTER && !state.is_missing(held.key.kid(), now)
            })
            .map(|held| held.key.kid().to_owned());
        if let Some(kid) = old {
            // Nobody waits for it.
            let _ = self.start(&mut state, &kid, now);
        }
        Arc::clone(&state.keys)
    }

    /// The fetch to wait for: that of `kid`, or the one that is under way.
    fn ask(&self, kid: &str, now: SystemTime) -> Result<watch::Receiver<()>, Unverified> {
        let mut state = self.0.lock();
        if let Some(missing) = state.missing(kid, now) {
            return Err(match &missing.why {
                None => JwtError::UnknownKey.into(),
                Some(why) => Unverified::Unavailable(why.clone()),
            });
        }
        self.start(&mut state, kid, now).ok_or_else(|| {
            Unverified::Unavailable(FetchError::new(
                "too many unknown keys were asked for a moment ago",
            ))
        })
    }

    fn start(&self, state: &mut State, kid: &str, now: SystemTime) -> Option<watch::Receiver<()>> {
        if let Some(flight) = &state.flight {
            return Some(flight.clone());
        }
        state.begun.retain(|at| age(*at, now) < COOL_DOWN);
        if state.begun.len() >= FETCHES_A_WINDOW {
            return None;
        }
        state.begun.push_back(now);
        state.attempts = state.attempts.saturating_add(1);
        let (over, flight) = watch::channel(());
        state.flight = Some(flight.clone());
        let landing = Landing {
            inner: Arc::clone(&self.0),
            kid: kid.to_owned(),
            at: now,
            outcome: None,
            _over: over,
        };
        // A task of its own, so that no caller's giving up ends it.
        tokio::spawn(async move {
            let fetched = landing.inner.source.fetch(&landing.kid).await;
            landing.end(fetched);
        });
        Some(flight)
    }
}

/// Whether a `kid` may become part of an address.
fn is_askable(kid: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=MAX_KID).contains(&kid.len()) && kid.bytes().all(is_plain)
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it, and if it did, the state is whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn missing(&self, kid: &str, now: SystemTime) -> Option<&Missing> {
        let is_it = |it: &&Missing| it.kid == kid && age(it.at, now) < COOL_DOWN;
        self.missing.iter().find(is_it)
    }

    fn is_missing(&self, kid: &str, now: SystemTime) -> bool {
        self.missing(kid, now).is_some()
    }

    fn collect(&mut self) {
        let keys = self.held.iter().map(|held| held.key.clone()).collect();
        self.keys = Arc::new(KeySet::new(keys));
    }

    fn forget(&mut self, kid: &str) {
        self.held.retain(|held| held.key.kid() != kid);
        self.missing.retain(|missing| missing.kid != kid);
    }
}

/// Ends a flight however it ends: also when the fetch panics, or the runtime goes away under it.
struct Landing {
    inner: Arc<Inner>,
    kid: String,
    at: SystemTime,
    outcome: Option<Result<Option<PublicJwk>, FetchError>>,
    /// Dropped after the state was written.
    _over: watch::Sender<()>,
}

impl Landing {
    fn end(mut self, fetched: Result<Option<Vec<u8>>, FetchError>) {
        let read = |pem: Vec<u8>| {
            PublicJwk::p256_from_pem(&self.kid, &pem)
                .map_err(|why| FetchError::new(format!("what came is no usable key: {why}")))
        };
        self.outcome = Some(fetched.and_then(|pem| pem.map(read).transpose()));
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
        let why = match outcome {
            Ok(Some(key)) => {
                state.forget(&self.kid);
                if state.held.len() >= MAX_KEPT {
                    state.held.pop_front();
                }
                state.held.push_back(Held { key, at: self.at });
                state.collect();
                state.failure = None;
                return;
            }
            // It was taken back.
            Ok(None) => {
                state.forget(&self.kid);
                state.collect();
                state.failure = None;
                None
            }
            Err(why) => {
                state.failure = Some(why.clone());
                Some(why)
            }
        };
        let kid = self.kid.clone();
        state.missing.retain(|missing| missing.kid != kid);
        if state.missing.len() >= MAX_MISSING {
            state.missing.pop_front();
        }
        state.missing.push_back(Missing {
            kid,
            at: self.at,
            why,
        });
    }
}

#[cfg(test)]
mod tests;

//! Tokens: the authority's JWT-SVIDs by audience and access tokens by audience and scopes, and those of other issuers;
//! cached, refreshed ahead, never one per request.
//!
//! A route takes its [`Source`] when it is wired, so only audiences that routes name are ever
//! minted for calls (S5) and there are only so many of them (S14). What the app itself asks for goes through
//! [`Requested`], which forgets: the authority's rules say what it may have. All that wait for one token wait for
//! the same mint, which runs in a task of its own: a caller that goes away cancels nothing.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use http::HeaderValue;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
};
use warifu::Secret;

use cache::{Cache, Step};

mod cache;
pub mod oauth;
mod requested;
mod wanted;

pub use requested::{MAX_REQUESTED, Requested};
pub use wanted::{AwsWebIdentity, Wanted};

/// Time one mint may take. The authority answers in milliseconds; requests wait for the first one.
const MINT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest and shortest sleep of whoever keeps tokens at hand: a corrected clock must not stretch a wait, and nothing
/// makes it spin.
const MAX_SLEEP: Duration = Duration::from_secs(30);
const MIN_SLEEP: Duration = Duration::from_millis(100);

/// RFC 6750 §2.1.
const BEARER: &str = "Bearer ";

/// A mint under way.
pub type Minting = Pin<Box<dyn Future<Output = Result<Minted, MintError>> + Send>>;

/// Where tokens come from: the authority, another issuer, or a test.
pub trait Mint: Send + Sync + std::fmt::Debug + 'static {
    /// A fresh token, exactly as wanted.
    fn mint(&self, wanted: Wanted) -> Minting;
}

/// A token with its expiry.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The token: a compact JWS, or what another issuer makes of one.
    pub token: Secret<String>,
    /// When it expires.
    pub expires_at: SystemTime,
    /// The scopes of an access token.
    pub scopes: Vec<String>,
}

/// Why no token could be had.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// Decided: asking again changes nothing until a rule does.
    #[error("the authority refused a token for audience {audience}: {why}")]
    Refused {
        /// The audience.
        audience: String,
        /// What it objects to.
        to: Objection,
        /// Its reason.
        why: String,
    },
    /// Decided by an issuer other than the authority.
    #[error(
        "{by} gave {client} no token ({}, {why})",
        error.unwrap_or("without an error code")
    )]
    Denied {
        /// The issuer: its token endpoint's URL.
        by: String,
        /// Who asked.
        client: String,
        /// Its error code, where it is one that is known.
        error: Option<&'static str>,
        /// What that means. Nothing of what the issuer said beside its code.
        why: String,
    },
    /// May pass.
    #[error("no token for audience {audience}: {why}")]
    Unavailable {
        /// The audience.
        audience: String,
        /// The last error.
        why: String,
    },
}

impl MintError {
    /// Whether asking again soon is pointless.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Unavailable { .. })
    }
}

/// What the authority objects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objection {
    /// The audience.
    Audience,
    /// A scope.
    Scope,
    /// This agent, or any token of this kind.
    Any,
}

/// The tokens this agent holds. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokens(Arc<Shared>);

/// Tokens are kept at hand while this is.
#[derive(Debug)]
pub struct KeptFresh(JoinHandle<()>);

impl Drop for KeptFresh {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One token and its successors. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source(Arc<Slot>);

/// What the status page says of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenStatus {
    /// Which one.
    pub wanted: Wanted,
    /// The scopes of the token in use, where its issuer says.
    pub scopes: Vec<String>,
    /// When the token in use expires; `None` where none was wanted yet, or none could be had.
    pub expires: Option<SystemTime>,
    /// Mints that failed since the last that didn't.
    pub failures: u32,
    /// Why the last one failed.
    pub last_error: Option<String>,
}

/// A token that is valid for a while yet.
#[derive(Debug, Clone)]
pub struct Token(Arc<Held>);

#[derive(Debug)]
struct Held {
    authorization: HeaderValue,
    expires_at: SystemTime,
    scopes: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    mint: Arc<dyn Mint>,
    slots: Mutex<BTreeMap<Wanted, Source>>,
    requested: Mutex<Vec<Weak<requested::Held>>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Metrics {
    minted: Counter,
    refused: Counter,
    failed: Counter,
    requested: Gauge,
}

#[derive(Debug)]
struct Slot {
    wanted: Wanted,
    mint: Arc<dyn Mint>,
    cache: Mutex<Cache>,
    /// Told after every mint, whatever came of it.
    settled: Notify,
    metrics: Arc<Metrics>,
}

impl Tokens {
    /// No tokens yet; `mint` makes them.
    pub fn new(mint: Arc<dyn Mint>) -> Self {
        Self(Arc::new(Shared {
            mint,
            slots: Mutex::default(),
            requested: Mutex::default(),
            metrics: Arc::default(),
        }))
    }

    /// The same token for everyone who wants it. For wiring: whatever is named here can be minted and is
    /// never forgotten, so it must not come from a request.
    pub fn source(&self, wanted: Wanted) -> Source {
        self.source_of(wanted, Arc::clone(&self.0.mint))
    }

    /// As [`source`](Self::source), of an issuer of its own. `wanted` says all that tells its tokens from others:
    /// where a source of the same is there already, it is that one.
    pub fn source_of(&self, wanted: Wanted, mint: Arc<dyn Mint>) -> Source {
        let mut slots = lock(&self.0.slots);
        let slot = slots
            .entry(wanted.clone())
            .or_insert_with(|| Source::new(mint, wanted, &self.0.metrics));
        slot.clone()
    }

    /// Tokens that requests name, beside those of [`source`](Self::source). Needs a runtime.
    pub fn requested(&self) -> Requested {
        let requested = Requested::new(Arc::clone(&self.0));
        let mut stores = lock(&self.0.requested);
        stores.retain(|it| it.strong_count() > 0);
        stores.push(Arc::downgrade(requested.held()));
        drop(stores);
        requested
    }

    /// Keeps every token at hand that was named so far, once `there_is_an_identity`: what calls need is
    /// there when the authority is not. Ends when what is returned is dropped.
    #[must_use]
    pub fn keep_fresh(
        &self,
        there_is_an_identity: impl Future<Output = ()> + Send + 'static,
    ) -> KeptFresh {
        let sources: Vec<Source> = lock(&self.0.slots).values().cloned().collect();
        KeptFresh(tokio::spawn(async move {
            there_is_an_identity.await;
            let mut all: JoinSet<()> = sources.into_iter().map(Source::keep_fresh).collect();
            while all.join_next().await.is_some() {}
        }))
    }

    /// For the status page: every token that was named, or requested.
    pub fn status(&self) -> Vec<TokenStatus> {
        let named: Vec<Source> = lock(&self.0.slots).values().cloned().collect();
        let stores: Vec<_> = lock(&self.0.requested)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        let named = named.iter().map(Source::status);
        named
            .chain(stores.iter().flat_map(|it| it.status()))
            .collect()
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        let metrics = &self.0.metrics;
        let registry = registry.sub_registry_with_prefix("token");
        registry.register("mints", "Tokens minted", metrics.minted.clone());
        registry.register(
            "mints_refused",
            "Tokens that were refused",
            metrics.refused.clone(),
        );
        registry.register(
            "mints_failed",
            "Mints that failed and may succeed later",
            metrics.failed.clone(),
        );
        registry.register(
            "requested",
            "Tokens that requests at local sockets named, and that are held",
            metrics.requested.clone(),
        );
    }
}

impl Source {
    fn new(mint: Arc<dyn Mint>, wanted: Wanted, metrics: &Arc<Metrics>) -> Self {
        Self(Arc::new(Slot {
            wanted,
            mint,
            cache: Mutex::new(Cache::new(jitter())),
            settled: Notify::new(),
            metrics: Arc::clone(metrics),
        }))
    }

    fn status(&self) -> TokenStatus {
        let cache = lock(&self.0.cache);
        let (expires, failures, last_error) = cache.status();
        TokenStatus {
            wanted: self.0.wanted.clone(),
            scopes: cache.scopes(),
            expires,
            failures,
            last_error,
        }
    }

    /// Which token it is.
    pub fn wanted(&self) -> &Wanted {
        &self.0.wanted
    }

    /// A valid token; waits only where there is none (S13: a failing refresh drops nothing).
    ///
    /// # Errors
    /// When there is no valid token and none could be had just now. The error is remembered for a
    /// moment, so that requests don't drive mints.
    pub async fn token(&self) -> Result<Token, MintError> {
        loop {
            let settled = self.0.settled.notified();
            let step = lock(&self.0.cache).step(SystemTime::now());
            match step {
                Step::Serve(token) => return Ok(token),
                Step::ServeAndRefresh(token) => {
                    self.refresh();
                    return Ok(token);
                }
                Step::Fail(error) => return Err(error),
                Step::Refresh => self.refresh(),
                Step::Wait => {}
            }
            settled.await;
        }
    }

    /// A token other than `refused`, which the upstream answered with 401. `None` where there is
    /// none: minting failed, or one was minted for this reason a moment ago and a flood of 401 must
    /// not become a flood of mints. `refused` stays in use until there is a newer one: the fault may
    /// well be the upstream's.
    pub async fn other_than(&self, refused: &Token) -> Option<Token> {
        let settled = self.0.settled.notified();
        let now = SystemTime::now();
        let start = {
            let mut cache = lock(&self.0.cache);
            if let Some(token) = cache.other_than(refused, now) {
                return Some(token);
            }
            cache.start_forced(now)?
        };
        if start {
            self.refresh();
        }
        settled.await;
        lock(&self.0.cache).other_than(refused, SystemTime::now())
    }

    /// Mints whenever it is time, whether or not anybody asks.
    async fn keep_fresh(self) {
        loop {
            let now = SystemTime::now();
            let due = lock(&self.0.cache).due(now);
            match due.duration_since(now) {
                Ok(wait) if !wait.is_zero() => tokio::time::sleep(wait.min(MAX_SLEEP)).await,
                _ => {
                    let _ = self.token().await;
                    // Whoever asked first may have been answered at once, or with an error that is still fresh.
                    tokio::time::sleep(MIN_SLEEP).await;
                }
            }
        }
    }

    /// Starts a mint where it is time for one; waits for none.
    fn freshen(&self) {
        let step = lock(&self.0.cache).step(SystemTime::now());
        if matches!(step, Step::Refresh | Step::ServeAndRefresh(_)) {
            self.refresh();
        }
    }

    /// Mints in a task of its own; the cache knows that it is under way.
    fn refresh(&self) {
        let settle = Settle {
            slot: Arc::clone(&self.0),
            outcome: None,
        };
        tokio::spawn(settle.mint());
    }
}

/// A mint under way. Dropped without an outcome (a panic, the runtime's end) it counts as failed,
/// so that nobody waits for ever.
struct Settle {
    slot: Arc<Slot>,
    outcome: Option<Result<Minted, MintError>>,
}

impl Settle {
    async fn mint(mut self) {
        let minting = self.slot.mint.mint(self.slot.wanted.clone());
        self.outcome = tokio::time::timeout(MINT_TIMEOUT, minting).await.ok();
    }
}

impl Drop for Settle {
    fn drop(&mut self) {
        let slot = &self.slot;
        let audience = slot.wanted.audience();
        let outcome = match self.outcome.take() {
            Some(outcome) => outcome.and_then(|minted| Token::new(minted, &audience)),
            None => Err(MintError::Unavailable {
                audience: audience.to_string(),
                why: format!("minting was given up (after {MINT_TIMEOUT:?} at most)"),
            }),
        };
        let now = SystemTime::now();
        let outcome = outcome.and_then(|token| match token.expires_at() > now {
            true => Ok(token),
            false => Err(MintError::Unavailable {
                audience: audience.to_string(),
                why: "the token was minted expired; compare this machine's clock with its \
                      issuer's (`warifu doctor`)"
                    .to_owned(),
            }),
        });
        match &outcome {
            Ok(_) => slot.metrics.minted.inc(),
            Err(error) if error.is_refusal() => slot.metrics.refused.inc(),
            Err(_) => slot.metrics.failed.inc(),
        };
        if let Err(error) = &outcome {
            // The same trouble at every attempt is one line, not a flood.
            let known = lock(&slot.cache).trouble();
            if known.is_none_or(|known| known != error.to_string()) {
                let kind = slot.wanted.kind();
                tracing::warn!(kind, %audience, %error, "no new token; will keep trying");
            }
        }
        lock(&slot.cache).settle(outcome, now, jitter());
        slot.settled.notify_waiters();
    }
}

impl Token {
    fn new(minted: Minted, audience: &str) -> Result<Self, MintError> {
        let text = Secret::new(format!("{BEARER}{}", minted.token.expose()));
        let mut authorization =
            HeaderValue::from_str(text.expose()).map_err(|_| MintError::Unavailable {
                audience: audience.to_owned(),
                why: "the issuer's answer is not a token".to_owned(),
            })?;
        authorization.set_sensitive(true);
        Ok(Self(Arc::new(Held {
            authorization,
            expires_at: minted.expires_at,
            scopes: minted.scopes,
        })))
    }

    /// The token alone, for whoever asked for it.
    pub fn expose(&self) -> &str {
        let text = self.0.authorization.to_str().unwrap_or_default();
        text.strip_prefix(BEARER).unwrap_or_default()
    }

    /// The scopes of an access token.
    pub fn scopes(&self) -> &[String] {
        &self.0.scopes
    }

    /// `Bearer TOKEN`, for the `authorization` header (RFC 6750 §2.1); marked sensitive.
    pub fn authorization(&self) -> HeaderValue {
        self.0.authorization.clone()
    }

    /// When it expires.
    pub fn expires_at(&self) -> SystemTime {
        self.0.expires_at
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Locks. Nothing panics while it holds one of these, and if something did, the data would be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A random share of one, so that agents that started together don't mint together.
fn jitter() -> f64 {
    let mut byte = [0];
    // Without randomness: no jitter.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    f64::from(byte[0]) / 256.0
}

#[cfg(test)]
mod tests;

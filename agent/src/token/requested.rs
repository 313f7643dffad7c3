//! Tokens for audiences that requests name. Unlike those of the configuration there may be any number of them, so
//! only so many are held (S14): those in use are kept fresh, what nobody asks for is forgotten.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, task::JoinHandle, time::Instant};
use warifu::SpiffeId;

use super::{MAX_SLEEP, MIN_SLEEP, MintError, Shared, Source, Token, TokenStatus, Wanted, lock};

/// Tokens, of whichever identity and set of audiences, that are held at once; so many mints at most are under way, too. An app calls a few
/// services; at 2 KiB each this is half a megabyte.
pub const MAX_REQUESTED: usize = 256;

/// A token nobody asked for in this time is forgotten: longer than the five minutes a JWT-SVID lives usually, so that
/// who asks once in each life finds one.
const KEPT_FOR: Duration = Duration::from_secs(15 * 60);

/// Tokens for audiences that requests name. Cheap to clone; when the last clone goes, they are forgotten.
#[derive(Debug, Clone)]
pub struct Requested {
    held: Arc<Held>,
    _tended: Arc<Tended>,
}

#[derive(Debug)]
pub(super) struct Held {
    shared: Arc<Shared>,
    entries: Mutex<HashMap<Key, Entry>>,
    added: Notify,
}

/// Whose token, and which.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key(SpiffeId, Wanted);

#[derive(Debug)]
struct Entry {
    source: Source,
    used: Instant,
}

/// The task that keeps them fresh, while this is.
#[derive(Debug)]
struct Tended(JoinHandle<()>);

impl Drop for Tended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Requested {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let held = Arc::new(Held {
            shared,
            entries: Mutex::default(),
            added: Notify::new(),
        });
        let tended = tokio::spawn(tend(Arc::clone(&held)));
        Self {
            held,
            _tended: Arc::new(Tended(tended)),
        }
    }

    pub(super) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// A JWT-SVID of `subject`, the first identity this agent holds, for exactly `audiences` in any order. As
    /// [`Source::token`]; those who ask for the same share one mint.
    ///
    /// # Errors
    /// As for [`Source::token`]; and when as many other tokens as may be held are being minted.
    pub async fn jwt_svid(
        &self,
        subject: &SpiffeId,
        audiences: Vec<String>,
    ) -> Result<Token, MintError> {
        let (audiences, of) = (in_order(audiences), None);
        self.token(subject, Wanted::JwtSvid { audiences, of }).await
    }

    /// As [`jwt_svid`](Self::jwt_svid), of a further identity this agent holds.
    ///
    /// # Errors
    /// As there.
    pub async fn further_jwt_svid(
        &self,
        subject: &SpiffeId,
        audiences: Vec<String>,
    ) -> Result<Token, MintError> {
        let (audiences, of) = (in_order(audiences), Some(subject.clone()));
        self.token(subject, Wanted::JwtSvid { audiences, of }).await
    }

    /// As [`jwt_svid`](Self::jwt_svid), for any token.
    ///
    /// # Errors
    /// As there.
    pub async fn token(&self, subject: &SpiffeId, wanted: Wanted) -> Result<Token, MintError> {
        let source = self.held.source(Key(subject.clone(), wanted))?;
        source.token().await
    }
}

/// Each once, in one order: who asks for the same in another has the same token.
fn in_order(mut audiences: Vec<String>) -> Vec<String> {
    audiences.sort();
    audiences.dedup();
    audiences
}

impl Held {
    fn source(&self, key: Key) -> Result<Source, MintError> {
        let now = Instant::now();
        let mut entries = lock(&self.entries);
        if let Some(entry) = entries.get_mut(&key) {
            entry.used = now;
            return Ok(entry.source.clone());
        }
        if entries.len() >= MAX_REQUESTED {
            let Some(oldest) = least_useful(&entries) else {
                return Err(MintError::Unavailable {
                    audience: key.1.audience().into_owned(),
                    why: format!("{MAX_REQUESTED} other tokens are being minted; try again"),
                });
            };
            entries.remove(&oldest);
            self.forgot(1);
        }
        let source = Source::new(
            Arc::clone(&self.shared.mint),
            key.1.clone(),
            &self.shared.metrics,
        );
        let entry = Entry {
            source: source.clone(),
            used: now,
        };
        entries.insert(key, entry);
        self.shared.metrics.requested.inc();
        self.added.notify_one();
        Ok(source)
    }

    /// Refreshes what is due and forgets what nobody asks for; returns how long there is nothing to do.
    fn freshen(&self, now: Instant) -> Duration {
        let clock = SystemTime::now();
        let mut entries = lock(&self.entries);
        let before = entries.len();
        entries.retain(|_, entry| now.duration_since(entry.used) < KEPT_FOR);
        self.forgot(before - entries.len());
        let mut wait = MAX_SLEEP;
        for Entry { source, .. } in entries.values() {
            let due = lock(&source.0.cache).due(clock);
            match due.duration_since(clock) {
                Ok(left) if !left.is_zero() => wait = wait.min(left),
                _ => {
                    source.freshen();
                    wait = MIN_SLEEP;
                }
            }
        }
        wait.max(MIN_SLEEP)
    }

    /// For the status page.
    pub(super) fn status(&self) -> Vec<TokenStatus> {
        let entries = lock(&self.entries);
        let mut status: Vec<_> = entries.values().map(|it| it.source.status()).collect();
        status.sort_by(|a, b| a.wanted.cmp(&b.wanted));
        status
    }

    /// The gauge is of all that were made from the same [`Tokens`](super::Tokens).
    fn forgot(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.shared.metrics.requested.dec_by(count);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.forgot(lock(&self.entries).len());
    }
}

/// What there is no token for, before what was not asked for longest. Never one that is being minted: whoever asks
/// for ever new audiences would have ever more mints under way.
fn least_useful(entries: &HashMap<Key, Entry>) -> Option<Key> {
    let idle = entries.iter().filter_map(|(key, entry)| {
        let cache = lock(&entry.source.0.cache);
        let has_token = cache.status().0.is_some();
        (!cache.is_minting()).then_some(((has_token, entry.used), key))
    });
    idle.min_by_key(|(usefulness, _)| *usefulness)
        .map(|(_, key)| key.clone())
}

async fn tend(held: Arc<Held>) {
    loop {
        let wait = held.freshen(Instant::now());
        tokio::select! {
            () = held.added.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

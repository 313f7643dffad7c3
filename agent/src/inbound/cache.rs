//! Tokens that verified, so that each costs one signature and not one per request.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::{authenticate::Authenticated, recent::Recent};

/// Tokens remembered in each of two halves: at some 2 KiB each, 16 MiB at most.
const HALF: usize = 4096;

/// What a token is found by: the whole of its SHA-256, as a truncated one could be hit on purpose; that of the peer's
/// certificate (zeros where there is none); and which header it came in, since each has entries of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) proof: [u8; 32],
    pub(super) certificate: [u8; 32],
    /// `authorization`, and not `x-amzn-oidc-data`.
    pub(super) is_bearer: bool,
}

/// What is remembered of a token.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub(super) caller: Arc<Authenticated>,
    /// Which entry of `accept` verified it …
    pub(super) verifier: usize,
    /// … and with which keys: those of another generation verify it anew.
    pub(super) generation: u64,
}

/// Verified tokens.
#[derive(Debug)]
pub(super) struct Cache(Mutex<Recent<Key, Entry>>);

#[derive(Debug)]
struct Entry {
    remembered: Remembered,
    until: SystemTime,
}

impl Default for Cache {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(HALF)))
    }
}

impl Cache {
    /// What is remembered of the token of `key` at `now`.
    pub(super) fn find(&self, key: &Key, now: SystemTime) -> Option<Remembered> {
        let mut recent = self.lock();
        let entry = recent.find(key, |entry| now < entry.until)?;
        Some(entry.remembered.clone())
    }

    /// Remembers the token of `key` until it expires.
    pub(super) fn insert(&self, key: Key, remembered: Remembered, until: SystemTime) {
        self.lock().keep(key, Entry { remembered, until });
    }

    /// What the lock guards is whole after every step.
    fn lock(&self) -> MutexGuard<'_, Recent<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn key(number: usize) -> Key {
        let mut proof = [0; 32];
        proof[..8].copy_from_slice(&number.to_be_bytes());
        Key {
            proof,
            certificate: [0; 32],
            is_bearer: true,
        }
    }

    fn fill(cache: &Cache, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let remembered = Remembered {
                caller: Arc::new(Authenticated::example()),
                verifier: 0,
                generation: 1,
            };
            cache.insert(key(number), remembered, NOW + Duration::from_secs(60));
        }
    }

    fn has(cache: &Cache, number: usize) -> bool {
        cache.find(&key(number), NOW).is_some()
    }

    #[test]
    fn s09_a_token_is_forgotten_when_it_expires() {
        let cache = Cache::default();
        fill(&cache, 0..1);
        let found = |after| {
            cache
                .find(&key(0), NOW + Duration::from_millis(after))
                .is_some()
        };
        assert!(found(59_999) && !found(60_000));
        assert!(!has(&cache, 1));
    }

    #[test]
    fn s09_a_token_is_another_with_another_certificate_and_in_another_header() {
        let cache = Cache::default();
        fill(&cache, 0..1);
        let mut other = key(0);
        other.certificate = [7; 32];
        assert!(cache.find(&other, NOW).is_none());
        let mut other = key(0);
        other.is_bearer = false;
        assert!(cache.find(&other, NOW).is_none());
        assert!(has(&cache, 0));
    }

    #[test]
    fn s14_the_cache_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::default();
        fill(&cache, 0..HALF);
        fill(&cache, HALF..HALF + 1);
        assert!(has(&cache, 0) && has(&cache, HALF));
        fill(&cache, HALF + 1..2 * HALF);
        assert!(has(&cache, 0), "what was used moved on");
        assert!(!has(&cache, 1), "what was not is forgotten");
        fill(&cache, 0..5 * HALF);
        assert!(cache.lock().len() <= 2 * HALF);
    }
}

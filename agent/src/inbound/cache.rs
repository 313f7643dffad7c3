//! Tokens that verified, so that each costs one signature and not one per request.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::authenticate::Authenticated;

/// Tokens remembered in each of two halves: at some 2 KiB each, 16 MiB at most.
const HALF: usize = 4096;

/// What a token is found by: the SHA-256 of the token and that of the peer's certificate (zeros where
/// there is none). The whole of both: a truncated one could be hit on purpose.
pub(super) type Key = [[u8; 32]; 2];

/// Verified tokens. Two halves stand in for an order of use: what is asked for moves to the young
/// half, and when that is full the old one is forgotten.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    /// The identity snapshot whose keys verified what is here.
    generation: u64,
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    caller: Arc<Authenticated>,
    until: SystemTime,
}

impl Cache {
    /// Whom the token of `key` proves at `now`, if it was verified with the keys of `generation`.
    pub(super) fn find(
        &self,
        key: &Key,
        generation: u64,
        now: SystemTime,
    ) -> Option<Arc<Authenticated>> {
        let mut halves = self.lock();
        if halves.generation != generation {
            return None;
        }
        if let Some(entry) = halves.young.get(key) {
            return (now < entry.until).then(|| Arc::clone(&entry.caller));
        }
        let entry = halves.old.remove(key)?;
        if now >= entry.until {
            return None;
        }
        halves.keep(*key, entry.clone());
        Some(entry.caller)
    }

    /// Remembers that the token of `key` proves `caller` until it expires.
    pub(super) fn insert(
        &self,
        key: Key,
        generation: u64,
        caller: Arc<Authenticated>,
        until: SystemTime,
    ) {
        let mut halves = self.lock();
        if halves.generation > generation {
            // Verified with keys that were replaced meanwhile.
            return;
        }
        if halves.generation < generation {
            // Whatever changed, the keys may have: every token is verified anew.
            *halves = Halves {
                generation,
                ..Halves::default()
            };
        }
        halves.keep(key, Entry { caller, until });
    }

    /// What the lock guards is whole after every step.
    fn lock(&self) -> MutexGuard<'_, Halves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Halves {
    fn keep(&mut self, key: Key, entry: Entry) {
        if self.young.len() >= HALF {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn key(number: usize) -> Key {
        let mut key = [[0; 32]; 2];
        key[0][..8].copy_from_slice(&number.to_be_bytes());
        key
    }

    fn fill(cache: &Cache, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let caller = Arc::new(Authenticated::example());
            cache.insert(key(number), 1, caller, NOW + Duration::from_secs(60));
        }
    }

    fn has(cache: &Cache, number: usize) -> bool {
        cache.find(&key(number), 1, NOW).is_some()
    }

    #[test]
    fn s09_a_token_is_forgotten_when_it_expires() {
        let cache = Cache::default();
        fill(&cache, 0..1);
        assert!(
            cache
                .find(&key(0), 1, NOW + Duration::from_millis(59_999))
                .is_some()
        );
        assert!(
            cache
                .find(&key(0), 1, NOW + Duration::from_secs(60))
                .is_none()
        );
        assert!(!has(&cache, 1));
    }

    #[test]
    fn s09_every_token_is_verified_anew_when_the_keys_change() {
        let cache = Cache::default();
        fill(&cache, 0..2);
        assert!(cache.find(&key(0), 2, NOW).is_none());
        let caller = Arc::new(Authenticated::example());
        cache.insert(key(0), 2, caller, NOW + Duration::from_secs(60));
        assert!(cache.find(&key(0), 2, NOW).is_some());
        assert!(cache.find(&key(1), 2, NOW).is_none());
        // A slow verification with the keys of before leaves nothing behind.
        fill(&cache, 3..4);
        assert!(cache.find(&key(3), 2, NOW).is_none() && !has(&cache, 3));
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
        let halves = cache.lock();
        assert!(halves.young.len() + halves.old.len() <= 2 * HALF);
    }
}

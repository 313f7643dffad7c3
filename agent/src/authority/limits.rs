//! How often one account may attest: a flood of valid evidence from one must not starve the others.
//! Token buckets; pure, time is handed in.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use super::rules::Facts;

/// How many seconds' worth an account may use at once: a cold start of all it has.
const BURST: u32 = 20;
/// Accounts that are told apart. Beyond it, new ones share a bucket until some have been quiet; a
/// bucket is below 200 bytes.
const MAX_ACCOUNTS: usize = 10_000;

/// The buckets of one authority.
#[derive(Debug)]
pub(super) struct PerAccount {
    per_second: f64,
    buckets: Mutex<HashMap<Key, Bucket>>,
}

/// Who shares a bucket: an attestor's account, namespace or subject. `None` takes what is left over.
type Key = Option<(String, String)>;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: SystemTime,
}

impl PerAccount {
    /// `per_second` attestations for each account.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second: f64::from(per_second.max(1)),
            buckets: Mutex::default(),
        }
    }

    /// Takes one attestation from the account `facts` speak of, or says how long to wait.
    pub(super) fn take(
        &self,
        attestor: &str,
        facts: &Facts,
        now: SystemTime,
    ) -> Result<(), Duration> {
        let burst = self.per_second * f64::from(BURST);
        // Whole after every step, so a panic elsewhere is no reason to stop.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = Some((attestor.to_owned(), account(facts).to_owned()));
        if !buckets.contains_key(&key) && buckets.len() >= MAX_ACCOUNTS {
            // A bucket that has filled up again is as good as none.
            buckets.retain(|_, bucket| bucket.tokens_at(now, self.per_second, burst) < burst);
            if buckets.len() >= MAX_ACCOUNTS {
                key = None;
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket {
            tokens: burst,
            at: now,
        });
        let tokens = bucket.tokens_at(now, self.per_second, burst);
        let left = tokens - 1.0;
        *bucket = Bucket {
            tokens: if left < 0.0 { tokens } else { left },
            at: now,
        };
        if left < 0.0 {
            return Err(Duration::from_secs_f64(-left / self.per_second));
        }
        Ok(())
    }
}

impl Bucket {
    fn tokens_at(&self, now: SystemTime, per_second: f64, burst: f64) -> f64 {
        // A clock set back fills nothing.
        let passed = now.duration_since(self.at).unwrap_or_default();
        (self.tokens + passed.as_secs_f64() * per_second).min(burst)
    }
}

/// What an attestor's operator would call the account of these facts: of AWS, a cluster's namespace, or
/// an issuer's subject.
fn account(facts: &Facts) -> &str {
    ["account", "namespace", "sub"]
        .iter()
        .find_map(|name| facts.get(*name))
        .map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: SystemTime = SystemTime::UNIX_EPOCH;

    fn of(account: &str) -> Facts {
        Facts::from([("account".to_owned(), account.to_owned())])
    }

    fn drained(limits: &PerAccount, account: &str, now: SystemTime) -> u32 {
        let mut taken = 0;
        while limits.take("aws", &of(account), now).is_ok() {
            taken += 1;
        }
        taken
    }

    #[test]
    fn s14_a_flood_of_one_account_leaves_another_its_own() {
        let limits = PerAccount::new(10);
        assert_eq!(drained(&limits, "111111111111", T0), 10 * BURST);
        assert!(limits.take("aws", &of("222222222222"), T0).is_ok());
        assert!(limits.take("eks", &of("111111111111"), T0).is_ok());
    }

    #[test]
    fn who_waits_as_long_as_told_is_admitted() {
        let limits = PerAccount::new(10);
        drained(&limits, "1", T0);
        let wait = limits.take("aws", &of("1"), T0).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(limits.take("aws", &of("1"), T0 + wait / 2).is_err());
        assert!(limits.take("aws", &of("1"), T0 + wait).is_ok());
        assert!(limits.take("aws", &of("1"), T0 + wait).is_err());
    }

    #[test]
    fn a_quiet_account_saves_up_one_burst_and_no_more() {
        let limits = PerAccount::new(10);
        drained(&limits, "1", T0);
        let later = T0 + Duration::from_secs(3600);
        assert_eq!(drained(&limits, "1", later), 10 * BURST);
    }

    #[test]
    fn a_clock_set_back_gives_nothing_and_takes_nothing() {
        let limits = PerAccount::new(10);
        let later = T0 + Duration::from_secs(3600);
        drained(&limits, "1", later);
        assert!(limits.take("aws", &of("1"), T0).is_err());
    }

    #[test]
    fn s14_accounts_are_bounded_and_strangers_then_share_one_bucket() {
        let limits = PerAccount::new(1);
        for account in 0..MAX_ACCOUNTS {
            limits.take("aws", &of(&account.to_string()), T0).unwrap();
        }
        assert_eq!(drained(&limits, "new", T0), BURST);
        assert!(limits.take("aws", &of("newer"), T0).is_err(), "shared");
        assert!(limits.take("aws", &of("7"), T0).is_ok(), "known before");
        // Once the others have been quiet, there is room again.
        let later = T0 + Duration::from_secs(60);
        assert_eq!(drained(&limits, "newest", later), BURST);
        assert!(limits.buckets.lock().unwrap().len() < MAX_ACCOUNTS);
    }
}

//! How many retries a route may make: a share of its requests, so that an upstream in trouble is not
//! asked twice for everything.

use std::sync::atomic::{AtomicI64, Ordering};

/// What a request adds, in thousandths of a retry: one in ten may be retried …
const DEPOSIT: i64 = 100;
/// … what a retry takes …
const RETRY: i64 = 1_000;
/// … and how many retries are saved up at most, and at the start.
const MOST: i64 = 10 * RETRY;

#[derive(Debug)]
pub(super) struct Budget(AtomicI64);

impl Budget {
    pub(super) fn new() -> Self {
        Self(AtomicI64::new(MOST))
    }

    /// A request was made.
    pub(super) fn deposit(&self) {
        if self.0.load(Ordering::Relaxed) < MOST {
            self.0.fetch_add(DEPOSIT, Ordering::Relaxed);
        }
    }

    /// Whether there is a retry left; takes it.
    pub(super) fn withdraw(&self) -> bool {
        let left = self.0.fetch_sub(RETRY, Ordering::Relaxed);
        if left >= RETRY {
            return true;
        }
        self.0.fetch_add(RETRY, Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_request_in_ten_is_retried() {
        let budget = Budget::new();
        let retries = (0..1_000).filter(|_| {
            budget.deposit();
            budget.withdraw()
        });
        let retries = retries.count();
        assert!((100..=112).contains(&retries), "{retries}");
    }
}

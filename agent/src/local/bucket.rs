//! How often something may be done.

use std::time::{Duration, Instant};

/// What may be done at once, and how long each further one waits for its turn: nobody's rotation of a secret goes wrong
/// more often, and the log stays readable.
pub(super) const BURST: u32 = 10;
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// So many at once, then one in each span.
#[derive(Debug)]
pub(super) struct Bucket {
    left: u32,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            filled: now,
        }
    }

    /// Whether one more may be.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled);
        let more = u32::try_from(since.as_nanos() / EVERY.as_nanos()).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.filled = now;
        }
        let one = self.left.checked_sub(1);
        self.left = one.unwrap_or_default();
        one.is_some()
    }
}

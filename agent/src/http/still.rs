//! Whether what was let in may go on: what is open for long is asked for now and then.

use std::{fmt, sync::Arc, task::Context, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// How often: a revocation list is no fresher than a poll of it.
pub const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Says why something may not go on.
#[derive(Clone)]
pub struct Still(Arc<dyn Fn() -> Result<(), String> + Send + Sync>);

/// A [`Still`] that is asked as something else is polled.
#[derive(Debug)]
pub(super) struct Asked {
    still: Still,
    next: Interval,
}

impl Still {
    /// It may while `says` is `Ok`.
    pub fn new(says: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(says))
    }

    /// Why it may not.
    pub(super) fn says(&self) -> Result<(), String> {
        (self.0)()
    }
}

impl Asked {
    pub(super) fn new(still: Still) -> Self {
        let mut next = interval_at(Instant::now() + CHECK_EVERY, CHECK_EVERY);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { still, next }
    }

    /// Why it may not go on, as of the last time it was asked; has the task woken when it is time to ask again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        while self.next.poll_tick(cx).is_ready() {
            self.still.says()?;
        }
        Ok(())
    }
}

impl fmt::Debug for Still {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Still").finish_non_exhaustive()
    }
}

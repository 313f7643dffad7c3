//! Whether what was let in may go on: what is open for long is asked for now and then.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// How often: a revocation list is no fresher than a poll of it.
pub const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Says why something may not go on.
#[derive(Clone)]
pub struct Still(Arc<dyn Fn() -> Answer + Send + Sync>);

/// On its way: whoever is asked may have to ask elsewhere, within a bounded time.
type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A [`Still`] that is asked as something else is polled, which goes on meanwhile.
pub(super) struct Asked {
    still: Still,
    next: Interval,
    answer: Option<Answer>,
}

impl Still {
    /// It may while `says` is `Ok`.
    pub fn new<F>(says: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(says())))
    }

    /// Why it may not.
    pub(super) fn says(&self) -> Answer {
        (self.0)()
    }
}

impl Asked {
    pub(super) fn new(still: Still) -> Self {
        let mut next = interval_at(Instant::now() + CHECK_EVERY, CHECK_EVERY);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            still,
            next,
            answer: None,
        }
    }

    /// Why it may not go on, as of the last time it was asked; has the task woken when it is time to ask again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        loop {
            if let Some(answer) = &mut self.answer {
                match answer.as_mut().poll(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(said) => {
                        self.answer = None;
                        said?;
                    }
                }
            }
            if self.next.poll_tick(cx).is_pending() {
                return Ok(());
            }
            self.answer = Some(self.still.says());
        }
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

impl fmt::Debug for Still {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Still").finish_non_exhaustive()
    }
}

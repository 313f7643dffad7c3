//! The signal that a server should end, and by when.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

/// Starts a drain. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Drain(watch::Sender<Option<Instant>>);

/// What a server watches for a drain; one clone for each.
#[derive(Debug, Clone)]
pub struct Draining(watch::Receiver<Option<Instant>>);

/// A drain for any number of servers.
pub fn drain() -> (Drain, Draining) {
    let (sender, receiver) = watch::channel(None);
    (Drain(sender), Draining(receiver))
}

impl Drain {
    /// Starts the drain: requests under way have `grace` to end. A second call can only shorten it.
    pub fn start(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.0.send_if_modified(|current| {
            let earlier = current.is_none_or(|current| deadline < current);
            if earlier {
                *current = Some(deadline);
            }
            earlier
        });
    }
}

impl Draining {
    /// Waits for the drain to start; returns its deadline.
    pub async fn started(&mut self) -> Instant {
        loop {
            if let Some(deadline) = *self.0.borrow_and_update() {
                return deadline;
            }
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether the drain has started.
    pub fn has_started(&self) -> bool {
        self.0.borrow().is_some()
    }
}

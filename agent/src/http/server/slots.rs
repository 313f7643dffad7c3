//! How many connections at once (S14).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections beyond the limit that are told so at once. When these are taken as well, no more is
/// accepted, and the kernel's queue fills.
const TURNED_AWAY: usize = 64;

/// The places of a listener.
#[derive(Debug)]
pub(super) struct Slots {
    regular: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    /// Beyond the limit: its requests are answered 503.
    pub(super) crowded: bool,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            regular: Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
        }
    }

    /// A place for the next connection; waits while even those for turning away are taken.
    pub(super) async fn take(&self) -> Slot {
        loop {
            let (permit, crowded) = tokio::select! {
                biased;
                permit = Arc::clone(&self.regular).acquire_owned() => (permit, false),
                permit = Arc::clone(&self.turned_away).acquire_owned() => (permit, true),
            };
            // The semaphores are never closed.
            if let Ok(permit) = permit {
                return Slot {
                    crowded,
                    _permit: permit,
                };
            }
        }
    }
}

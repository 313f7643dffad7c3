//! The connections of a server, and when each has to go.
//!
//! A busy HTTP/1.1 connection must not be closed between two requests: the next one may be on its
//! way. So it is asked first to say `Connection: close` with its next response, and only one that had
//! none for [`LINGER`] is closed while idle. HTTP/2 has GOAWAY for this.
//!
//! One tick of the server looks at all of them, so that a connection costs no timer, and a request
//! nothing but the read of a flag.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::http::tunnel::Tunnel;

/// How often connections are looked at.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// How long a connection that is to be closed may wait for a request to tell its client with.
const LINGER: Duration = Duration::from_secs(2);

/// Room for so many connections is kept when they are gone.
const ROOM: usize = 64;

/// Open connections by number.
#[derive(Debug, Default)]
pub(super) struct Open(Mutex<Connections>);

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    /// Since the drain began: when it ends.
    draining: Option<Instant>,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    last: Arc<AtomicBool>,
    /// When to say so.
    last_at: Option<Instant>,
    close: Option<oneshot::Sender<()>>,
    close_at: Option<Instant>,
    /// What it becomes when its HTTP ends.
    tunnel: Option<Tunnel>,
}

/// An open connection; dropped with it.
#[derive(Debug)]
pub(super) struct Entered {
    open: Arc<Open>,
    number: u64,
    /// Whether its next response is its last.
    pub(super) last: Arc<AtomicBool>,
    /// Resolves when it is to be shut down gracefully.
    pub(super) close: oneshot::Receiver<()>,
    /// When its age ends it. A drain doesn't change this: what became a tunnel has until the drain's end.
    pub(super) ends: Option<Instant>,
}

/// Closes one connection when the service says so.
#[derive(Debug, Clone)]
pub(super) struct Closer {
    open: Arc<Open>,
    number: u64,
}

impl Closer {
    /// The answers from now on are its last, and it is closed in a moment. Not at once: h2 may lose an answer
    /// that is handed over while its connection shuts down for want of others.
    pub(super) fn close(&self, now: Instant) {
        if let Some(entry) = self.open.lock().entries.get_mut(&self.number) {
            entry.last.store(true, Ordering::Relaxed);
            let soon = now + TICK;
            entry.close_at = Some(entry.close_at.map_or(soon, |at| at.min(soon)));
        }
    }
}

impl Closer {
    /// After the response that is being made, the connection is a tunnel.
    pub(super) fn becomes(&self, tunnel: Tunnel) {
        if let Some(entry) = self.open.lock().entries.get_mut(&self.number) {
            entry.tunnel = Some(tunnel);
        }
    }
}

impl Entered {
    /// What it became, once its HTTP has ended.
    pub(super) fn tunnel(&self) -> Option<Tunnel> {
        let mut connections = self.open.lock();
        connections.entries.get_mut(&self.number)?.tunnel.take()
    }

    /// What can close it.
    pub(super) fn closer(&self) -> Closer {
        Closer {
            open: Arc::clone(&self.open),
            number: self.number,
        }
    }
}

impl Open {
    /// Adds a connection that is to end before `end`.
    pub(super) fn enter(self: &Arc<Self>, now: Instant, end: Option<Instant>) -> Entered {
        let (sender, close) = oneshot::channel();
        let last = Arc::new(AtomicBool::new(false));
        let mut connections = self.lock();
        let number = connections.next;
        connections.next = number.wrapping_add(1);
        let age = end.map(|end| schedule(end.saturating_duration_since(now), jitter()));
        connections.entries.insert(
            number,
            Entry {
                last: Arc::clone(&last),
                last_at: age.map(|(last, _)| now + last),
                close: Some(sender),
                close_at: age.map(|(_, close)| now + close),
                tunnel: None,
            },
        );
        if let Some(deadline) = connections.draining {
            // Its handshake began before the drain did.
            connections.drain(now, deadline);
        }
        drop(connections);
        Entered {
            open: Arc::clone(self),
            number,
            last,
            close,
            ends: age.map(|(_, close)| now + close),
        }
    }

    /// Tells those whose time has come.
    pub(super) fn close_due(&self, now: Instant) {
        let mut connections = self.lock();
        connections.close_due(now);
        connections.tidy();
    }

    /// Everyone's time has come: idle ones have [`LINGER`], or half of what is left to `deadline`.
    /// So have those that come up later.
    pub(super) fn drain(&self, now: Instant, deadline: Instant) {
        let mut connections = self.lock();
        connections.draining = Some(deadline);
        connections.drain(now, deadline);
    }

    /// What the lock guards is whole after every step.
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn close_due(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            if entry.last_at.is_some_and(|at| at <= now) {
                entry.last.store(true, Ordering::Relaxed);
            }
            if entry.close_at.is_some_and(|at| at <= now)
                && let Some(close) = entry.close.take()
            {
                // Fails when the connection is just ending.
                let _ = close.send(());
            }
        }
    }

    /// Gives up the room of a crowd that has gone.
    fn tidy(&mut self) {
        let room = ROOM.max(2 * self.entries.len());
        if self.entries.capacity() > 4 * room {
            self.entries.shrink_to(room);
        }
    }

    fn drain(&mut self, now: Instant, deadline: Instant) {
        let close_at = now + LINGER.min(deadline.saturating_duration_since(now) / 2);
        for entry in self.entries.values_mut() {
            entry.last_at = Some(now);
            entry.close_at = Some(entry.close_at.map_or(close_at, |at| at.min(close_at)));
        }
        self.close_due(now);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.open.lock().entries.remove(&self.number);
    }
}

/// When to announce the end of a connection and when to close it, of the time `left` to it. Ends a
/// tenth of it early at most, so that connections of the same age don't end together.
fn schedule(left: Duration, jitter: f64) -> (Duration, Duration) {
    let linger = LINGER.min(left.mul_f64(0.1)) + TICK;
    let close = left.mul_f64(1.0 - 0.1 * jitter).saturating_sub(TICK);
    (close.saturating_sub(linger), close)
}

/// Between 0 and 1; good enough to spread load, and for nothing else.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(()) as u32;
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_announced_then_closed_before_its_end() {
        for left in [1, 5, 60, 3600].map(Duration::from_secs) {
            for jitter in [0.0, 0.5, 1.0] {
                let (last, close) = schedule(left, jitter);
                assert!(last < close && close + TICK <= left, "{left:?}");
                assert!(
                    last + TICK * 2 + LINGER >= left.mul_f64(0.8),
                    "{left:?}: {last:?}"
                );
            }
        }
        assert_eq!(
            schedule(Duration::ZERO, 1.0),
            (Duration::ZERO, Duration::ZERO)
        );
    }

    #[tokio::test]
    async fn a_connection_that_is_to_close_says_so_at_once_and_closes_at_the_next_tick() {
        let open = Arc::new(Open::default());
        let now = Instant::now();
        let mut entered = open.enter(now, Some(now + Duration::from_secs(3600)));
        let closer = entered.closer();
        closer.close(now);
        assert!(entered.last.load(Ordering::Relaxed));
        open.close_due(now);
        assert!(entered.close.try_recv().is_err());
        open.close_due(now + TICK);
        assert_eq!(entered.close.try_recv(), Ok(()));
        drop(entered);
        closer.close(now);
    }

    #[tokio::test]
    async fn a_drain_announces_at_once_and_closes_idle_ones_later() {
        let open = Arc::new(Open::default());
        let now = Instant::now();
        let mut entered = open.enter(now, None);
        open.close_due(now + Duration::from_secs(1_000_000));
        assert!(!entered.last.load(Ordering::Relaxed));
        open.drain(now, now + Duration::from_secs(25));
        assert!(entered.last.load(Ordering::Relaxed));
        assert!(entered.close.try_recv().is_err());
        open.close_due(now + LINGER);
        assert_eq!(entered.close.try_recv(), Ok(()));
        drop(entered);
        assert!(open.lock().entries.is_empty());
    }

    #[tokio::test]
    async fn the_room_of_a_crowd_goes_with_it() {
        let open = Arc::new(Open::default());
        let now = Instant::now();
        let mut crowd: Vec<Entered> = (0..5_000).map(|_| open.enter(now, None)).collect();
        let room = || open.lock().entries.capacity();
        let crowded = room();
        open.close_due(now);
        assert_eq!(room(), crowded);
        crowd.truncate(3);
        open.close_due(now);
        assert!(room() < 4 * ROOM, "{}", room());
        assert_eq!(open.lock().entries.len(), 3);
    }

    #[tokio::test]
    async fn a_connection_that_comes_up_during_a_drain_ends_like_the_others() {
        let open = Arc::new(Open::default());
        let now = Instant::now();
        open.drain(now, now + Duration::from_secs(25));
        let mut late = open.enter(now, None);
        assert!(late.last.load(Ordering::Relaxed));
        assert!(late.close.try_recv().is_err());
        open.close_due(now + LINGER);
        assert_eq!(late.close.try_recv(), Ok(()));
    }
}

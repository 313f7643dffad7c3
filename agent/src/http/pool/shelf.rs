//! The connections of one upstream that could take a request. No I/O, and time is passed in.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicUsize, atomic::Ordering},
    time::Instant,
};

use hyper::client::conn::{http1, http2};
use tokio::task::AbortHandle;

use super::{Keep, SendError, Tls, connect::Proof};
use crate::http::body::Body;

/// Streams we put on one HTTP/2 connection, even where the peer allows more: 100 is what servers
/// commonly allow, and one lost packet stalls all of them.
const MAX_STREAMS: usize = 100;

/// Idle and shared connections, and what they have in common.
#[derive(Debug)]
pub(super) struct Shelf {
    tls: Option<Tls>,
    /// What the upstream speaks, once known.
    multiplexes: Option<bool>,
    /// Last in, first out: the rest gets old and is closed.
    idle: Vec<Idle>,
    shared: Vec<Shared>,
    next_id: u64,
    /// Failed connects, counted, and why the last one failed.
    failures: u64,
    last_failure: Option<SendError>,
}

/// What [`Shelf::checkout`] found.
pub(super) enum Checkout {
    /// This one can be used now.
    Connection(Connection),
    /// None, and so many connects failed so far, the last one like this.
    Failed(u64, SendError),
    /// None.
    Nothing,
}

/// A connection that is about to carry a request.
#[derive(Debug)]
pub(super) enum Connection {
    H1(H1),
    H2(H2),
}

/// An HTTP/1.1 connection: exclusive.
#[derive(Debug)]
pub(super) struct H1 {
    pub(super) sender: http1::SendRequest<Body>,
    pub(super) driver: Driver,
    pub(super) life: Life,
}

/// One stream's share of an HTTP/2 connection.
#[derive(Debug)]
pub(super) struct H2 {
    pub(super) sender: http2::SendRequest<Body>,
    pub(super) driver: Driver,
    pub(super) id: u64,
}

/// The task that moves a connection's bytes.
#[derive(Debug, Clone)]
pub(super) struct Driver {
    pub(super) task: AbortHandle,
    /// Why the connection broke, once it has: a peer's alert comes when nobody waits for anything.
    pub(super) ended: Arc<OnceLock<String>>,
}

/// A new connection.
pub(super) struct Made {
    pub(super) sender: Sender,
    pub(super) driver: Driver,
    pub(super) life: Life,
    pub(super) proof: Proof,
}

pub(super) enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>, Streams),
}

/// How many streams the peer allows at the moment.
pub(super) type Streams = Arc<AtomicUsize>;

/// What ends a connection's usefulness beside being closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// Of the credentials it was made with.
    pub(super) generation: u64,
    /// It takes no new request from then on.
    pub(super) until: Instant,
}

#[derive(Debug)]
struct Idle {
    connection: H1,
    since: Instant,
}

#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<Body>,
    driver: Driver,
    id: u64,
    allowed: Streams,
    in_flight: usize,
    life: Life,
    /// When `in_flight` last changed.
    used: Instant,
}

impl Shelf {
    pub(super) fn new(tls: Option<Tls>, http2: bool) -> Self {
        Self {
            multiplexes: tls.is_none().then_some(http2),
            tls,
            idle: Vec::new(),
            shared: Vec::new(),
            next_id: 0,
            failures: 0,
            last_failure: None,
        }
    }

    pub(super) fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    /// Replaces the TLS; what is returned is to be dropped after the lock.
    pub(super) fn set_tls(&mut self, tls: Tls) -> impl Sized + use<> {
        if self.generation().is_some_and(|now| now >= tls.generation) {
            return (Vec::new(), Vec::new());
        }
        self.tls = Some(tls);
        self.multiplexes = None;
        (
            std::mem::take(&mut self.idle),
            std::mem::take(&mut self.shared),
        )
    }

    /// `None` where every connect is for one request; else how many connects failed so far.
    pub(super) fn gate(&self) -> Option<u64> {
        (self.multiplexes != Some(false)).then_some(self.failures)
    }

    pub(super) fn failed(&mut self, error: SendError) {
        self.failures += 1;
        self.last_failure = Some(error);
    }

    pub(super) fn checkout(&mut self, now: Instant, keep: &Keep) -> Checkout {
        // Idle and yet not ready: it is being closed, or its task has not run since the end of its
        // last response. Nearly always the last one is ready.
        let usable = |idle: &Idle| {
            now.saturating_duration_since(idle.since) < keep.idle
                && idle.connection.sender.is_ready()
                && self.lives(&idle.connection.life, now)
        };
        if let Some(position) = self.idle.iter().rposition(usable) {
            let idle = self.idle.remove(position);
            return Checkout::Connection(Connection::H1(idle.connection));
        }
        let generation = self.generation().unwrap_or(0);
        self.shared.retain(|c| {
            !c.sender.is_closed() && c.life.generation >= generation && now < c.life.until
        });
        let free = self.shared.iter_mut().find(|c| c.in_flight < c.streams());
        if let Some(shared) = free {
            shared.in_flight += 1;
            shared.used = now;
            return Checkout::Connection(Connection::H2(H2 {
                sender: shared.sender.clone(),
                driver: shared.driver.clone(),
                id: shared.id,
            }));
        }
        match &self.last_failure {
            Some(error) => Checkout::Failed(self.failures, error.clone()),
            None => Checkout::Nothing,
        }
    }

    /// Takes in a new connection for the request that waits for it.
    pub(super) fn adopt(&mut self, made: Made) -> Connection {
        let Made {
            sender,
            driver,
            life,
            ..
        } = made;
        match sender {
            Sender::H1(sender) => {
                self.multiplexes = Some(false);
                Connection::H1(H1 {
                    sender,
                    driver,
                    life,
                })
            }
            Sender::H2(sender, allowed) => {
                self.multiplexes = Some(true);
                self.next_id += 1;
                let id = self.next_id;
                self.shared.push(Shared {
                    sender: sender.clone(),
                    driver: driver.clone(),
                    id,
                    allowed,
                    in_flight: 1,
                    life,
                    used: Instant::now(),
                });
                Connection::H2(H2 { sender, driver, id })
            }
        }
    }

    /// A new HTTP/1.1 connection for one request, of which the shelf learns nothing: others may get HTTP/2.
    pub(super) fn apart(made: Made) -> Option<Connection> {
        let Sender::H1(sender) = made.sender else {
            return None;
        };
        Some(Connection::H1(H1 {
            sender,
            driver: made.driver,
            life: made.life,
        }))
    }

    /// Takes back a connection whose response was read to its end; hands back what is to be dropped.
    pub(super) fn put(&mut self, connection: H1, now: Instant, keep: &Keep) -> Option<H1> {
        if connection.sender.is_closed()
            || !self.lives(&connection.life, now)
            || self.idle.len() >= keep.max_idle
        {
            return Some(connection);
        }
        self.idle.push(Idle {
            connection,
            since: now,
        });
        None
    }

    /// A stream of this connection ended.
    pub(super) fn stream_ended(&mut self, id: u64, now: Instant) {
        if let Some(shared) = self.shared.iter_mut().find(|shared| shared.id == id) {
            shared.in_flight = shared.in_flight.saturating_sub(1);
            shared.used = now;
        }
    }

    /// This connection takes no new request; what is returned is to be dropped after the lock.
    pub(super) fn retire(&mut self, id: u64) -> Option<impl Sized + use<>> {
        let position = self.shared.iter().position(|shared| shared.id == id)?;
        Some(self.shared.swap_remove(position))
    }

    /// Removes what is idle for too long, too old or closed; it is to be dropped after the lock.
    pub(super) fn sweep(&mut self, now: Instant, keep: &Keep) -> impl Sized + use<> {
        let generation = self.generation().unwrap_or(0);
        let over = |life: &Life| life.generation < generation || now >= life.until;
        let idle: Vec<_> = self
            .idle
            .extract_if(.., |idle| {
                idle.connection.sender.is_closed()
                    || now.saturating_duration_since(idle.since) >= keep.idle
                    || over(&idle.connection.life)
            })
            .collect();
        let shared: Vec<_> = self
            .shared
            .extract_if(.., |shared| {
                let unused = shared.in_flight == 0
                    && now.saturating_duration_since(shared.used) >= keep.idle;
                shared.sender.is_closed() || unused || over(&shared.life)
            })
            .collect();
        // A burst leaves a large vector behind; give that back, too.
        self.idle.shrink_to(8);
        (idle, shared)
    }

    /// Removes the connection that was idle longest, if any is idle.
    pub(super) fn evict_idle(&mut self) -> Option<impl Sized + use<>> {
        if !self.idle.is_empty() {
            return Some((Some(self.idle.remove(0)), None));
        }
        let unused = self
            .shared
            .iter()
            .position(|shared| shared.in_flight == 0)?;
        Some((None, Some(self.shared.swap_remove(unused))))
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.len() + self.shared.iter().filter(|c| c.in_flight == 0).count()
    }

    #[cfg(test)]
    pub(super) fn all_closed(&self) -> bool {
        self.idle
            .iter()
            .all(|idle| idle.connection.sender.is_closed())
    }

    fn generation(&self) -> Option<u64> {
        self.tls.as_ref().map(|tls| tls.generation)
    }

    fn lives(&self, life: &Life, now: Instant) -> bool {
        life.generation >= self.generation().unwrap_or(0) && now < life.until
    }
}

impl Shared {
    fn streams(&self) -> usize {
        self.allowed.load(Ordering::Relaxed).min(MAX_STREAMS)
    }
}

//! Connections to upstreams, kept and reused.
//!
//! ```text
//! Pool ──upstream(Destination, Keep)──▶ Upstream ──send(request)──▶ response
//!  │ how many connections at all          │ idle h1 connections (last in, first out),
//!  │ one sweeper                          │ shared h2 connections, the current TLS
//! ```
//!
//! An [`Upstream`] is made once (per route, per listener) and holds its own connections, so a
//! request costs one short lock and no key. What is safe to send twice is decided here, and only
//! here (S4): a request of which no byte was written goes to another connection; one that broke on
//! a *reused* connection before any answer is repeated once, and only if its method is idempotent
//! and its body is at hand. Nothing else is ever sent twice. Who has to touch a request before it
//! goes out again (a signature is good for one attempt) makes the attempts himself, with
//! [`Upstream::attempt`]; whether there is another is still decided here.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, atomic::AtomicBool, atomic::Ordering,
    },
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode, uri::Scheme};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::Body;
use connect::{Connector, NotMade};
pub use destination::{Address, Admit, Destination, Keep, Tls};
use dial::Failed;
pub use error::SendError;
use exchange::{Failure, exchange};
pub use far::{Far, FarParts, Place, Switches};
pub use lease::PooledBody;
pub use proxy::{Proxy, Verdict, verdict};
use shelf::{Checkout, Connection, Shelf};

mod connect;
mod destination;
mod dial;
mod error;
mod exchange;
mod far;
mod lease;
mod proxy;
mod shelf;

/// Connections a pool has open at once, to all its upstreams together. Far above what one pod
/// needs, below the usual limit of file descriptors (65,536), at some 40 KiB each 160 MiB.
pub const MAX_CONNECTIONS: usize = 4096;

/// How often idle connections past their time are closed. Checkout refuses them anyway; this only
/// gives their memory and descriptors back.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Reused connections that may turn out dead before a request insists on a new one.
const MAX_DEAD: usize = 2;

/// The pool: makes [`Upstream`]s, bounds them together, closes what is idle for too long.
/// Cheap to clone; connections end when it and its upstreams are gone.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Shared>);

/// One destination and its connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Inner>);

/// What came of one attempt.
#[derive(Debug)]
pub enum Attempt {
    /// The head of the response is here.
    Answered(Response<Body>),
    /// Send it again: this request, with a `host` header and in origin form.
    Again(Request<Body>),
    /// There is no connection to send it over: here it is, and why.
    NotSent(Request<Body>, SendError),
}

/// What was tried with one request so far.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Reused connections that turned out dead before a byte was written.
    dead: usize,
    /// It broke after it was, or may have been, written: it is sent once more and never again.
    repeated: bool,
}

#[derive(Debug)]
struct Shared {
    /// One permit per open connection, held by the task that drives it.
    permits: Arc<Semaphore>,
    limit: usize,
    upstreams: Mutex<Vec<Weak<Inner>>>,
    sweeping: AtomicBool,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Metrics {
    open: Gauge,
    connects: Counter,
    failed_connects: Counter,
    exhausted: Counter,
    repeated: Counter,
}

#[derive(Debug)]
pub(super) struct Inner {
    shared: Arc<Shared>,
    /// The destination, as errors name it.
    to: String,
    address: Address,
    proxy: Option<Proxy>,
    http2: bool,
    keep: Keep,
    failed: Failed,
    shelf: Mutex<Shelf>,
    /// Held while connecting to what may speak HTTP/2: a burst of first requests makes one
    /// connection, not one each.
    gate: tokio::sync::Mutex<()>,
}

impl Pool {
    /// A pool of at most `max_connections` ([`MAX_CONNECTIONS`] unless there is a reason).
    pub fn new(max_connections: usize) -> Self {
        Self(Arc::new(Shared {
            permits: Arc::new(Semaphore::new(max_connections)),
            limit: max_connections,
            upstreams: Mutex::default(),
            sweeping: AtomicBool::new(false),
            metrics: Metrics::default(),
        }))
    }

    /// A destination with connections of its own. Make it once and keep it: two upstreams of the
    /// same destination share nothing.
    pub fn upstream(&self, destination: Destination, keep: Keep) -> Upstream {
        let inner = Arc::new(Inner {
            shared: Arc::clone(&self.0),
            to: destination.address.to_string(),
            address: destination.address,
            proxy: destination.proxy,
            http2: destination.http2,
            keep,
            failed: Failed::default(),
            shelf: Mutex::new(Shelf::new(destination.tls, destination.http2)),
            gate: tokio::sync::Mutex::default(),
        });
        let mut upstreams = lock(&self.0.upstreams);
        upstreams.retain(|upstream| upstream.strong_count() > 0);
        upstreams.push(Arc::downgrade(&inner));
        Upstream(inner)
    }

    /// Registers the pool's metrics.
    pub fn register(&self, registry: &mut Registry, prefix: &str) {
        let metrics = &self.0.metrics;
        let registry = registry.sub_registry_with_prefix(prefix);
        registry.register("connections", "Open connections", metrics.open.clone());
        registry.register("connects", "Connections made", metrics.connects.clone());
        registry.register(
            "connects_failed",
            "Connects and handshakes that failed",
            metrics.failed_connects.clone(),
        );
        registry.register(
            "exhausted",
            "Requests refused because too many connections were open",
            metrics.exhausted.clone(),
        );
        registry.register(
            "repeated",
            "Requests sent again because a reused connection turned out dead",
            metrics.repeated.clone(),
        );
    }
}

impl Upstream {
    /// From now on new requests go over connections made with `tls`; idle ones of an older
    /// generation are closed at once, busy ones when they become idle. An older or equal
    /// generation than the current one changes nothing.
    pub fn set_tls(&self, tls: Tls) {
        let old = lock(&self.0.shelf).set_tls(tls);
        drop(old);
    }

    /// Sends one request; waits for the head of the response until `first_byte` has passed since
    /// the last byte of the request was handed over.
    ///
    /// The request has a `host` header (or an absolute URI); it goes out in origin form with `host`
    /// over HTTP/1.1, and with `:authority` over HTTP/2. Hop-by-hop headers are the caller's job.
    ///
    /// The connection serves the next request once the response's body was read to its end, and is
    /// closed (HTTP/2: the stream is reset) when the body is dropped before.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        &self,
        mut request: Request<Body>,
        first_byte: Duration,
    ) -> Result<Response<Body>, SendError> {
        let mut attempts = Attempts::default();
        loop {
            match self.attempt(request, first_byte, &mut attempts).await? {
                Attempt::Answered(response) => return Ok(response),
                Attempt::Again(again) => request = again,
                Attempt::NotSent(_, error) => return Err(error),
            }
        }
    }

    /// One attempt at [`Upstream::send`]: where that would send the request again, it comes back, to
    /// be handed in with the same `attempts`.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn attempt(
        &self,
        request: Request<Body>,
        first_byte: Duration,
        attempts: &mut Attempts,
    ) -> Result<Attempt, SendError> {
        if request.extensions().get::<Switches>().is_some() {
            // On the heap, as below.
            return Box::pin(self.0.switch(request, first_byte)).await;
        }
        let fresh = attempts.repeated || attempts.dead > MAX_DEAD;
        let (connection, reused) = match self.0.connection(fresh).await {
            Ok(connection) => connection,
            Err(error) => return Ok(Attempt::NotSent(request, error)),
        };
        let copy = if reused && !attempts.repeated {
            replay(&request)
        } else {
            None
        };
        let again = match exchange(&self.0, connection, request, first_byte).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(self.0.broken("it switched protocols unasked".to_owned()));
            }
            Ok(response) => return Ok(Attempt::Answered(response)),
            Err(Failure::Unsent(request, _)) if reused => {
                attempts.dead += 1;
                *request
            }
            Err(Failure::Unsent(_, why)) => return Err(self.0.broken(why)),
            Err(Failure::Broken(why)) => {
                let copy = copy.ok_or_else(|| self.0.broken(why))?;
                attempts.repeated = true;
                copy
            }
            Err(Failure::Final(error)) => return Err(error),
        };
        self.0.shared.metrics.repeated.inc();
        Ok(Attempt::Again(again))
    }
}

impl Inner {
    /// A connection that can take a request now, and whether it served others before.
    async fn connection(self: &Arc<Self>, fresh: bool) -> Result<(Connection, bool), SendError> {
        if !fresh && let Checkout::Connection(connection) = self.checkout() {
            return Ok((connection, true));
        }
        // On the heap: a TLS handshake is ten times as large as all else a request needs, and each request would
        // carry that room along, and be moved with it, to use it once in a thousand times.
        Box::pin(self.new_connection(fresh)).await
    }

    async fn new_connection(
        self: &Arc<Self>,
        fresh: bool,
    ) -> Result<(Connection, bool), SendError> {
        let gate = lock(&self.shelf).gate();
        let Some(failures) = gate else {
            // It speaks HTTP/1.1: a connection each.
            return Ok((self.connect().await?, false));
        };
        let gate = tokio::time::timeout(self.keep.connect, self.gate.lock())
            .await
            .map_err(|_| self.cannot_connect("waiting for a connection took too long".into()))?;
        if !fresh {
            match self.checkout() {
                Checkout::Connection(connection) => return Ok((connection, true)),
                // The attempt we waited for failed; ours would, too, and everyone's behind us.
                Checkout::Failed(count, error) if count != failures => return Err(error),
                Checkout::Failed(..) | Checkout::Nothing => {}
            }
        }
        if lock(&self.shelf).gate().is_none() {
            drop(gate);
        }
        match self.connect().await {
            Ok(connection) => Ok((connection, false)),
            Err(error) => {
                lock(&self.shelf).failed(error.clone());
                Err(error)
            }
        }
    }

    fn checkout(&self) -> Checkout {
        lock(&self.shelf).checkout(Instant::now(), &self.keep)
    }

    async fn connect(self: &Arc<Self>) -> Result<Connection, SendError> {
        let tls = lock(&self.shelf).tls();
        let (made, _) = self.connecting(tls, Connector::connect).await?;
        Ok(lock(&self.shelf).adopt(made))
    }

    /// Has `connect` make a connection with `tls`: within the time for it, counted, and blamed on the address
    /// that was tried if nothing comes of it.
    async fn connecting<T, F>(
        self: &Arc<Self>,
        tls: Option<Tls>,
        connect: impl FnOnce(Connector, Arc<Driven>) -> F,
    ) -> Result<(T, Arc<Driven>), SendError>
    where
        F: Future<Output = Result<T, NotMade>>,
    {
        let permit = self.permit().await?;
        self.shared.start_sweeping();
        let at = Arc::new(OnceLock::new());
        let connector = Connector {
            upstream: Arc::clone(self),
            tls,
            at: Arc::clone(&at),
        };
        let driven = Arc::new(self.driven(permit));
        let connecting = connect(connector, Arc::clone(&driven));
        let error = match tokio::time::timeout(self.keep.connect, connecting).await {
            Ok(Ok(made)) => {
                self.shared.metrics.connects.inc();
                return Ok((made, driven));
            }
            Ok(Err(NotMade::Failed(why))) => self.cannot_connect(why),
            Ok(Err(NotMade::Refused(why))) => {
                let to = self.to.clone();
                SendError::Refused { to, why }
            }
            Err(_) => SendError::ConnectTimedOut {
                to: self.to.clone(),
                after: self.keep.connect,
            },
        };
        self.shared.metrics.failed_connects.inc();
        if let Some(address) = at.get() {
            self.failed.note(*address);
        }
        Err(error)
    }

    /// A place for one more connection, where need be the place of an idle one of another upstream.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, SendError> {
        let permits = Arc::clone(&self.shared.permits);
        if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            return Ok(permit);
        }
        let evicted = self.shared.each_upstream(|upstream| {
            let idle = lock(&upstream.shelf).evict_idle();
            idle.is_some()
        });
        if evicted
            && let Ok(Ok(permit)) =
                tokio::time::timeout(self.keep.connect, permits.acquire_owned()).await
        {
            return Ok(permit);
        }
        self.shared.metrics.exhausted.inc();
        Err(SendError::Exhausted {
            to: self.to.clone(),
            limit: self.shared.limit,
        })
    }

    /// What the task that drives a connection holds as long as the connection is open.
    fn driven(&self, permit: OwnedSemaphorePermit) -> Driven {
        let open = self.shared.metrics.open.clone();
        open.inc();
        Driven {
            open,
            _permit: permit,
        }
    }

    /// What requests over HTTP/2 say of themselves.
    fn scheme(&self) -> Scheme {
        match self.http2 {
            true => Scheme::HTTP,
            false => Scheme::HTTPS,
        }
    }

    fn cannot_connect(&self, why: String) -> SendError {
        let to = self.to.clone();
        SendError::Connect { to, why }
    }

    fn broken(&self, why: String) -> SendError {
        let to = self.to.clone();
        SendError::Broken { to, why }
    }
}

/// Counts an open connection.
#[derive(Debug)]
struct Driven {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Shared {
    /// Calls `f` with each upstream until it says true; whether it did.
    fn each_upstream(&self, mut f: impl FnMut(&Inner) -> bool) -> bool {
        let upstreams: Vec<_> = lock(&self.upstreams).clone();
        let mut living = upstreams.iter().filter_map(Weak::upgrade);
        living.any(|upstream| f(&upstream))
    }

    /// Starts the sweeper with the first connection (a pool may be made outside a runtime). It ends
    /// when the pool is gone.
    fn start_sweeping(self: &Arc<Self>) {
        if self.sweeping.swap(true, Ordering::Relaxed) {
            return;
        }
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(SWEEP_EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                let now = Instant::now();
                shared.each_upstream(|upstream| {
                    let old = lock(&upstream.shelf).sweep(now, &upstream.keep);
                    drop(old);
                    false
                });
            }
        });
    }
}

/// A second copy of a request that may be sent twice: idempotent (RFC 9110 §9.2.2), body at hand.
pub fn replay(request: &Request<Body>) -> Option<Request<Body>> {
    if !request.method().is_idempotent() {
        return None;
    }
    let mut copy = Request::new(request.body().replay()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Locks. Nothing panics while it holds one of these, and if something did, the data would be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

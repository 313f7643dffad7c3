//! Accepting connections: limits, handshake, HTTP/1.1 and HTTP/2, ageing, drain.
//!
//! ```text
//! Listener::bind ──▶ serve ──accept──▶ slot ──▶ handshake ──▶ Service::open ──▶ Service::call …
//!  (before all else)   │                │ none free: 503       (once per         (per request)
//!                      │ drain, ageing  │ even those taken:     connection)
//!                      ▼                ▼ accept no more
//! ```
//!
//! Every server of the process is one of these: bind first, so that a port in use is known before
//! anything starts; then [`serve`] with a [`Service`], in a task of its own:
//!
//! ```ignore
//! let listener = Listener::bind(&config.listen)?;
//! let (drain, draining) = server::drain();
//! let serving = tokio::spawn(serve(listener, service, limits, metrics.listener("admin"), draining));
//! // … at the end:
//! drain.start(config.drain);
//! serving.await?;
//! ```

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Request, Response};
use hyper::body::Incoming;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use tokio::{task::JoinSet, time::Instant};

use super::{
    body::Body,
    origin,
    tunnel::{Handover, Tunnel},
};
use crate::config::defaults;
use open::Open;
use slots::Slots;

pub use drain::{Drain, Draining, drain};
pub use listener::{BindError, Listener};
pub use metrics::{ListenerMetrics, Metrics};

mod bounded;
mod connection;
mod drain;
mod handshake;
mod io;
mod listener;
mod metrics;
mod opaque;
mod open;
mod slots;
mod socket_path;
#[cfg(test)]
mod tests;

/// Time a connection may take to send the head of its next request; so the time it may be idle. Longer
/// than the 90 s after which common clients (Go, hyper, reqwest) drop an idle connection: they know
/// whether they are about to use it, we don't.
pub const IDLE: Duration = Duration::from_secs(120);

/// Bytes in the head of a request: twice what most servers take, as tokens travel in it. 431 beyond.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Requests at once on an HTTP/2 connection (RFC 9113 §6.5.2 recommends no less).
pub const MAX_STREAMS: u32 = 100;

/// How long to wait before accepting again when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server does with its connections and requests.
pub trait Service: Send + Sync + 'static {
    /// What the requests of one connection need: what is known of it, and of the service.
    type Session: Send + Sync + 'static;

    /// How the next connection is secured. Asked for each, so a new certificate serves at once.
    fn security(&self) -> Security {
        Security::Plaintext
    }

    /// A connection is up. An error closes it without an answer.
    ///
    /// # Errors
    /// What the log should say.
    fn open(&self, connection: Connection) -> Result<Opened<Self::Session>, Refused>;

    /// A connection ended before it was up.
    fn failed(&self, remote: &Remote, why: &Failed) {
        tracing::debug!(%remote, %why, "a connection failed before its first request");
    }

    /// Answers a request. Dropped, when the client goes away before it is done.
    fn call(
        session: Arc<Self::Session>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static;
}

/// How a connection is secured.
#[derive(Debug, Clone)]
pub enum Security {
    /// Not at all. HTTP/2 is spoken with clients that begin with its preface (RFC 9113 §3.3).
    Plaintext,
    /// TLS; ALPN says which HTTP is spoken.
    Tls(Tls),
    /// There is no certificate to present (yet): connections are closed, and this is why.
    Unavailable(&'static str),
}

/// The TLS of a connection.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The configuration.
    pub config: Arc<rustls::ServerConfig>,
    /// When the certificate it presents expires: the connection doesn't outlive it.
    pub expires: Option<SystemTime>,
}

/// A connection that is up.
#[derive(Debug)]
pub struct Connection {
    /// The other end.
    pub remote: Remote,
    /// Our end, as the client sees it.
    pub local: Option<SocketAddr>,
    /// The client's certificates, leaf first; empty where it presented none.
    pub peer_chain: Vec<CertificateDer<'static>>,
    /// What was agreed on, where TLS is spoken.
    pub tls: Option<Agreed>,
}

/// What a TLS handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// `TLSv1.3`.
    pub version: &'static str,
    /// The name that the client asked for.
    pub server_name: Option<String>,
    /// What is spoken above it.
    pub alpn: Option<Vec<u8>>,
}

/// What [`Service::open`] made of a connection.
#[derive(Debug)]
pub struct Opened<S> {
    /// Shared by its requests.
    pub session: Arc<S>,
    /// When the client's proof expires: the connection doesn't outlive it.
    pub expires: Option<SystemTime>,
}

/// Marks a response as the last of its connection. HTTP/1.1 ends with it; HTTP/2 is told so, and is sent GOAWAY
/// in a moment: streams that are under way end first.
pub fn close_after(response: &mut Response<Body>) {
    response.extensions_mut().insert(CloseAfter);
}

/// Makes a 101 the last response of its connection, and what comes after it a tunnel. Like any connection it
/// takes a place among the listener's, is aged with the rest, and is closed when a drain ends.
pub fn becomes(response: &mut Response<Body>, tunnel: Tunnel) {
    Handover::put(response.extensions_mut(), tunnel);
}

/// See [`close_after`].
#[derive(Debug, Clone, Copy)]
struct CloseAfter;

/// Why [`Service::open`] refuses a connection.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct Refused(pub &'static str);

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// Its address.
    Tcp(SocketAddr),
    /// The process that connected, as far as the kernel says.
    Unix(Option<Process>),
}

/// A process at the other end of a unix socket, when it connected (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Why a connection ended before it was up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Failed {
    /// No certificate to present.
    #[error("not available: {0}")]
    Unavailable(&'static str),
    /// The handshake took too long.
    #[error("the TLS handshake took longer than {0:?}")]
    TimedOut(Duration),
    /// The handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(std::io::Error),
    /// The service refused it.
    #[error("{0}")]
    Refused(#[from] Refused),
}

/// What a server allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once.
    pub max_connections: usize,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Time for the head of the next request.
    pub idle: Duration,
    /// Age at which a connection is closed in favour of a new one; `None`: never.
    pub max_age: Option<Duration>,
}

impl Limits {
    /// When a connection that is up `now` is to end, where what was proved `expires`.
    fn end(&self, now: Instant, expires: Option<SystemTime>) -> Option<Instant> {
        let valid = expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        let left = valid.into_iter().chain(self.max_age).min()?;
        now.checked_add(left)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: defaults::MAX_CONNECTIONS,
            handshake: defaults::HANDSHAKE_TIMEOUT,
            idle: IDLE,
            max_age: None,
        }
    }
}

/// Serves `listener` until a drain has ended. Dropped, it cuts every connection.
///
/// A drain stops accepting, tells clients (GOAWAY, `Connection: close`), and waits for requests under
/// way until its deadline. Returns how many connections were cut at the deadline.
pub async fn serve<S: Service>(
    listener: Listener,
    service: Arc<S>,
    limits: Limits,
    metrics: ListenerMetrics,
    draining: Draining,
) -> usize {
    let open = Arc::new(Open::default());
    let max = limits.max_connections;
    let server = connection::Server::new(service, limits, metrics.clone(), Arc::clone(&open));
    let server = Arc::new(server);
    let connection = |stream, remote, slot| Arc::clone(&server).connection(stream, remote, slot);
    run(listener, max, &metrics, &open, draining, connection).await
}

/// What is done with connections that are not HTTP. As a [`Service`], but for what comes when a connection is up.
pub trait Carrier: Send + Sync + 'static {
    /// What is known of one connection.
    type Session: Send + Sync + 'static;

    /// How the next connection is secured.
    fn security(&self) -> Security {
        Security::Plaintext
    }

    /// A connection is up. An error closes it.
    ///
    /// # Errors
    /// What the log should say.
    fn open(&self, connection: Connection) -> Result<Opened<Self::Session>, Refused>;

    /// A connection ended before it was up.
    fn failed(&self, remote: &Remote, why: &Failed) {
        tracing::debug!(%remote, %why, "a connection failed before its first byte");
    }

    /// Carries one until it ends, which is at `ends` at the latest. Dropped, it cuts it.
    fn carry(
        session: Arc<Self::Session>,
        near: &mut impl origin::Stream,
        ends: Option<Instant>,
    ) -> impl Future<Output = ()> + Send;
}

/// As [`serve`], for bytes that only the two ends understand. Connections beyond the limit are closed, and a drain has
/// no way to tell clients: it waits until its deadline.
pub async fn serve_bytes<C: Carrier>(
    listener: Listener,
    carrier: Arc<C>,
    limits: Limits,
    metrics: ListenerMetrics,
    draining: Draining,
) -> usize {
    let open = Arc::new(Open::default());
    let max = limits.max_connections;
    let server = opaque::Server::new(carrier, limits, metrics.clone(), Arc::clone(&open));
    let server = Arc::new(server);
    let connection = |stream, remote, slot| Arc::clone(&server).connection(stream, remote, slot);
    run(listener, max, &metrics, &open, draining, connection).await
}

/// Has each connection served in a task of its own, until a drain has ended.
async fn run<F>(
    listener: Listener,
    max: usize,
    metrics: &ListenerMetrics,
    open: &Open,
    mut draining: Draining,
    connection: impl Fn(io::Stream, Remote, slots::Slot) -> F,
) -> usize
where
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Slots::new(max);
    let mut connections = JoinSet::new();
    let mut tick = tokio::time::interval(open::TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);

    let deadline = {
        // Kept across the loop's turns: it may hold a connection that waits for a slot.
        let mut next = pin!(accept(&listener, &slots, metrics));
        loop {
            tokio::select! {
                biased;
                deadline = draining.started() => break deadline,
                Some(ended) = connections.join_next() => report(ended),
                _ = tick.tick(), if !connections.is_empty() => open.close_due(Instant::now()),
                (stream, remote, slot) = next.as_mut() => {
                    next.set(accept(&listener, &slots, metrics));
                    connections.spawn(connection(stream, remote, slot));
                }
            }
        }
    };

    drop(listener);
    open.drain(Instant::now(), deadline);
    loop {
        tokio::select! {
            biased;
            ended = connections.join_next() => match ended {
                Some(ended) => report(ended),
                None => return 0,
            },
            () = tokio::time::sleep_until(deadline) => break,
            _ = tick.tick() => open.close_due(Instant::now()),
        }
    }
    let cut = connections.len();
    tracing::warn!(connections = cut, "cut connections at the end of the drain");
    connections.shutdown().await;
    cut
}

/// The next connection, with a slot for it. Errors of `accept` concern one connection, or pass.
async fn accept(
    listener: &Listener,
    slots: &Slots,
    metrics: &ListenerMetrics,
) -> (io::Stream, Remote, slots::Slot) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => return (stream, remote, slots.take().await),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                metrics.accept_failed();
                tracing::error!(%error, listener = %listener, "accepting connections failed; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// A panic ends its own connection only (S17 says it must not happen at all).
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked; please report this");
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(Some(Process { uid, .. })) => write!(f, "uid {uid}"),
            Self::Unix(None) => write!(f, "a local process"),
        }
    }
}

/// A service of one function, for plaintext servers that need nothing of their connections.
pub struct Plain<F>(Arc<F>);

impl<F, R> Plain<F>
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    /// Answers requests with `answer`.
    pub fn new(answer: F) -> Arc<Self> {
        Arc::new(Self(Arc::new(answer)))
    }
}

impl<F, R> Service for Plain<F>
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    type Session = F;

    fn open(&self, _: Connection) -> Result<Opened<F>, Refused> {
        Ok(Opened {
            session: Arc::clone(&self.0),
            expires: None,
        })
    }

    fn call(
        session: Arc<F>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        session(request)
    }
}

impl<F> std::fmt::Debug for Plain<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain").finish_non_exhaustive()
    }
}

/// What hyper wants to hear: services here answer, they don't fail.
type Answer = Result<Response<Body>, Infallible>;

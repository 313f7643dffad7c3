//! Where connections go, and how long they are kept.

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls_pki_types::CertificateDer;

use super::Proxy;
use crate::config::defaults;

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A known socket address.
    Socket(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
    /// A name, resolved at each connect.
    Name(String, u16),
}

/// A destination: what connections of one [`Upstream`](super::Upstream) have in common.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Where to connect.
    pub address: Address,
    /// TLS, if spoken: ALPN then says which HTTP. Without it HTTP/1.1 is spoken, unless `http2` is set.
    pub tls: Option<Tls>,
    /// HTTP/2 without TLS, from the first byte (RFC 9113 §3.3): the peer is known to speak it.
    pub http2: bool,
    /// The proxy on the way, if any.
    pub proxy: Option<Proxy>,
}

impl Destination {
    /// What is reached directly; with `tls`, or as HTTP/1.1 without.
    pub fn new(address: Address, tls: Option<Tls>) -> Self {
        Self {
            address,
            tls,
            http2: false,
            proxy: None,
        }
    }
}

/// The TLS of a destination.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Verifies the peer and presents our identity; its ALPN list says which HTTP versions we offer.
    pub config: Arc<rustls::ClientConfig>,
    /// The name to ask for (SNI).
    pub server_name: rustls_pki_types::ServerName<'static>,
    /// Counts up when `config` changes: connections of an older generation take no new request.
    pub generation: u64,
    /// Has the last word on a peer that `config` verified.
    pub admit: Option<Admit>,
    /// When the identity that `config` presents expires: a tunnel doesn't outlive it.
    pub expires: Option<SystemTime>,
}

/// Looks at the chain of a verified peer, leaf first, before the first request: says why it is not admitted.
#[derive(Clone)]
pub struct Admit(Arc<Says>);

type Says = dyn Fn(&[CertificateDer<'_>]) -> Result<(), String> + Send + Sync;

impl Admit {
    /// Admits those for whom `says` is `Ok`.
    pub fn new(
        says: impl Fn(&[CertificateDer<'_>]) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(says))
    }

    pub(super) fn says(&self, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        (self.0)(chain)
    }
}

impl fmt::Debug for Admit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admit").finish_non_exhaustive()
    }
}

/// How long connections to an upstream are kept.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// An idle connection is closed after this time. Must be below the upstream's own limit, or a
    /// request meets a connection that is just being closed.
    pub idle: Duration,
    /// Idle HTTP/1.1 connections kept; the rest is closed as it becomes idle.
    pub max_idle: usize,
    /// A connection this old (less up to a fifth, so that they don't end together) takes no new
    /// request. A TLS peer's certificate ends it earlier when that expires.
    pub max_age: Duration,
    /// Time for name resolution, connect and TLS handshake together.
    pub connect: Duration,
}

impl Keep {
    /// The same, with this time to connect.
    #[must_use]
    pub fn connecting_within(self, connect: Duration) -> Self {
        Self { connect, ..self }
    }

    /// The app beside us. Below the shortest keep-alive of common app servers (gunicorn 2 s; Node
    /// and uvicorn 5 s): a new local connection costs tens of microseconds, a lost race a request.
    pub const APP: Self = Self {
        idle: Duration::from_millis(1_500),
        max_idle: 512,
        max_age: Duration::from_secs(600),
        connect: defaults::CONNECT_TIMEOUT,
    };

    /// Across the network. Idle below the 60 s of an ALB; old connections are left within ten
    /// minutes, so that new addresses of a name are found and new certificates are seen.
    pub const UPSTREAM: Self = Self {
        idle: Duration::from_secs(50),
        max_idle: 128,
        max_age: Duration::from_secs(600),
        connect: defaults::CONNECT_TIMEOUT,
    };
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

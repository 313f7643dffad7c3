//! Connections to upstreams, kept and reused: keyed by destination and credential generation.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use thiserror::Error;

use super::body::Body;

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

/// A destination: what one pool key is made of.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Where to connect.
    pub address: Address,
    /// TLS, if spoken.
    pub tls: Option<Tls>,
}

/// The TLS of a destination.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Verifies the peer and presents our identity.
    pub config: Arc<rustls::ClientConfig>,
    /// The name to ask for (SNI).
    pub server_name: rustls_pki_types::ServerName<'static>,
    /// Counts up when `config` changes: connections of an older generation take no new request.
    pub generation: u64,
}

/// Why a request could not be sent. `sent` says whether any byte of it may have reached the upstream.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// Could not connect, or the handshake failed.
    #[error("connecting to {to}: {why}")]
    Connect {
        /// The destination.
        to: String,
        /// What failed.
        why: String,
    },
    /// No answer in time.
    #[error("no answer from {to} within {after:?}")]
    TimedOut {
        /// The destination.
        to: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection failed after the request was (or may have been) sent.
    #[error("{to} closed the connection before it answered: {why}")]
    Broken {
        /// The destination.
        to: String,
        /// What failed.
        why: String,
    },
}

/// The pool.
#[derive(Debug, Clone)]
pub struct Pool {}

impl Pool {
    /// Sends one request; waits at most `first_byte` for the head of the response.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        &self,
        destination: &Destination,
        request: Request<Body>,
        first_byte: Duration,
    ) -> Result<Response<Incoming>, SendError> {
        let _ = (destination, request, first_byte);
        unimplemented!("pool")
    }
}

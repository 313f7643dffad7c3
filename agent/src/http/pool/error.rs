//! Why a request got no response.

use std::time::Duration;

use thiserror::Error;

/// Why a request got no response.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum SendError {
    /// Could not connect, or the handshake failed. Nothing was sent. (502)
    #[error("connecting to {to}: {why}")]
    Connect {
        /// The destination.
        to: String,
        /// What failed.
        why: String,
    },
    /// Could not connect in time. Nothing was sent. (504)
    #[error("connecting to {to}: timed out after {after:?}")]
    ConnectTimedOut {
        /// The destination.
        to: String,
        /// How long was waited.
        after: Duration,
    },
    /// The peer is who it should be, and not admitted all the same. Nothing was sent. (502)
    #[error("{to}: {why}")]
    Refused {
        /// The destination.
        to: String,
        /// Why not.
        why: String,
    },
    /// Too many connections are open. Nothing was sent. (503)
    #[error("no connection to {to}: all {limit} connections are in use")]
    Exhausted {
        /// The destination.
        to: String,
        /// The limit.
        limit: usize,
    },
    /// No answer in time; the request may have been served. (504)
    #[error("no answer from {to} within {after:?}")]
    TimedOut {
        /// The destination.
        to: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection failed after the request was (or may have been) sent. (502)
    #[error("{to} closed the connection before it answered: {why}")]
    Broken {
        /// The destination.
        to: String,
        /// What failed.
        why: String,
    },
    /// The request's own body failed: the downstream went away or broke off. (400, if anyone listens)
    #[error("the request's body broke off: {0}")]
    RequestBody(String),
    /// The request's own body did not go on: whoever sends it is slow. (408)
    #[error("the request's body did not go on for {after:?}")]
    RequestBodyLate {
        /// How long was waited.
        after: Duration,
    },
    /// The request's own body is larger than it may be. (413)
    #[error("the request's body is larger than it may be")]
    RequestBodyTooLarge,
    /// The request can't be written to this upstream, for want of a valid host. (400)
    #[error("no valid host in a request to {to}")]
    NoHost {
        /// The destination.
        to: String,
    },
}

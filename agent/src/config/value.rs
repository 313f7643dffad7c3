//! Values that occur in both files: durations, addresses, references to secrets, patterns.
//! Each parses from a string once ([`std::str::FromStr`]) and says what it expected when it can't.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use warifu::SpiffeId;

/// A span of time: `30s`, `15m`, `1h`, `500ms`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Where to listen: `unix:/path`, or `IP:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// The app behind the agent: `unix:/path` or `http://LOOPBACK:PORT`. Nothing else: what the agent
/// forwards carries identity headers, in plaintext.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Forward {
    /// A loopback TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// Where a route sends: `https://host[:port][/base]`, or `http://` for loopback hosts only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or IP address, lower case.
    pub host: String,
    /// Port; 443 or 80 where the URL has none.
    pub port: u16,
    /// Path put before the request's, in normal form, without a trailing slash; may be empty.
    pub base_path: String,
}

/// An `https://host[:port]` URL (the authority's).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpsOrigin {
    /// Host name or IP address, lower case.
    pub host: String,
    /// Port; 443 where the URL has none.
    pub port: u16,
}

/// A secret named, never written inline: `file:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// The whole content of a file, one trailing newline removed.
    File(PathBuf),
}

/// SHA-256 of a SubjectPublicKeyInfo: 64 hex digits or base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpkiPin(pub [u8; 32]);

/// Which SPIFFE IDs: `spiffe://td/path` where a segment `*` stands for one segment and a last `**` for the rest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdPattern {
    /// Trust domain, exact.
    pub trust_domain: String,
    /// Path segments.
    pub segments: Vec<Segment>,
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This segment exactly.
    Literal(String),
    /// Any one segment (`*`).
    One,
    /// The rest, at least one segment (`**`, last only).
    Rest,
}

/// What may be asked: `GET /charges/*`, `* /health`, `POST /reports/**`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The method; `None` for `*`.
    pub method: Option<String>,
    /// Path segments, in normal form.
    pub segments: Vec<Segment>,
    /// Whether the pattern ends in `/` (`GET /` is empty segments and true).
    pub trailing_slash: bool,
}

impl IdPattern {
    /// Whether `id` is one of these.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        let _ = id;
        unimplemented!("config")
    }
}

//! How a route's requests get to its upstream: times, retries, trust, the way.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    defaults,
    value::{self, As, Span, name},
};

/// What requests may take, on their way out or in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// Name resolution, connect and TLS handshake together.
    #[serde(default = "defaults::connect_timeout")]
    pub connect: Span,
    /// From the last byte of the request to the first of the response: 30 s where absent, and for gRPC no limit then;
    /// `0s` is no limit for any.
    pub first_byte: Option<Span>,
    /// From the head of the request to the last byte of the response, retries included; no limit where absent.
    /// A WebSocket has none.
    pub whole: Option<Span>,
}

/// When a request is sent again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retries {
    /// How often, at most.
    #[serde(default = "defaults::retries")]
    pub max: u32,
    /// After a 503 with a `retry-after` of at most two seconds, too, where the method is idempotent and the body
    /// at hand.
    #[serde(default)]
    pub on_503: bool,
}

/// How the upstream is verified, where that is not by `mtls`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteTls {
    /// Its CA certificates (PEM), in place of the public ones. Read again when the file changes.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    pub ca_bundle: Option<PathBuf>,
    /// The name its certificate must have, and that is asked for; the upstream's host where absent.
    #[serde(default, deserialize_with = "value::option::<name::Host, _>")]
    #[schemars(with = "Option<As<name::Host>>")]
    pub server_name: Option<String>,
}

/// Which HTTP is spoken to what is reached without TLS. With TLS, ALPN decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 from the first byte, as gRPC servers speak it.
    Http2,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: defaults::connect_timeout(),
            first_byte: None,
            whole: None,
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            max: defaults::RETRIES,
            on_503: false,
        }
    }
}

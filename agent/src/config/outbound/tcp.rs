//! `outbound.tcp`: opaque TCP over mTLS.

use schemars::JsonSchema;
use serde::Deserialize;

use super::RouteMtls;
use crate::config::value::{Listen, TcpUpstream};

/// A local listener whose connections are carried to an upstream over mTLS, byte for byte.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpRoute {
    /// Loopback or a unix socket.
    pub listen: Listen,
    /// Where its connections go.
    pub upstream: TcpUpstream,
    /// mTLS with our X.509-SVID.
    pub mtls: RouteMtls,
}

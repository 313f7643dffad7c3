//! Envoy's external authorization.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{local::Clients, value::IdPattern};

/// Which Envoys may ask for decisions (`envoy.service.auth.v3.Authorization`), of requests that they hold.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtAuthz {
    /// On a unix socket: which processes.
    #[serde(default)]
    pub clients: Clients,
    /// Over TCP: whose X.509-SVIDs. Envoy's own, never those of its clients.
    #[serde(default)]
    pub peers: Vec<IdPattern>,
}

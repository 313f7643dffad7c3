//! `local.workload_api`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Clients;
use crate::config::value::Listen;

/// The SPIFFE Workload API, and Envoy's secret discovery (SDS v3) beside it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadApi {
    /// A unix socket, for `SPIFFE_ENDPOINT_SOCKET`.
    pub listen: Listen,
    /// Which processes may ask.
    #[serde(default)]
    pub clients: Clients,
    /// Tells the app what the identity is for (`hint` of the Workload API): up to 1024 bytes.
    pub hint: Option<String>,
    /// Allows `listen` to be a loopback address: every process of this machine (its pod or task) then has
    /// this workload's private key for the asking.
    #[serde(default)]
    pub unsafe_tcp: bool,
}

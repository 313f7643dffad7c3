//! `local:` what the app can ask for on this machine.

use schemars::JsonSchema;
use serde::Deserialize;

mod aws_credentials;
mod files;
mod oauth;
mod workload_api;

pub use aws_credentials::AwsCredentials;
pub use files::{After, FileNames, Files, Signal};
pub use oauth::{Oauth, OauthClient};
pub use workload_api::WorkloadApi;

/// What the app can ask for on this machine. Nothing, where nothing is said.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// The SPIFFE Workload API, and Envoy's secret discovery (SDS v3) beside it.
    pub workload_api: Option<WorkloadApi>,
    /// Endpoints that give AWS credentials, each of one role.
    #[serde(default)]
    pub aws_credentials: Vec<AwsCredentials>,
    /// An OAuth 2.0 token endpoint.
    pub oauth: Option<Oauth>,
    /// Certificate, key and bundle as files.
    #[serde(default)]
    pub files: Vec<Files>,
}

/// Which processes may ask over a unix socket, as the kernel knows them (`SO_PEERCRED`). Every process that can
/// open the socket, where neither is given: the pod or task is the wall.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// Users.
    #[serde(default)]
    pub uids: Vec<u32>,
    /// Groups: the process's own, not its further ones.
    #[serde(default)]
    pub gids: Vec<u32>,
}

impl Clients {
    /// Whether every process may ask.
    pub fn is_everyone(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }
}

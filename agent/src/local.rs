//! What the app can ask for on this machine: over sockets, and as files.
//!
//! ```text
//!               ┌─ workload_api ─┐
//! identity ────▶│  sds           │──▶ one unix socket (gRPC)
//! tokens   ────▶│                │
//!               └────────────────┘
//! roles    ────▶ aws_credentials ──▶ loopback or unix (HTTP), one role each
//! tokens   ────▶ oauth ────────────▶ loopback or unix (HTTP)
//! identity ────▶ files ────────────▶ a directory, then a signal or a command
//! ```
//!
//! Nothing here is given to a request merely because it came from this machine (S20): a unix socket tells which
//! process asks, a loopback address asks for a secret.

use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::task::JoinHandle;

use crate::{
    aws::Roles,
    config::{local::Local, value::Listen},
    http::server::{BindError, Draining, Listener, Metrics as ServerMetrics},
    identity,
    token::Tokens,
};

mod absence;
mod asker;
mod aws_credentials;
mod bucket;
mod calls;
pub mod client;
mod endpoint;
pub mod files;
mod grpc;
mod guard;
mod oauth;
mod proto;
mod sds;
mod server;
mod workload_api;

pub use asker::Asker;
pub use oauth::{SecretError, reads_token_request};
pub use workload_api::Metrics as WorkloadApiMetrics;

/// The local listeners, bound.
#[derive(Debug, Default)]
pub struct Sockets {
    workload_api: Option<Listener>,
    aws_credentials: Vec<Listener>,
    oauth: Option<Listener>,
}

/// What is counted here.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    oauth: endpoint::Metrics,
    aws_credentials: endpoint::Metrics,
    sds: sds::Metrics,
    /// Of the Workload API.
    pub workload_api: workload_api::Metrics,
}

/// Why something can't be served here.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The OAuth 2.0 token endpoint.
    #[error(transparent)]
    Oauth(#[from] SecretError),
    /// AWS credentials.
    #[error(transparent)]
    AwsCredentials(#[from] aws_credentials::StartError),
}

/// What is served here, and what it needs for that.
#[derive(Debug)]
pub struct Setup<'a> {
    /// What the configuration says.
    pub config: &'a Local,
    /// The current identity.
    pub identity: identity::Current,
    /// What asks the authority for more.
    pub renewal: &'a identity::Handle,
    /// Tokens of the authority.
    pub tokens: &'a Tokens,
    /// Credentials of AWS, where the configuration has use for them.
    pub roles: Option<&'a Roles>,
    /// Of the process's servers.
    pub server_metrics: &'a ServerMetrics,
    /// Of what is served here.
    pub metrics: &'a Metrics,
    /// Ends what is served here.
    pub draining: Draining,
}

/// What is served here.
#[derive(Debug, Default)]
pub struct Served {
    /// Where.
    pub addresses: Addresses,
    /// The tasks that serve; each ends with the drain, and says how many connections it cut.
    pub tasks: Vec<JoinHandle<usize>>,
}

/// Where the local listeners are.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// Of the Workload API and SDS.
    pub workload_api: Option<Listen>,
    /// Of the AWS credentials, in the configuration's order.
    pub aws_credentials: Vec<Listen>,
    /// Of the OAuth 2.0 token endpoint.
    pub oauth: Option<Listen>,
}

impl Sockets {
    /// Binds all that `config` names. Who connects early is told to try again, not turned away.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(config: &Local) -> Result<Self, BindError> {
        // Which process asks is looked at where it asks: the socket itself is open to all that reach its directory.
        let bind = |listen: &Listen, setting: String| {
            Listener::bind_shared(listen).map_err(|error| error.at(setting))
        };
        let api = config.workload_api.as_ref();
        let oauth = config.oauth.as_ref();
        let credentials = config.aws_credentials.iter().enumerate();
        let credentials = credentials
            .map(|(index, it)| bind(&it.listen, format!("local.aws_credentials[{index}].listen")));
        Ok(Self {
            workload_api: api
                .map(|it| bind(&it.listen, "local.workload_api.listen".to_owned()))
                .transpose()?,
            aws_credentials: credentials.collect::<Result<_, _>>()?,
            oauth: oauth
                .map(|it| bind(&it.listen, "local.oauth.listen".to_owned()))
                .transpose()?,
        })
    }

    fn addresses(&self) -> Addresses {
        let address = |listener: &Listener| listener.address().clone();
        Addresses {
            workload_api: self.workload_api.as_ref().map(address),
            aws_credentials: self.aws_credentials.iter().map(address).collect(),
            oauth: self.oauth.as_ref().map(address),
        }
    }
}

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let endpoint = endpoint::Metrics::new;
        Self {
            oauth: endpoint(
                registry,
                "local_oauth",
                "Requests of OAuth clients, by outcome",
            ),
            aws_credentials: endpoint(
                registry,
                "local_aws_credentials",
                "Requests for AWS credentials, by role and outcome",
            ),
            sds: sds::Metrics::new(registry),
            workload_api: workload_api::Metrics::new(registry),
        }
    }
}

/// Serves on `sockets`, in tasks of the current runtime.
///
/// # Errors
/// See [`StartError`].
pub fn start(sockets: Sockets, setup: &Setup<'_>) -> Result<Served, StartError> {
    let addresses = sockets.addresses();
    let mut tasks = Vec::new();
    if let (Some(config), Some(listener)) = (&setup.config.workload_api, sockets.workload_api) {
        tasks.push(workload_api::start(config, listener, setup));
    }
    if let (Some(config), Some(listener)) = (&setup.config.oauth, sockets.oauth) {
        tasks.push(oauth::start(config, listener, setup)?);
    }
    let endpoints = setup.config.aws_credentials.iter();
    for (index, (config, listener)) in endpoints.zip(sockets.aws_credentials).enumerate() {
        tasks.push(aws_credentials::start(index, config, listener, setup)?);
    }
    Ok(Served { addresses, tasks })
}

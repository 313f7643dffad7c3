//! A workload whose agent gives AWS credentials to its app.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{Agent, Keys, Workload};
use crate::{
    peers::{Environment, Ministack},
    ports::free_port,
    process::warifu_binary,
};

/// Where an app gets its credentials from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The loopback endpoint with a bearer token.
    Container,
    /// The emulated instance metadata.
    Imds,
    /// `warifu aws-credentials`, which asks the unix socket.
    Process,
}

/// The three endpoints of an agent, on addresses that stay when it is started again.
#[derive(Debug)]
pub struct Endpoints {
    /// The workload.
    pub workload: Workload,
    /// The container endpoint.
    pub container: SocketAddr,
    /// The emulated instance metadata.
    pub imds: SocketAddr,
    role: String,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Container, Self::Imds, Self::Process];
}

impl Endpoints {
    /// Of the role with this ARN.
    pub fn of(role: &str) -> Self {
        let endpoints = Self {
            workload: Workload::new(),
            container: free_port(),
            imds: free_port(),
            role: role.to_owned(),
        };
        let profile = |command: &str| {
            let warifu = warifu_binary();
            let warifu = warifu.display();
            format!("[default]\ncredential_process = {warifu} aws-credentials {command}\n")
        };
        let socket = endpoints.socket();
        let config = profile(&format!("--socket unix:{}", socket.display()));
        endpoints.workload.write("aws-config", &config);
        endpoints
    }

    /// The file with the bearer token.
    pub fn token_file(&self) -> PathBuf {
        self.workload.path("aws.token")
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.workload.path("aws.sock")
    }

    /// `local:` of the agent's configuration.
    pub fn yaml(&self) -> String {
        let Self {
            container,
            imds,
            role,
            ..
        } = self;
        let (socket, token) = (self.socket(), self.token_file());
        format!(
            "local:
  aws_credentials:
  - {{listen: \"{container}\", role: \"{role}\", token_file: {token}}}
  - {{listen: \"{imds}\", role: \"{role}\", unsafe_imds: true}}
  - {{listen: \"unix:{socket}\", role: \"{role}\"}}
",
            token = token.display(),
            socket = socket.display(),
        )
    }

    /// The agent, with an STS, ready.
    pub fn start(&self, keys: Keys<'_>, sts: &str) -> Agent {
        let agent = self.workload.agent_with(keys, sts, "", &self.yaml());
        agent.wait_until_ready();
        agent
    }

    /// What an SDK's environment says to take credentials from `source`, and to call `sts`.
    pub fn environment(&self, source: Source, sts: &str) -> Environment {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut environment = Environment::from([
            ("AWS_REGION", Ministack::REGION.to_owned()),
            ("AWS_DEFAULT_REGION", Ministack::REGION.to_owned()),
            ("AWS_ENDPOINT_URL_STS", sts.to_owned()),
        ]);
        environment.extend(match source {
            Source::Container => vec![
                (
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                    format!("http://{}/v1/credentials", self.container),
                ),
                (
                    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                    path(&self.token_file()),
                ),
            ],
            Source::Imds => vec![(
                "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                format!("http://{}", self.imds),
            )],
            Source::Process => vec![
                ("AWS_CONFIG_FILE", path(&self.workload.path("aws-config"))),
                ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ],
        });
        environment
    }
}

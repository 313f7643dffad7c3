//! `local.aws_credentials`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Clients;
use crate::config::value::{self, As, Listen, RoleRef, name};

/// An endpoint that gives the credentials of one role.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsCredentials {
    /// A loopback address, for the AWS SDKs, or a unix socket.
    pub listen: Listen,
    /// The role to assume: a name of `aws.roles`, or an ARN.
    pub role: RoleRef,
    /// Where the agent writes the bearer token that a client must present
    /// (`AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`). Required on a loopback address.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    pub token_file: Option<PathBuf>,
    /// Which processes may ask, on a unix socket.
    #[serde(default)]
    pub clients: Clients,
    /// Emulates the instance metadata service (IMDSv2) here instead: for programs that know nothing else. Every
    /// process of this machine (its pod or task) then has the role for the asking.
    #[serde(default)]
    pub unsafe_imds: bool,
}

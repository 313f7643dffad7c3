//! `local.aws_credentials`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Clients;
use crate::config::{
    defaults,
    value::{self, As, Listen, Span, name},
};

/// An endpoint that gives the credentials of one role.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsCredentials {
    /// A loopback address, for the AWS SDKs, or a unix socket.
    pub listen: Listen,
    /// The role to assume.
    #[serde(deserialize_with = "value::one::<name::RoleArn, _>")]
    #[schemars(with = "As<name::RoleArn>")]
    pub role: String,
    /// The role session's name; derived from the SPIFFE ID where absent.
    #[serde(default, deserialize_with = "value::option::<name::SessionName, _>")]
    #[schemars(with = "Option<As<name::SessionName>>")]
    pub session_name: Option<String>,
    /// The trust policy's external id.
    #[serde(default, deserialize_with = "value::option::<name::ExternalId, _>")]
    #[schemars(with = "Option<As<name::ExternalId>>")]
    pub external_id: Option<String>,
    /// The role session's duration, 15 min to 12 h.
    #[serde(default = "defaults::role_session")]
    pub duration: Span,
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

//! `aws.secretsmanager`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    defaults,
    value::{RoleRef, Span, Upstream},
};

/// How secrets of AWS Secrets Manager are read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretsManager {
    /// Another endpoint (`http://` for loopback only).
    pub endpoint: Option<Upstream>,
    /// The role that reads them, a name of `aws.roles` or an ARN; the base credentials' where absent.
    pub role: Option<RoleRef>,
    /// How often they are read again.
    #[serde(default = "defaults::secret_refresh")]
    pub refresh: Span,
}

impl Default for SecretsManager {
    fn default() -> Self {
        Self {
            endpoint: None,
            role: None,
            refresh: defaults::secret_refresh(),
        }
    }
}

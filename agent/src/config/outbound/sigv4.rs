//! `sigv4` of a route.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    defaults,
    value::{self, As, Size, Span, name},
};

/// A SigV4 signature on a route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSigV4 {
    /// The signing name: `execute-api`, `lambda`, ….
    #[serde(deserialize_with = "value::one::<name::Service, _>")]
    #[schemars(with = "As<name::Service>")]
    pub service: String,
    /// The region; `aws.region` where absent.
    #[serde(default, deserialize_with = "value::option::<name::Region, _>")]
    #[schemars(with = "Option<As<name::Region>>")]
    pub region: Option<String>,
    /// The role to assume; the base credentials sign where absent.
    #[serde(default, deserialize_with = "value::option::<name::RoleArn, _>")]
    #[schemars(with = "Option<As<name::RoleArn>>")]
    pub role: Option<String>,
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
    /// Further headers to sign, beside `host`, `content-type` and `x-amz-*`.
    #[serde(default, deserialize_with = "value::list::<name::Header, _>")]
    #[schemars(with = "Vec<As<name::Header>>")]
    pub signed_headers: Vec<http::HeaderName>,
    /// Largest body, hashed before it is sent; 413 beyond. `16MiB` where absent.
    #[serde(
        default = "defaults::max_signed_body",
        deserialize_with = "value::size"
    )]
    #[schemars(with = "Size", transform = crate::config::schema::without_default)]
    pub max_body: usize,
}

//! `sigv4` of a route.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    defaults,
    value::{self, As, RoleRef, Size, Span, name},
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
    /// Signs with SigV4A, for each region of this set (`us-east-1`, `eu-*`, `*`), instead of for one region.
    #[serde(default, deserialize_with = "value::list::<name::RegionPattern, _>")]
    #[schemars(with = "Vec<As<name::RegionPattern>>")]
    pub region_set: Vec<String>,
    /// The role to assume: a name of `aws.roles`, or an ARN; the base credentials sign where absent.
    pub role: Option<RoleRef>,
    /// Which of the app's `x-amz-*` and `x-amzn-*` headers pass, and are signed: names, or their beginnings and a
    /// `*`. Where absent, all but those that say who calls, or for whom. Its signature never passes.
    #[serde(default, deserialize_with = "amz_headers")]
    #[schemars(with = "Option<Vec<As<name::AmzHeader>>>")]
    pub amz_headers: Option<Vec<String>>,
    /// Further headers to sign, beside `host`, `content-type`, `x-amz-*` and `x-amzn-*`.
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
    /// S3: streams bodies of which the app says nothing (`x-amz-content-sha256`), unsigned, instead of hashing them.
    #[serde(default)]
    pub unsigned_payload: bool,
    /// Lets the app ask for URLs that are signed in their query (`x-warifu-presign: 5m`).
    pub presign: Option<RoutePresign>,
}

/// Presigned URLs on a route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoutePresign {
    /// The longest life the app may ask for, up to 7 days. No URL outlives the credentials that sign it.
    pub expires: Span,
}

impl RouteSigV4 {
    /// A route signed for `service`, with all else as it is where a file says nothing.
    pub fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            region: None,
            region_set: Vec::new(),
            role: None,
            amz_headers: None,
            signed_headers: Vec::new(),
            max_body: defaults::max_signed_body(),
            unsigned_payload: false,
            presign: None,
        }
    }
}

fn amz_headers<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    value::list::<name::AmzHeader, _>(deserializer).map(Some)
}

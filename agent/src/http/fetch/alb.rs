//! The keys of Application Load Balancers: one document a key, in PEM.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html>

use http::StatusCode;
use warifu::jwt::jwks::{FetchError, FetchKey, FetchingKey};

use super::{Fetcher, Limits};

/// Longest document: a P-256 key takes 178 bytes.
const MAX_PEM: usize = 4 * 1024;

/// Where a region's load balancers publish their keys.
#[derive(Debug)]
pub struct AlbKeys {
    fetcher: Fetcher,
    pub(super) base: String,
}

impl AlbKeys {
    /// The keys under `base`, an `https://` URL without a slash at its end: another than that of
    /// [`of_region`](Self::of_region) in partitions of their own.
    pub fn new(fetcher: Fetcher, base: impl Into<String>) -> Self {
        let limits = Limits {
            answer: MAX_PEM,
            ..fetcher.limits
        };
        Self {
            fetcher: fetcher.limited(limits),
            base: base.into(),
        }
    }

    /// The keys of a region's load balancers, where AWS has them.
    pub fn of_region(fetcher: Fetcher, region: &str) -> Self {
        let base = format!("https://public-keys.auth.elb.{region}.amazonaws.com");
        Self::new(fetcher, base)
    }

    async fn pem(&self, kid: String) -> Result<Option<Vec<u8>>, FetchError> {
        match self.fetcher.get(&format!("{}/{kid}", self.base)).await {
            Ok(pem) => Ok(Some(pem.into())),
            // Nothing else says that there is none: a 403 may be of a proxy on the way, and is no verdict.
            Err(super::FetchError::Status {
                status: StatusCode::NOT_FOUND,
                ..
            }) => Ok(None),
            Err(why) => Err(FetchError::new(why)),
        }
    }
}

impl FetchKey for AlbKeys {
    fn fetch(&self, kid: &str) -> FetchingKey<'_> {
        Box::pin(self.pem(kid.to_owned()))
    }
}

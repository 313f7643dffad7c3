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
    base: String,
}

impl AlbKeys {
    /// The keys under `base`, an `https://` URL.
    pub fn new(fetcher: Fetcher, base: &str) -> Self {
        let limits = Limits {
            answer: MAX_PEM,
            ..fetcher.limits
        };
        Self {
            fetcher: fetcher.limited(limits),
            base: base.trim_end_matches('/').to_owned(),
        }
    }

    /// The keys of the region of a load balancer, by its ARN, where AWS has them.
    pub fn of_signer(fetcher: Fetcher, arn: &str) -> Self {
        Self::new(fetcher, &place_of(arn))
    }

    /// Where they are.
    pub fn base(&self) -> &str {
        &self.base
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

/// AWS's place for the region of a load balancer.
fn place_of(signer: &str) -> String {
    let mut parts = signer.split(':').skip(1);
    let (partition, region) = (parts.next(), parts.nth(1).unwrap_or_default());
    match partition {
        Some("aws-us-gov") => {
            format!("https://s3-{region}.amazonaws.com/aws-elb-public-keys-prod-{region}")
        }
        Some("aws-cn") => format!("https://public-keys.auth.elb.{region}.amazonaws.com.cn"),
        _ => format!("https://public-keys.auth.elb.{region}.amazonaws.com"),
    }
}

impl FetchKey for AlbKeys {
    fn fetch(&self, kid: &str) -> FetchingKey<'_> {
        Box::pin(self.pem(kid.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_those_of_the_load_balancers_region() {
        let arn = |partition, region| {
            format!(
                "arn:{partition}:elasticloadbalancing:{region}:123456789012:loadbalancer/app/a/b"
            )
        };
        assert_eq!(
            place_of(&arn("aws", "eu-west-1")),
            "https://public-keys.auth.elb.eu-west-1.amazonaws.com"
        );
        assert_eq!(
            place_of(&arn("aws-us-gov", "us-gov-west-1")),
            "https://s3-us-gov-west-1.amazonaws.com/aws-elb-public-keys-prod-us-gov-west-1"
        );
    }
}

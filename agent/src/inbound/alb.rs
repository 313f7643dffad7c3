//! Where the keys of Application Load Balancers are: one document a key, by the `kid` of what it signed.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html#user-claims-encoding>

use warifu::jwt::jwks::{FetchError, FetchKey, FetchingKey};

use super::issuers::fetcher;
use crate::{
    config::inbound::LoadBalancer,
    http::fetch::{self, Fetcher, FetcherError},
};

/// The place of a region's keys. A token says which of them it wants, and nothing of the place.
#[derive(Debug)]
pub(super) struct Source {
    fetcher: Fetcher,
    place: String,
}

impl Source {
    pub(super) fn new(balancer: &LoadBalancer) -> Result<Self, FetcherError> {
        // All signers are of one region: the configuration was checked.
        let signer = balancer.signers.first().map_or("", String::as_str);
        let place = balancer.keys_url.as_ref().map(ToString::to_string);
        Ok(Self {
            fetcher: fetcher(balancer.ca_bundle.clone())?,
            place: place.unwrap_or_else(|| place_of(signer)),
        })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    async fn key(&self, kid: &str) -> Result<Option<Vec<u8>>, FetchError> {
        let url = format!("{}/{kid}", self.place.trim_end_matches('/'));
        match self.fetcher.get(&url).await {
            Ok(pem) => Ok(Some(pem.into())),
            // There is no such key: whoever made its name up is refused.
            Err(fetch::FetchError::Status { status, .. }) if status.is_client_error() => Ok(None),
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

impl FetchKey for Source {
    fn fetch(&self, kid: &str) -> FetchingKey<'_> {
        let kid = kid.to_owned();
        Box::pin(async move { self.key(&kid).await })
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

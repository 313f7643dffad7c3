//! STS endpoints of other regions.

use std::{borrow::Cow, fmt};

use warifu::aws::is_region;

use super::{
    Upstream,
    text::{Kind, reads_from_text},
};

/// `REGION`, or `REGION=URL` for an endpoint of that region that is not AWS's public one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StsRegion {
    /// What its requests are signed for.
    pub region: String,
    /// Where it is; the region's public endpoint where absent.
    pub endpoint: Option<Upstream>,
}

reads_from_text!(StsRegion);

impl Kind for StsRegion {
    type Value = Self;
    const NAME: &'static str = "StsRegion";
    const EXPECTED: &'static str =
        "a region such as us-east-1, or us-east-1=https://… for an endpoint of its STS";

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let (region, endpoint) = match text.split_once('=') {
            Some((region, url)) => (region, Some(Upstream::parse(url)?)),
            None => (text, None),
        };
        match is_region(region) {
            true => Ok(Self {
                region: region.to_owned(),
                endpoint,
            }),
            false => Err("".into()),
        }
    }
}

impl fmt::Display for StsRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        match &self.endpoint {
            Some(endpoint) => write!(f, "={endpoint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_region_or_a_region_with_an_endpoint() {
        let plain: StsRegion = "us-east-1".parse().unwrap();
        assert_eq!((plain.region.as_str(), plain.endpoint), ("us-east-1", None));
        let elsewhere: StsRegion = "us-east-1=https://vpce-1.example".parse().unwrap();
        assert_eq!(elsewhere.endpoint.unwrap().host, "vpce-1.example");
        for wrong in [
            "",
            "US",
            "us-east-1=",
            "=https://a.example",
            "us-east-1=ftp://a",
            "https://a.example",
        ] {
            assert!(wrong.parse::<StsRegion>().is_err(), "{wrong}");
        }
    }
}

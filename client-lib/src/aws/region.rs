//! Which partition a region is of, and its STS endpoint there. By the shape of the region's name, as the AWS
//! SDKs have it (`partitions.json`): a list of regions would be out of date with the next one.

/// Longest name of a region. Today's are up to 16.
const MAX_REGION: usize = 32;

/// A partition: regions with accounts, IAM and an STS of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// As ARNs have it: `aws`, `aws-cn`, ….
    pub id: &'static str,
    /// The domain of its regional endpoints.
    dns_suffix: &'static str,
    /// What a region's name begins with; `-WORD-NUMBER` follows.
    heads: &'static [&'static str],
}

/// Regions of a partition nobody knew when this was written: as the SDKs do, they are taken for this one's.
const FALLBACK: &str = "amazonaws.com";

const PARTITIONS: &[Partition] = &[
    Partition {
        id: "aws",
        dns_suffix: "amazonaws.com",
        heads: &["us", "eu", "ap", "sa", "ca", "me", "af", "il", "mx"],
    },
    Partition {
        id: "aws-cn",
        dns_suffix: "amazonaws.com.cn",
        heads: &["cn"],
    },
    Partition {
        id: "aws-us-gov",
        dns_suffix: "amazonaws.com",
        heads: &["us-gov"],
    },
    Partition {
        id: "aws-eusc",
        dns_suffix: "amazonaws.eu",
        heads: &["eusc-de"],
    },
    Partition {
        id: "aws-iso",
        dns_suffix: "c2s.ic.gov",
        heads: &["us-iso"],
    },
    Partition {
        id: "aws-iso-b",
        dns_suffix: "sc2s.sgov.gov",
        heads: &["us-isob"],
    },
    Partition {
        id: "aws-iso-e",
        dns_suffix: "cloud.adc-e.uk",
        heads: &["eu-isoe"],
    },
    Partition {
        id: "aws-iso-f",
        dns_suffix: "csp.hci.ic.gov",
        heads: &["us-isof"],
    },
];

/// Whether `text` looks like a region's name: what may stand in a host name and in a credential scope.
pub fn is_region(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= MAX_REGION
        && text.bytes().all(allowed)
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('-')
        && !text.contains("--")
}

/// The partition of a region; `None` for one of a partition, or a part of the world, that is newer than this.
pub fn partition(region: &str) -> Option<Partition> {
    let is_of = |partition: &&Partition| partition.heads.iter().any(|head| follows(region, head));
    PARTITIONS
        .iter()
        .find(|it| is_region(region) && is_of(it))
        .copied()
}

/// The host of a region's STS endpoint. `region` must look like one ([`is_region`]).
pub fn sts_host(region: &str) -> String {
    let suffix = partition(region).map_or(FALLBACK, |it| it.dns_suffix);
    format!("sts.{region}.{suffix}")
}

/// `HEAD-WORD-NUMBER`
fn follows(region: &str, head: &str) -> bool {
    let rest = region
        .strip_prefix(head)
        .and_then(|it| it.strip_prefix('-'));
    rest.and_then(|rest| rest.split_once('-'))
        .is_some_and(|(word, number)| {
            !word.is_empty() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_partition_has_its_own_endpoints() {
        for (region, id, host) in [
            ("us-east-1", "aws", "sts.us-east-1.amazonaws.com"),
            ("ap-southeast-5", "aws", "sts.ap-southeast-5.amazonaws.com"),
            ("mx-central-1", "aws", "sts.mx-central-1.amazonaws.com"),
            ("cn-north-1", "aws-cn", "sts.cn-north-1.amazonaws.com.cn"),
            (
                "us-gov-west-1",
                "aws-us-gov",
                "sts.us-gov-west-1.amazonaws.com",
            ),
            (
                "eusc-de-east-1",
                "aws-eusc",
                "sts.eusc-de-east-1.amazonaws.eu",
            ),
            ("us-iso-east-1", "aws-iso", "sts.us-iso-east-1.c2s.ic.gov"),
            (
                "us-isob-east-1",
                "aws-iso-b",
                "sts.us-isob-east-1.sc2s.sgov.gov",
            ),
            (
                "eu-isoe-west-1",
                "aws-iso-e",
                "sts.eu-isoe-west-1.cloud.adc-e.uk",
            ),
            (
                "us-isof-south-1",
                "aws-iso-f",
                "sts.us-isof-south-1.csp.hci.ic.gov",
            ),
        ] {
            assert_eq!(partition(region).map(|it| it.id), Some(id), "{region}");
            assert_eq!(sts_host(region), host);
        }
    }

    #[test]
    fn what_is_no_region_of_a_partition_is_of_none() {
        for other in [
            "",
            "us",
            "us-east",
            "us-east-",
            "us-east-1a",
            "US-EAST-1",
            "nz-north-1",
            "aws-global",
            "us-east-1.evil.example#",
            "us-east-1.evil.example",
            "..",
            "us-east-1/",
            "us-east-1@evil",
            "us--1",
            "us-east-1\r\nhost: evil",
            "us_east_1",
            "-us-east-1",
            "us-east-1 ",
        ] {
            assert_eq!(partition(other), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn s07_a_regions_host_is_a_host_of_aws(region in "\\PC{0,40}") {
            if is_region(&region) {
                let host = sts_host(&region);
                prop_assert!(host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b)));
                let of_aws = PARTITIONS.iter().any(|it| host.ends_with(it.dns_suffix));
                prop_assert!(of_aws, "{}", host);
            }
        }
    }
}

//! `sigv4` of a route.

use std::time::Duration;

use super::{Path, Problems};
use crate::config::{
    aws::Aws,
    outbound::RouteSigV4,
    validate::aws,
    value::{is_of_signature, is_unsignable},
};

/// Services whose signing rules differ from all others', and are not built. Here, so that the file is
/// refused and not the route's first request.
const NOT_SIGNED_FOR: &[&str] = &["s3express"];

/// Services that take a body unsigned: `aws::Profile` knows more of them.
const TAKES_UNSIGNED: &[&str] = &["s3", "s3-outposts", "s3-object-lambda"];

/// `X-Amz-Expires` of S3: a second to 7 days.
const PRESIGNED: (Duration, Duration) = (
    Duration::from_secs(1),
    Duration::from_secs(7 * 24 * 60 * 60),
);

pub(super) fn sigv4(settings: &Aws, sigv4: &RouteSigV4, at: &Path, problems: &mut Problems) {
    aws::named(settings, sigv4.role.as_ref(), at.key("role"), problems);
    problems.add_if(
        sigv4.max_body == 0,
        at.key("max_body"),
        "expected more than 0 bytes",
    );
    problems.add_if(
        NOT_SIGNED_FOR.contains(&sigv4.service.as_str()),
        at.key("service"),
        format!(
            "{} signs with sessions of its own, which are not supported by this version",
            sigv4.service
        ),
    );
    problems.add_if(
        sigv4.region.is_some() && !sigv4.region_set.is_empty(),
        at.key("region_set"),
        "region and region_set exclude each other: SigV4 signs for one region, SigV4A for a set",
    );
    problems.add_if(
        !sigv4.region_set.is_empty() && !cfg!(feature = "sigv4a"),
        at.key("region_set"),
        "this build of warifu has no SigV4A; build it with `--features sigv4a`",
    );
    problems.add_if(
        sigv4.unsigned_payload && !TAKES_UNSIGNED.contains(&sigv4.service.as_str()),
        at.key("unsigned_payload"),
        format!("{} takes no unsigned bodies; only s3 does", sigv4.service),
    );
    if let Some(presign) = &sigv4.presign {
        let at = at.key("presign").key("expires");
        problems.span(at, presign.expires, PRESIGNED.0, PRESIGNED.1);
    }
    for (index, header) in sigv4.amz_headers.iter().flatten().enumerate() {
        problems.add_if(
            is_of_signature(header),
            at.key("amz_headers").index(index),
            format!("{header} carries or steers a signature: the app's is always removed"),
        );
    }
    for (index, header) in sigv4.signed_headers.iter().enumerate() {
        problems.add_if(
            header.as_str().starts_with("x-amz-"),
            at.key("signed_headers").index(index),
            format!("{header} is signed wherever it passes; what passes is in amz_headers"),
        );
        problems.add_if(
            is_unsignable(header),
            at.key("signed_headers").index(index),
            format!("{header} changes on its way, and would break the signature"),
        );
    }
}

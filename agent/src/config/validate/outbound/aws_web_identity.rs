//! `aws_web_identity` of a route.

use std::time::Duration;

use super::{Path, Problems};
use crate::config::{aws::Aws, outbound::RouteAwsWebIdentity, validate::aws};

/// `Audience` of <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html>.
const MAX_AUDIENCES: usize = 10;

/// `DurationSeconds`.
const LIFE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(60 * 60));

pub(super) fn aws_web_identity(
    settings: &Aws,
    route: &RouteAwsWebIdentity,
    at: &Path,
    problems: &mut Problems,
) {
    let audiences = &route.audiences;
    problems.add_if(
        audiences.is_empty(),
        at.key("audiences"),
        "expected at least one, such as warifu:example.org:call:payments",
    );
    problems.at_most(MAX_AUDIENCES, audiences.len(), at.key("audiences"));
    for (index, audience) in audiences.iter().enumerate() {
        let mut before = audiences.iter().take(index);
        problems.add_if(
            before.any(|it| it == audience),
            at.key("audiences").index(index),
            format!("{audience} is listed already"),
        );
    }
    problems.span(at.key("duration"), route.duration, LIFE.0, LIFE.1);
    aws::named(settings, route.role.as_ref(), at.key("role"), problems);
}

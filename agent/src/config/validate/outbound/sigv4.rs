//! `sigv4` of a route.

use std::time::Duration;

use super::{Path, Problems};
use crate::config::{outbound::RouteSigV4, value::is_unsignable};

/// STS AssumeRole's `DurationSeconds`: 15 minutes to 12 hours.
pub(in crate::config::validate) const ROLE_SESSION: (Duration, Duration) = (
    Duration::from_secs(15 * 60),
    Duration::from_secs(12 * 60 * 60),
);

/// Services whose signing rules differ from all others', and are not built. Here, so that the file is
/// refused and not the route's first request.
const NOT_SIGNED_FOR: &[&str] = &["aoss", "s3express", "vpc-lattice-svcs"];

pub(super) fn sigv4(sigv4: &RouteSigV4, at: &Path, problems: &mut Problems) {
    problems.span(
        at.key("duration"),
        sigv4.duration,
        ROLE_SESSION.0,
        ROLE_SESSION.1,
    );
    for (field, given) in [
        ("session_name", sigv4.session_name.is_some()),
        ("external_id", sigv4.external_id.is_some()),
    ] {
        problems.add_if(
            given && sigv4.role.is_none(),
            at.key(field),
            format!("{field} belongs to a role: give role, or remove it"),
        );
    }
    problems.add_if(
        sigv4.max_body == 0,
        at.key("max_body"),
        "expected more than 0 bytes",
    );
    problems.add_if(
        NOT_SIGNED_FOR.contains(&sigv4.service.as_str()),
        at.key("service"),
        format!(
            "{} has signing rules of its own, which are not supported by this version",
            sigv4.service
        ),
    );
    for (index, header) in sigv4.signed_headers.iter().enumerate() {
        problems.add_if(
            header.as_str().starts_with("x-amz-"),
            at.key("signed_headers").index(index),
            format!(
                "{header} of the app is always removed; the agent signs x-amz-* headers of its own"
            ),
        );
        problems.add_if(
            is_unsignable(header),
            at.key("signed_headers").index(index),
            format!("{header} changes on its way, and would break the signature"),
        );
    }
}

//! `secret_header` of a route.

use super::{Path, Problems};
use crate::config::outbound::RouteSecretHeader;

/// Headers that frame the message or steer its way, and those that are ours to say: no secret belongs there.
const NOT_FOR_SECRETS: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

pub(super) fn secret_header(header: &RouteSecretHeader, at: &Path, problems: &mut Problems) {
    let name = header.name.as_str();
    problems.add_if(
        NOT_FOR_SECRETS.contains(&name) || name.starts_with("x-warifu-"),
        at.key("name"),
        format!("the header {name} has a meaning of its own; expected one such as x-custom-auth"),
    );
}

//! `secret_header` of a route.

use super::{Path, Problems};
use crate::config::outbound::RouteSecretHeader;
use crate::config::validate::is_of_the_message;

/// Further headers that steer a message's way, and those that are ours to say: no secret belongs there.
const NOT_FOR_SECRETS: &[&str] = &[
    "accept-encoding",
    "content-encoding",
    "expect",
    "forwarded",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "via",
];

pub(super) fn secret_header(header: &RouteSecretHeader, at: &Path, problems: &mut Problems) {
    let name = header.name.as_str();
    problems.add_if(
        is_of_the_message(name) || NOT_FOR_SECRETS.contains(&name) || name.starts_with("x-warifu-"),
        at.key("name"),
        format!("the header {name} has a meaning of its own; expected one such as x-custom-auth"),
    );
}

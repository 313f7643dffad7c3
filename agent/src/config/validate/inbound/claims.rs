//! Claims that become headers.

use std::collections::BTreeMap;

use super::{Path, Problems};
use crate::config::inbound::Inbound;
use crate::config::validate::is_of_the_message;

/// Further headers a claim must not replace: they steer a message's way, or say who sent it.
const NOT_FOR_CLAIMS: &[&str] = &[
    "authorization",
    "client-cert",
    "client-cert-chain",
    "content-encoding",
    "expect",
    "forwarded",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "via",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-uri",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

pub(super) fn claims(inbound: &Inbound, jwt: bool, at: &Path, problems: &mut Problems) {
    problems.add_if(
        !inbound.forward_claims.is_empty() && !jwt,
        at.clone(),
        "no caller has claims here: add jwt to accept",
    );
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for (claim, header) in &inbound.forward_claims {
        let name = header.as_str();
        let reserved = is_of_the_message(name)
            || NOT_FOR_CLAIMS.contains(&name)
            || name.starts_with("x-warifu-")
            || name.starts_with("x-amz-")
            || name.starts_with("x-amzn-");
        problems.add_if(
            reserved,
            at.key(claim),
            format!(
                "the header {name} has a meaning of its own; choose another, such as x-user-{claim}"
            ),
        );
        if let Some(other) = taken.insert(name, claim) {
            problems.add(
                at.key(claim),
                format!("the header {name} is taken by the claim {other}"),
            );
        }
    }
}

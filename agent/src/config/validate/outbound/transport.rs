//! How a route's requests get to its upstream.

use crate::config::{
    outbound::{Protocol, Route},
    validate::{Path, Problems, timeouts::timeouts},
};

/// Retries of one request: more would only keep an upstream in trouble from recovering.
const MAX_RETRIES: u32 = 5;

pub(super) fn transport(route: &Route, at: &Path, problems: &mut Problems) {
    let upstream = &route.upstream;
    if let Some(tls) = &route.tls {
        let at = at.key("tls");
        problems.add_if(
            route.mtls.is_some(),
            at.clone(),
            "a route with mtls knows its upstream by its SPIFFE ID, and verifies it with the trust bundle; remove tls",
        );
        problems.add_if(
            !upstream.tls,
            at.clone(),
            format!("tls needs https://, found {upstream}"),
        );
        problems.add_if(
            tls.ca_bundle.is_none() && tls.server_name.is_none(),
            at,
            "expected ca_bundle, server_name, or both",
        );
    }
    problems.add_if(
        route.proxy.is_some() && !upstream.tls,
        at.key("proxy"),
        format!("a proxy would read what is not encrypted; it needs https://, found {upstream}"),
    );
    problems.add_if(
        route.protocol == Protocol::Http2 && upstream.tls,
        at.key("protocol"),
        "with https:// the two ends agree on HTTP/2 or HTTP/1.1 themselves (ALPN); remove protocol",
    );
    timeouts(&route.timeouts, &at.key("timeouts"), problems);
    problems.add_if(
        route.retries.max > MAX_RETRIES,
        at.key("retries").key("max"),
        format!("expected 0 to {MAX_RETRIES}, found {}", route.retries.max),
    );
}

//! Which of the app's headers reach a service with the agent's signature, and which are in the signature.
//!
//! Everything named `x-amz-…` or `x-amzn-…` that passes is signed, so the network can neither change nor add one.
//! What is removed, and why:
//!
//! - **the app's own signature, and what steers one**: always. Two signatures on a request are none, and a date,
//!   a hash or a region of the app's would be signed as if they were ours;
//! - **who calls, or for whom**: unless the route lists it. Such a header makes the role that signs speak for another
//!   (`x-amz-source-arn`), or shows what a front door of AWS says of a caller, which nobody checked here
//!   (`x-amzn-oidc-…`);
//! - **spellings with other separators** (`x_amz_date`): always. Some servers read them as the name itself.
//!
//! All others are parameters of the operation (`x-amz-target`, `x-amz-meta-…`, `x-amz-copy-source`): what the role
//! may do with them is for its policy to say.

use http::{
    HeaderMap, HeaderName,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
    request::Parts,
};

use super::{SignError, canonical};
use crate::config::value::is_of_signature;

/// Prefix of the headers (and, in any case, query parameters) that carry or steer a signature, among others.
pub(super) const AMZ: &str = "x-amz-";
const AMZN: &str = "x-amzn-";

/// Changed by load balancers on the way: it passes, and is not signed.
const TRACE_ID: &str = "x-amzn-trace-id";

/// Says who calls, or for whom, beside the signature.
const CALLER: &[&str] = &[
    // A user's token, to services that ask for one beside the signature.
    "x-amz-access-token",
    // A second factor.
    "x-amz-mfa",
    // "This call is made for that account": the confused deputy's guards believe it.
    "x-amz-source-account",
    "x-amz-source-arn",
    // API Gateway's context, authoriser's findings included, as adapters in front of a function's app pass it on.
    "x-amzn-lambda-context",
    "x-amzn-request-context",
];

/// The same, by how the names begin: what front doors of AWS (ALB, Lattice, API Gateway) tell the service behind.
const CALLER_PREFIXES: &[&str] = &[
    "x-amzn-apigateway-",
    "x-amzn-lattice-",
    "x-amzn-mtls-",
    "x-amzn-oidc-",
    "x-amzn-remapped-",
    "x-amzn-tls-",
    "x-amzn-vpc",
];

/// Say how a body in pieces is framed: it can't be read without them, and [`super::body`] has checked them.
const FRAMING: &[&str] = &["x-amz-decoded-content-length", "x-amz-trailer"];

/// Which of the app's `x-amz-…` and `x-amzn-…` headers pass.
#[derive(Debug, Clone, Default)]
pub(super) enum AmzHeaders {
    /// All but those above.
    #[default]
    Usual,
    /// These alone: names, or how they begin (`x-amz-meta-*`).
    Only(Vec<String>),
}

impl AmzHeaders {
    /// Whether this header of the app's is removed. `name` is in lower case.
    fn removes(&self, name: &str) -> bool {
        if !is_amz(name) {
            return is_disguised(name);
        }
        if is_of_signature(name) {
            return true;
        }
        match self {
            Self::Usual => {
                CALLER.contains(&name)
                    || CALLER_PREFIXES.iter().any(|start| name.starts_with(start))
            }
            Self::Only(patterns) => {
                !FRAMING.contains(&name) && !patterns.iter().any(|pattern| matches(pattern, name))
            }
        }
    }
}

/// Whether a route may let through what `pattern` names.
pub(super) fn may_pass(pattern: &str) -> bool {
    is_amz(pattern) && !is_of_signature(pattern)
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

fn is_amz(name: &str) -> bool {
    name.starts_with(AMZ) || name.starts_with(AMZN)
}

/// Whether a name is `x-amz-…` or `x-amzn-…` to a server that reads `_` and `.` as `-`, and is not spelled so.
fn is_disguised(name: &str) -> bool {
    let folded = |start: &str| {
        name.len() >= start.len()
            && name.bytes().zip(start.bytes()).all(|(ours, theirs)| {
                ours == theirs || (theirs == b'-' && !ours.is_ascii_alphanumeric())
            })
    };
    name.starts_with('x') && (folded(AMZ) || folded(AMZN))
}

/// Whether a header is in the signature, where it is sent.
pub(super) fn is_signed(name: &HeaderName, extras: &[HeaderName]) -> bool {
    name == HOST
        || name == CONTENT_TYPE
        || (is_amz(name.as_str()) && *name != TRACE_ID)
        || extras.contains(name)
}

/// Removes what the app must not say (S6), and what an earlier attempt said; brings what is signed into its one form.
pub(super) fn prepare(
    amz: &AmzHeaders,
    extras: &[HeaderName],
    parts: &mut Parts,
) -> Result<(), SignError> {
    let headers = &mut parts.headers;
    headers.remove(AUTHORIZATION);
    // Empty in the common case, and an empty vector allocates nothing.
    let removed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| amz.removes(name.as_str()))
        .cloned()
        .collect();
    for name in removed {
        headers.remove(name);
    }
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = canonical::host(headers, authority)?;
    if headers.get(HOST) != Some(&host) {
        headers.insert(HOST, host);
    }
    let signed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_signed(name, extras))
        .cloned()
        .collect();
    for name in &signed {
        canonical::one_line(headers, name)?;
    }
    Ok(())
}

/// The names and values that are signed, in the signature's order: an allow-list. What others put beside them on the
/// way, or take away, does not break the signature.
pub(super) fn signed<'a>(
    headers: &'a HeaderMap,
    extras: &[HeaderName],
) -> Vec<(&'a str, &'a [u8])> {
    let mut signed: Vec<_> = headers
        .iter()
        .filter(|(name, _)| is_signed(name, extras))
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    signed.sort_unstable();
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s06_nothing_that_carries_or_steers_a_signature_passes_whatever_a_route_lists() {
        let all = AmzHeaders::Only(vec!["x-amz-*".to_owned(), "x-amzn-*".to_owned()]);
        for amz in [&AmzHeaders::Usual, &all] {
            for name in [
                "x-amz-algorithm",
                "x-amz-content-sha256",
                "x-amz-credential",
                "x-amz-date",
                "x-amz-expires",
                "x-amz-region-set",
                "x-amz-s3session-token",
                "x-amz-security-token",
                "x-amz-signature",
                "x-amz-signedheaders",
            ] {
                assert!(amz.removes(name), "{name}");
                assert!(!may_pass(name), "{name}");
                assert!(amz.removes(&name.replace('-', "_")), "{name}");
            }
            assert!(amz.removes("x.amz.date") && amz.removes("x_amz-date"));
        }
    }

    #[test]
    fn s06_who_calls_is_said_by_the_signature_alone_unless_a_route_lists_more() {
        let only = AmzHeaders::Only(vec![
            "x-amz-source-arn".to_owned(),
            "x-amzn-oidc-*".to_owned(),
        ]);
        for name in [
            "x-amz-source-arn",
            "x-amz-source-account",
            "x-amz-mfa",
            "x-amzn-oidc-identity",
            "x-amzn-oidc-data",
            "x-amzn-vpce-id",
            "x-amzn-lattice-identity",
            "x-amzn-request-context",
        ] {
            assert!(AmzHeaders::Usual.removes(name), "{name}");
            let listed = name == "x-amz-source-arn" || name.starts_with("x-amzn-oidc-");
            assert_eq!(only.removes(name), !listed, "{name}");
        }
        assert!(only.removes("x-amz-target"));
    }

    #[test]
    fn parameters_of_an_operation_pass() {
        for name in [
            "x-amz-target",
            "x-amz-copy-source",
            "x-amz-meta-owner",
            "x-amz-acl",
            "x-amz-source-expected-bucket-owner",
            "x-amz-expected-bucket-owner",
            "x-amz-checksum-crc32",
            "x-amz-invocation-type",
            "x-amzn-bedrock-trace",
            "x-amzn-query-mode",
            "x-amzn-trace-id",
            "x-amazing",
            "x_tenant",
            "x-amz",
        ] {
            assert!(!AmzHeaders::Usual.removes(name), "{name}");
        }
    }
}

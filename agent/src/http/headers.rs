//! Removing what must not pass a hop, and what the network may not say about identity (S3).
//!
//! One table for both directions. Names are compared with every character that is neither letter nor
//! digit read as `-`: CGI, WSGI, PHP and their kin hand `X_Forwarded_Client_Cert` and
//! `X.Forwarded-Client-Cert` to the app under the same variable name. Headers with `_` that clash with
//! none of ours pass: gRPC metadata uses them.
//!
//! What is known of where a request came from is told in `x-forwarded-for` (our peer's address is
//! appended: only the last entry is ours to vouch for) and `x-forwarded-proto` (set to the truth).
//! `forwarded`, `x-forwarded-host`, `-port`, `-prefix` and `x-real-ip` would say the same in a second
//! voice, which nobody checked, so they are removed. `host` stays as the caller sent it.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE},
};

mod names;

use names::Names;

/// How the app learns of the caller's certificate: Envoy's format.
pub const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Where a request came from: addresses, the nearest last.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The scheme the caller used.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Meant for the next hop only (RFC 9110 §7.6.1, RFC 9113 §8.2.2); `te` is treated apart, and
/// `trailer` is not among them. `expect` was answered by us: the next hop hears of it no more.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// What an app may read as "who calls": ours to say, in either direction.
const IDENTITY: &[&str] = &[
    "client-cert",
    "client-cert-chain",
    "x-forwarded-client-cert",
];

/// The same, by how the names begin. `x-amzn-oidc-…` is what an ALB says of a user.
const IDENTITY_PREFIXES: &[&str] = &["x-warifu-"];
const NETWORK_IDENTITY_PREFIXES: &[&str] = &["x-warifu-", "x-amzn-oidc-"];

/// What an app may read as another method, path or origin than the one that was decided on.
const OVERRIDES: &[&str] = &[
    "forwarded",
    "x-envoy-original-method",
    "x-envoy-original-path",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-method",
    "x-original-path",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// Variants (`x_forwarded_for`) of these would stand beside what we set; the name itself is handled apart.
const APPENDED: &[&str] = &["x-forwarded-for", "x-forwarded-proto"];

/// Framing, routing and authentication don't come after the body (RFC 9110 §6.5.1).
const NOT_IN_TRAILERS: &[&str] = &[
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "host",
    "max-forwards",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "x-forwarded-for",
    "x-forwarded-proto",
];

/// What is removed from messages of one direction. Made once per listener or route.
#[derive(Debug, Clone)]
pub struct Filter {
    names: Names,
    trailers: Names,
}

impl Filter {
    /// Requests from the network to the app; `claims` are the headers the agent puts claims into.
    pub fn to_app<'a>(claims: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        let claims: Vec<_> = claims.into_iter().map(HeaderName::as_str).collect();
        Self::new(
            &[HOP_BY_HOP, IDENTITY, OVERRIDES, &claims],
            NETWORK_IDENTITY_PREFIXES,
            APPENDED,
        )
    }

    /// Responses from the app to the network: what the agent itself says is `x-warifu-…`.
    pub fn from_app() -> Self {
        Self::new(&[HOP_BY_HOP], IDENTITY_PREFIXES, &[])
    }

    /// Requests from the app to the network; with `attaches_authorization` the app's own
    /// `authorization` gives way to the route's.
    pub fn to_network(attaches_authorization: bool) -> Self {
        let authorization: &[&str] = if attaches_authorization {
            &["authorization"]
        } else {
            &[]
        };
        Self::new(
            &[HOP_BY_HOP, IDENTITY, authorization],
            IDENTITY_PREFIXES,
            &[],
        )
    }

    /// Responses from the network to the app.
    pub fn from_network() -> Self {
        Self::new(&[HOP_BY_HOP], &[], &[])
    }

    fn new(exact: &[&[&str]], prefixes: &'static [&'static str], variants: &[&str]) -> Self {
        let mut names = Names::new(prefixes);
        names.extend(exact.iter().copied().flatten());
        let mut trailers = names.clone();
        trailers.extend(NOT_IN_TRAILERS);
        names.extend_variants(variants);
        Self { names, trailers }
    }

    /// Removes from the headers of a message. `te: trailers` stays, and so do `host` and
    /// `content-length` where a `connection` header nominates them: they are not the peer's to take away.
    pub fn strip(&self, headers: &mut HeaderMap) {
        // Empty in the common case, and an empty vector allocates nothing.
        let mut gone = Vec::new();
        for line in headers.get_all(CONNECTION) {
            nominated(line, &mut gone);
        }
        gone.extend(
            headers
                .keys()
                .filter(|name| self.names.contains(name.as_str()))
                .cloned(),
        );
        for name in gone {
            headers.remove(name);
        }
        strip_te(headers);
    }

    /// Removes from trailers, and with it what must not be in trailers at all (RFC 9110 §6.5.1).
    pub fn strip_trailers(&self, trailers: &mut HeaderMap) {
        let gone: Vec<_> = trailers
            .keys()
            .filter(|name| self.trailers.contains(name.as_str()))
            .cloned()
            .collect();
        for name in gone {
            trailers.remove(name);
        }
    }
}

/// Appends `address` to `x-forwarded-for` and sets `x-forwarded-proto`.
pub fn set_forwarded(headers: &mut HeaderMap, address: Option<&HeaderValue>, proto: HeaderValue) {
    headers.insert(X_FORWARDED_PROTO, proto);
    let Some(address) = address else { return };
    if !headers.contains_key(X_FORWARDED_FOR) {
        headers.insert(X_FORWARDED_FOR, address.clone());
        return;
    }
    // One line: some apps read only the first.
    let mut chain = Vec::new();
    for line in headers.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(line.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(address.as_bytes());
    let chain = HeaderValue::from_maybe_shared(chain).unwrap_or_else(|_| address.clone());
    headers.insert(X_FORWARDED_FOR, chain);
}

/// The names on one `Connection` line. `HeaderMap::remove(CONNECTION)` would show the first line only.
fn nominated(line: &HeaderValue, into: &mut Vec<HeaderName>) {
    for token in line.as_bytes().split(|byte| *byte == b',') {
        let token = token.trim_ascii();
        if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
            continue;
        }
        let Ok(name) = HeaderName::from_bytes(token) else {
            continue;
        };
        if name != HOST && name != CONTENT_LENGTH && name != TE {
            into.push(name);
        }
    }
}

/// Of `te` only `trailers` may pass a hop.
fn strip_te(headers: &mut HeaderMap) {
    let Some(te) = headers.get(TE) else { return };
    let trailers = headers
        .get_all(TE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    if !trailers {
        headers.remove(TE);
    } else if te != "trailers" || headers.get_all(TE).iter().nth(1).is_some() {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    fn left(filter: &Filter, lines: &[(&str, &str)]) -> Vec<String> {
        let mut headers = map(lines);
        filter.strip(&mut headers);
        let mut left: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        left.sort();
        left
    }

    fn to_app() -> Filter {
        Filter::to_app(&[
            HeaderName::from_static("x-user-id"),
            HeaderName::from_static("0-user"),
        ])
    }

    #[test]
    fn leaves_what_is_no_ones_business() {
        let lines = [
            ("accept", "*/*"),
            ("authorization", "Basic x"),
            ("content-length", "3"),
            ("content-type", "text/plain"),
            ("host", "payments"),
            ("traceparent", "00-1"),
            ("trailer", "grpc-status"),
            ("user-agent", "curl"),
            ("x-request-id", "1"),
            ("x_request_id", "2"),
            ("x-user", "1"),
        ];
        assert_eq!(left(&to_app(), &lines).len(), lines.len());
    }

    #[test]
    fn s03_a_forged_client_cert_header_is_removed() {
        for name in [
            "x-forwarded-client-cert",
            "X-Forwarded-Client-Cert",
            "x_forwarded_client_cert",
            "x-forwarded_client-cert",
            "x.forwarded.client.cert",
            "x-warifu-caller",
            "x_warifu_caller",
            "x-warifu_context",
            "x-warifu-anything",
            "client-cert",
            "client_cert",
            "client-cert-chain",
            "x-amzn-oidc-data",
            "x_amzn_oidc_identity",
            "x-user-id",
            "x_user_id",
            "0-user",
            "0_user",
        ] {
            assert_eq!(
                left(&to_app(), &[(name, "forged"), (name, "again"), ("a", "b")]),
                ["a: b"],
                "{name}"
            );
        }
    }

    #[test]
    fn s03_method_and_path_overrides_are_removed() {
        for name in OVERRIDES.iter().copied().chain([
            "X-HTTP-Method-Override",
            "x_http_method_override",
            "x_original_url",
        ]) {
            assert_eq!(
                left(&to_app(), &[(name, "DELETE"), ("a", "b")]),
                ["a: b"],
                "{name}"
            );
        }
    }

    #[test]
    fn s03_what_every_connection_line_nominates_is_removed() {
        let lines = [
            ("connection", "keep-alive, x-one"),
            ("Connection", "X-Two ,, x-three"),
            ("connection", "close, bad name"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("x-four", "4"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
        ];
        for filter in [
            to_app(),
            Filter::from_app(),
            Filter::to_network(false),
            Filter::from_network(),
        ] {
            assert_eq!(left(&filter, &lines), ["x-four: 4"]);
        }
    }

    #[test]
    fn s04_host_and_length_cannot_be_nominated_away() {
        let lines = [
            ("connection", "host, content-length"),
            ("host", "a"),
            ("content-length", "3"),
        ];
        assert_eq!(left(&to_app(), &lines), ["content-length: 3", "host: a"]);
    }

    #[test]
    fn of_te_only_trailers_passes() {
        for (te, kept) in [
            ("trailers", Some("te: trailers")),
            ("gzip, Trailers", Some("te: trailers")),
            ("gzip", None),
        ] {
            assert_eq!(
                left(&to_app(), &[("te", te), ("connection", "te")])
                    .pop()
                    .as_deref(),
                kept,
                "{te}"
            );
        }
        assert_eq!(
            left(&to_app(), &[("te", "gzip"), ("te", "trailers")]),
            ["te: trailers"]
        );
    }

    #[test]
    fn s03_trailers_pass_the_same_filter() {
        let mut trailers = map(&[
            ("grpc-status", "0"),
            ("x-warifu-caller", "forged"),
            ("x_forwarded_client_cert", "forged"),
            ("x_user_id", "root"),
            ("authorization", "Bearer x"),
            ("content_length", "9"),
            ("x-forwarded-for", "10.0.0.1"),
            ("connection", "close"),
        ]);
        to_app().strip_trailers(&mut trailers);
        assert_eq!(
            trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["grpc-status"]
        );
    }

    #[test]
    fn s03_the_app_cannot_speak_as_an_agent() {
        let lines = [
            ("x-warifu-caller", "me"),
            ("x_warifu_caller", "me"),
            ("x-forwarded-client-cert", "By=me"),
        ];
        assert!(left(&Filter::to_network(false), &lines).is_empty());
        assert!(left(&Filter::from_app(), &lines[..2]).is_empty());
    }

    #[test]
    fn s06_the_apps_authorization_gives_way_to_the_routes() {
        let lines = [("authorization", "Bearer x")];
        assert_eq!(left(&Filter::to_network(false), &lines).len(), 1);
        assert!(left(&Filter::to_network(true), &lines).is_empty());
    }

    #[test]
    fn s03_only_the_last_forwarded_for_is_ours_and_it_is_one_line() {
        let mut headers = map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded-proto", "http"),
            ("x_forwarded_proto", "http"),
        ]);
        to_app().strip(&mut headers);
        set_forwarded(
            &mut headers,
            Some(&HeaderValue::from_static("3.3.3.3")),
            HeaderValue::from_static("https"),
        );
        assert_eq!(headers.len(), 2);
        assert_eq!(headers[X_FORWARDED_FOR], "1.1.1.1, 2.2.2.2, 3.3.3.3");
        assert_eq!(headers[X_FORWARDED_PROTO], "https");
    }
}

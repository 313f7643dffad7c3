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
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE},
};

use warifu::client::CONNECTION_HEADER;

mod names;
mod vary;

use names::Names;
pub use vary::Unseen;

/// How the app learns of the caller's certificate: Envoy's format.
pub const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// The caller's certificate (RFC 9440 §2.2).
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// The certificates above it (RFC 9440 §2.3).
pub const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// Where a request came from: addresses, the nearest last.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The scheme the caller used.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Says over HTTP/2 that a connection is about to end ([`CONNECTION_HEADER`]).
pub const X_WARIFU_CONNECTION: HeaderName = HeaderName::from_static(CONNECTION_HEADER);

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

/// The same, by how the names begin. `x-amzn-oidc-…` is what an ALB says of a
/// user, `x-amzn-mtls-…` of a client certificate.
const IDENTITY_PREFIXES: &[&str] = &["x-warifu-"];
const NETWORK_IDENTITY_PREFIXES: &[&str] =
    &["x-warifu-", "x-amzn-oidc-", "x-amzn-mtls-", "x-ssl-client-"];

/// What proxies an app stood behind before may have told it of a client's certificate (ingress-nginx,
/// Traefik): nobody tells it here.
const NETWORK_IDENTITY: &[&str] = &[
    "ssl-client-cert",
    "ssl-client-issuer-dn",
    "ssl-client-subject-dn",
    "ssl-client-verify",
    "x-forwarded-tls-client-cert",
    "x-forwarded-tls-client-cert-info",
];

/// What an app may read as another method or path than the one that was decided on.
const TARGETS: &[&str] = &[
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-uri",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-path",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-rewrite-url",
];

/// What an app may read as another origin than the request had, and what Envoy says of a target it changed.
const ORIGINS: &[&str] = &[
    "forwarded",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-envoy-original-method",
    "x-envoy-original-path",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-original-host",
    "x-real-ip",
];

/// What a caller proves itself by, and shows to nobody else.
const CREDENTIALS: &[&str] = &["authorization", "cookie", "proxy-authorization"];

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
    /// Without any: what is signed has nothing behind it that isn't.
    no_trailers: bool,
}

impl Filter {
    /// Requests from the network to the app; `claims` are the headers the agent puts claims into.
    pub fn to_app<'a>(claims: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        let claims: Vec<_> = claims.into_iter().map(HeaderName::as_str).collect();
        Self::new(
            &[
                HOP_BY_HOP,
                IDENTITY,
                NETWORK_IDENTITY,
                TARGETS,
                ORIGINS,
                &claims,
            ],
            NETWORK_IDENTITY_PREFIXES,
            APPENDED,
        )
    }

    /// Responses from the app to the network: what the agent itself says is `x-warifu-…`.
    pub fn from_app() -> Self {
        Self::new(&[HOP_BY_HOP], IDENTITY_PREFIXES, &[])
    }

    /// Requests from the app to the network. `attached` are the headers that the route sets: the app's own, however they
    /// are spelt, give way to them.
    pub fn to_network(attached: &[&str]) -> Self {
        Self::new(&[HOP_BY_HOP, IDENTITY, attached], IDENTITY_PREFIXES, &[])
    }

    /// Responses from the network to the app.
    pub fn from_network() -> Self {
        Self::new(&[HOP_BY_HOP], &[], &[])
    }

    /// Requests that a proxy beside the app lets pass because we say so: [`Self::to_remove`] tells it what of them the
    /// app must not see. What is for one hop only, and where a request came from, is the proxy's own business.
    pub fn to_app_of_proxy<'a>(claims: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        let claims: Vec<_> = claims.into_iter().map(HeaderName::as_str).collect();
        Self::new(
            &[IDENTITY, NETWORK_IDENTITY, TARGETS, &claims],
            NETWORK_IDENTITY_PREFIXES,
            &[],
        )
    }

    /// Requests as a policy sees them: without credentials (`secrets` are headers that hold some), and without what says
    /// who calls, or where from, and proves nothing.
    pub fn to_policy<'a>(secrets: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        let secrets: Vec<_> = secrets.into_iter().map(HeaderName::as_str).collect();
        Self::new(
            &[
                CREDENTIALS,
                IDENTITY,
                NETWORK_IDENTITY,
                ORIGINS,
                APPENDED,
                &secrets,
            ],
            NETWORK_IDENTITY_PREFIXES,
            &[],
        )
    }

    /// Whether it removes the header `name`, however that is spelt.
    pub fn removes(&self, name: &HeaderName) -> bool {
        self.names.contains(name.as_str())
    }

    /// What of `headers` is removed, and all that would be whether it is there or not: who asks may not show all
    /// headers. Not what is in `ours`, however `ours` is spelt there; other spellings of it are removed.
    pub fn to_remove(&self, headers: &HeaderMap, ours: &HeaderMap) -> Vec<String> {
        let seen = headers.keys().map(HeaderName::as_str);
        let seen = seen.filter(|name| self.names.contains(name));
        let mut remove: Vec<String> = seen.chain(self.names.exact()).map(str::to_owned).collect();
        remove.sort_unstable();
        remove.dedup();
        remove.retain(|name| !ours.contains_key(name));
        remove
    }

    fn new(exact: &[&[&str]], prefixes: &'static [&'static str], variants: &[&str]) -> Self {
        let mut names = Names::new(prefixes);
        names.extend(exact.iter().copied().flatten());
        let mut trailers = names.clone();
        trailers.extend(NOT_IN_TRAILERS);
        names.extend_variants(variants);
        Self {
            names,
            trailers,
            no_trailers: false,
        }
    }

    /// Removes all trailers, and their announcement.
    pub fn without_trailers(mut self) -> Self {
        self.names.extend(&["trailer"]);
        self.no_trailers = true;
        self
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
        if self.no_trailers {
            trailers.clear();
            return;
        }
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

/// Makes one line of several `cookie` lines, which HTTP/2 clients send and RFC 9113 §8.2.3 asks to join:
/// an app that reads only one of them, or joins them with commas, sees other cookies than we passed on.
pub fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let joined = lines.collect::<Vec<_>>().join(&b"; "[..]);
    // Made of values, so it is one.
    if let Ok(mut joined) = HeaderValue::from_maybe_shared(joined) {
        joined.set_sensitive(true);
        headers.insert(COOKIE, joined);
    }
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
mod tests;

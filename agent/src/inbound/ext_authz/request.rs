//! What Envoy asks, as a request of ours: pure, and strict where Envoy only passes on what came.

use std::{borrow::Cow, net::IpAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header::HOST, request::Parts,
    uri::PathAndQuery,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;
use warifu::SpiffeId;

use super::proto::{
    core::{HeaderMap as RawHeaders, address::Address},
    service::attribute_context::{HttpRequest, Peer},
    service::{AttributeContext, CheckRequest},
};
use crate::http::path::{PathError, normal_form};

/// A request that Envoy holds until it hears of it.
#[derive(Debug)]
pub(super) struct Asked {
    /// Its target in origin form, the path in normal form; its headers without Envoy's pseudo-headers.
    pub(super) parts: Parts,
    /// Whom Envoy saw at the other end of its connection.
    pub(super) presented: Option<Presented>,
    /// Where that is.
    pub(super) source: Option<IpAddr>,
}

/// A client certificate that Envoy verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Presented {
    /// Its URI SAN, as Envoy read it.
    pub(super) principal: SpiffeId,
    pub(super) leaf: CertificateDer<'static>,
}

/// Why there is nothing to decide.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(in crate::inbound) enum Unclear {
    #[error("Envoy sent no HTTP request: this service decides on HTTP requests only")]
    NotHttp,
    #[error("the method is none that HTTP has")]
    Method,
    #[error("the host is not a host name or address")]
    Host,
    #[error(transparent)]
    Path(PathError),
    /// Envoy forwards what came, so what came must be what is decided on (S11).
    #[error(
        "the path is not in normal form, which is {0}; set normalize_path and path_with_escaped_slashes_action \
         in Envoy's HTTP connection manager"
    )]
    NotNormal(String),
    #[error("the query has a character that must be escaped, or a fragment follows it")]
    Query,
    #[error("the header {0} is not one that HTTP has")]
    Header(String),
    #[error("Envoy says two things of {0}")]
    Contradiction(&'static str),
    #[error("its client is {0}, which is no SPIFFE ID: only a URI SAN is believed")]
    Principal(String),
    #[error(
        "Envoy names its client but does not show the certificate: set include_peer_certificate in its ext_authz filter"
    )]
    NoCertificate,
    #[error("the certificate Envoy shows is no PEM certificate in URL encoding")]
    Certificate,
}

impl Unclear {
    /// What its caller is told. What only who runs Envoy can mend is said in the audit log.
    pub(in crate::inbound) fn say(&self) -> (StatusCode, &'static str, Cow<'static, str>) {
        match self {
            Self::Path(error) => (
                StatusCode::BAD_REQUEST,
                "bad-path",
                error.to_string().into(),
            ),
            Self::NotNormal(_) => {
                let text = "the path is not in normal form";
                (StatusCode::BAD_REQUEST, "bad-path", text.into())
            }
            Self::Query => (
                StatusCode::BAD_REQUEST,
                "bad-query",
                self.to_string().into(),
            ),
            Self::Host => (StatusCode::BAD_REQUEST, "bad-host", self.to_string().into()),
            Self::Method | Self::Header(_) => {
                let text = "the request is none that HTTP has";
                (StatusCode::BAD_REQUEST, "bad-request", text.into())
            }
            Self::NotHttp | Self::Contradiction(_) => {
                let text = "the proxy in front of this service asked for no clear decision";
                (StatusCode::FORBIDDEN, "unclear", text.into())
            }
            Self::Principal(_) | Self::NoCertificate | Self::Certificate => {
                let text = "this caller's certificate is none that is accepted here";
                (StatusCode::FORBIDDEN, "peer-not-accepted", text.into())
            }
        }
    }
}

/// Longest principal that an error repeats: that of a SPIFFE ID.
const MAX_PRINCIPAL: usize = 2048;

impl Asked {
    /// Reads `check`.
    pub(super) fn read(check: CheckRequest) -> Result<Self, Unclear> {
        let attributes = check.attributes.unwrap_or_default();
        let AttributeContext { source, request } = attributes;
        let source = source.unwrap_or_default();
        let http = request
            .and_then(|request| request.http)
            .ok_or(Unclear::NotHttp)?;
        Ok(Self {
            source: address(&source),
            presented: presented(source)?,
            parts: parts(http)?,
        })
    }
}

/// Method and target as the audit log shows them, as far as they can be read.
pub(super) fn line(check: &CheckRequest) -> (Method, Option<PathAndQuery>) {
    let attributes = check.attributes.as_ref();
    let request = attributes.and_then(|it| it.request.as_ref());
    let http = request.and_then(|it| it.http.as_ref());
    let method = http.and_then(|http| Method::from_bytes(http.method.as_bytes()).ok());
    let target = http.and_then(|http| PathAndQuery::try_from(http.path.as_str()).ok());
    // What has no method that can be read is refused for it.
    (method.unwrap_or_default(), target)
}

fn parts(http: HttpRequest) -> Result<Parts, Unclear> {
    let method = Method::from_bytes(http.method.as_bytes()).map_err(|_| Unclear::Method)?;
    // Envoy leaves both empty: a value here would be a second opinion of the target.
    if !http.query.is_empty() || !http.fragment.is_empty() {
        return Err(Unclear::Contradiction("the query"));
    }
    let uri = target(&http.path)?;
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &[u8]| match name {
        ":path" => agree("the path", value, &http.path),
        ":method" => agree("the method", value, &http.method),
        ":authority" | "host" => agree("the host", value, &http.host),
        name if name.starts_with(':') => Ok(()),
        name => {
            let refused = || Unclear::Header(name.chars().take(MAX_PRINCIPAL).collect());
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
            let value = HeaderValue::from_bytes(value).map_err(|_| refused())?;
            headers.append(name, value);
            Ok(())
        }
    };
    match http.header_map {
        Some(RawHeaders { headers: raw }) => {
            for header in raw {
                // One of the two is empty.
                add(&header.key, &header.raw_value)?;
            }
        }
        None => {
            for (name, value) in &http.headers {
                add(name, value.as_bytes())?;
            }
        }
    }
    headers.insert(HOST, host(&http.host)?);
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.headers = headers;
    Ok(parts)
}

fn agree(what: &'static str, one: &[u8], other: &str) -> Result<(), Unclear> {
    match one == other.as_bytes() {
        true => Ok(()),
        false => Err(Unclear::Contradiction(what)),
    }
}

/// As it came, which is as it will be forwarded: it must be in normal form already (S11).
fn target(target: &str) -> Result<Uri, Unclear> {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let normal = normal_form(path).map_err(Unclear::Path)?;
    if *normal != *path {
        return Err(Unclear::NotNormal(normal.into_owned()));
    }
    let read = PathAndQuery::try_from(target).map_err(|_| Unclear::Query)?;
    // A fragment, which no request has, is left out of it; Envoy would leave it in.
    match read.as_str() == target {
        true => Ok(Uri::from(read)),
        false => Err(Unclear::Query),
    }
}

/// As for requests that come to us: apps put it before the path to make a URL of the request.
fn host(host: &str) -> Result<HeaderValue, Unclear> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(Unclear::Host);
    }
    HeaderValue::from_str(host).map_err(|_| Unclear::Host)
}

fn presented(peer: Peer) -> Result<Option<Presented>, Unclear> {
    if peer.principal.is_empty() && peer.certificate.is_empty() {
        return Ok(None);
    }
    let principal = SpiffeId::new(peer.principal.as_str())
        .map_err(|_| Unclear::Principal(peer.principal.chars().take(MAX_PRINCIPAL).collect()))?;
    if peer.certificate.is_empty() {
        return Err(Unclear::NoCertificate);
    }
    let pem = unescaped(&peer.certificate).ok_or(Unclear::Certificate)?;
    let leaf = CertificateDer::from_pem_slice(&pem).map_err(|_| Unclear::Certificate)?;
    Ok(Some(Presented { principal, leaf }))
}

/// URL encoding undone; `+` is itself, as it is in base64.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

fn address(peer: &Peer) -> Option<IpAddr> {
    let Address::SocketAddress(socket) = peer.address.as_ref()?.address.as_ref()?;
    socket.address.parse().ok()
}

#[cfg(test)]
mod tests;

//! A request as it goes on: one host, one path, one framing.

use std::{borrow::Cow, sync::Arc};

use http::{
    HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
    uri::PathAndQuery,
};
use http_body::Body as _;
use hyper::body::Incoming;

use super::refusal::Refusal;
use crate::http::{
    body::{Body, Upload},
    headers::Filter,
    path::{PathError, normal_form},
    upgrade::Wanted,
};

/// Tunnels but for WebSockets, methods that are about the way and not the app, two lengths, and codings we would
/// have to undo. Returns the WebSocket that is asked for, if one is.
pub(super) fn refuse_what_is_not_served(parts: &Parts) -> Result<Option<Wanted>, Refusal> {
    let websocket = Wanted::of(parts).map_err(Refusal::BadUpgrade)?;
    let upgrades = websocket.is_none() && parts.headers.contains_key(UPGRADE);
    if parts.method == Method::CONNECT || upgrades {
        return Err(Refusal::Tunnel);
    }
    if parts.method == Method::TRACE {
        // Its answer would show the caller what we tell the app.
        return Err(Refusal::Trace);
    }
    // HTTP/2 allows what reads as one number, `4` and `04` say; not every app does.
    if parts
        .headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .nth(1)
        .is_some()
    {
        return Err(Refusal::TwoLengths);
    }
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(websocket),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(websocket),
        _ => Err(Refusal::TransferCoding),
    }
}

/// Exactly one host: `host`, or the authority of the target (HTTP/2, absolute form), or both alike.
pub(super) fn host(parts: &mut Parts) -> Result<(), Refusal> {
    one_host(parts)?;
    // Apps put it before the path to make a URL of the request: with a `/`, `?` or `#` in it that URL
    // has another path than the one that is decided on.
    let host = parts.headers.get(HOST).map(HeaderValue::as_bytes);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(byte);
    if !host.is_some_and(|host| !host.is_empty() && host.iter().all(plain)) {
        return Err(Refusal::Host("the host is not a host name or address"));
    }
    Ok(())
}

fn one_host(parts: &mut Parts) -> Result<(), Refusal> {
    let mut lines = parts.headers.get_all(HOST).iter();
    match (lines.next(), lines.next(), parts.uri.authority()) {
        (Some(_), None, None) => Ok(()),
        (Some(host), None, Some(authority))
            if host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            Ok(())
        }
        (None, None, Some(authority)) => {
            let host = HeaderValue::from_str(authority.as_str())
                .map_err(|_| Refusal::Host("the authority of the target is not a host"))?;
            parts.headers.insert(HOST, host);
            Ok(())
        }
        (None, _, _) => Err(Refusal::Host("the request names no host")),
        (_, Some(_), _) => Err(Refusal::Host("the request has more than one host header")),
        (Some(_), None, Some(_)) => Err(Refusal::Host(
            "the host header differs from the target's authority",
        )),
    }
}

/// The target in origin form, its path in normal form, its query as it came.
pub(super) fn path(parts: &mut Parts) -> Result<(), Refusal> {
    let normal = normal_form(parts.uri.path())?;
    let target = match normal {
        Cow::Borrowed(_) if parts.uri.authority().is_none() => return Ok(()),
        Cow::Borrowed(_) => parts.uri.path_and_query().cloned(),
        Cow::Owned(mut target) => {
            if let Some(query) = parts.uri.query() {
                target.push('?');
                target.push_str(query);
            }
            PathAndQuery::from_maybe_shared(target).ok()
        }
    };
    parts.uri = Uri::from(target.ok_or(PathError::Unescaped)?);
    Ok(())
}

/// The body, of so many bytes at `most`, with its framing for the next hop, which is HTTP/1.1.
pub(super) fn framing(
    request: Request<Incoming>,
    filter: &Arc<Filter>,
    most: Option<u64>,
) -> Result<Request<Body>, Refusal> {
    let (mut parts, body) = request.into_parts();
    parts.version = Version::HTTP_11;
    if body.is_end_stream() {
        return Ok(Request::from_parts(parts, body.into()));
    }
    // One that says how long it is need not come first.
    if let Some(most) = most
        && body.size_hint().lower() > most
    {
        return Err(Refusal::BodyTooLarge);
    }
    if body.size_hint().exact().is_none() {
        // Else hyper would leave the body out where the method usually has none.
        parts
            .headers
            .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let body = Upload::new(body, filter, most);
    Ok(Request::from_parts(parts, Body::Upload(body)))
}

//! Answers the agent makes itself.

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde::Serialize;
use warifu::client::REASON_HEADER;

use super::body::Body;

/// Tells an answer of an agent from one of an app: a word for programs. The agent removes it from
/// what apps answer.
pub const REASON: HeaderName = HeaderName::from_static(REASON_HEADER);

#[derive(Serialize)]
struct Content<'a> {
    reason: &'a str,
    message: &'a str,
}

/// An answer with `status`, `reason` (a word, such as `no-route`) and a JSON body that says `message`.
/// The message is for whoever is at the other end: no secrets, nothing of our insides.
pub fn answer(status: StatusCode, reason: &'static str, message: &str) -> Response<Body> {
    whole(status, reason, message).map(Body::from)
}

/// The same, for somebody else to give.
pub fn whole(status: StatusCode, reason: &'static str, message: &str) -> Response<Bytes> {
    let body = serde_json::to_vec(&Content { reason, message }).unwrap_or_default();
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(REASON, HeaderValue::from_static(reason));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

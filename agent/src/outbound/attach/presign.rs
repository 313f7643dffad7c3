//! A URL that makes the app's call, as the answer: for a browser or a partner that is to up- or download by itself.
//!
//! The app sends the request that is to be made, with `x-warifu-presign: 5m`, through a route that allows it. Nothing
//! is sent upstream.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE, HOST},
    request::Parts,
};
use serde::Serialize;

use super::{Call, sigv4::SigV4};
use crate::{
    config::value::Span, http::body::Body, outbound::refusal::Refusal,
    telemetry::timestamp::Timestamp,
};

/// Asks for a URL, and says how long it is to live.
const PRESIGN: HeaderName = HeaderName::from_static("x-warifu-presign");

/// The answer.
#[derive(Serialize)]
struct Url {
    method: String,
    url: String,
    /// What must be sent with it, as it is.
    headers: serde_json::Map<String, serde_json::Value>,
    expires: Timestamp,
}

/// Whether the app asks for a URL, and for how long.
pub(in crate::outbound) fn asked(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let mut lines = headers.get_all(PRESIGN).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    let span = line
        .to_str()
        .ok()
        .and_then(|text| text.parse::<Span>().ok());
    match (span, lines.next()) {
        (Some(span), None) if span.0 >= Duration::from_secs(1) => Ok(Some(span.0)),
        _ => Err(Refusal::PresignSpan),
    }
}

impl SigV4 {
    pub(super) async fn presign(
        &self,
        call: &Call<'_>,
        mut parts: Parts,
        body: Body,
        span: Duration,
    ) -> Result<Response<Body>, Refusal> {
        let longest = self.presign.ok_or(Refusal::PresignNotAllowed)?;
        if span > longest {
            return Err(Refusal::PresignTooLong(longest));
        }
        let signed = self.sign_url(call, &mut parts, body, span).await?;
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let url = format!(
            "{}://{}{}",
            self.scheme,
            host.unwrap_or_default(),
            parts.uri
        );
        let answer = Url {
            method: parts.method.to_string(),
            url,
            headers: signed
                .headers
                .into_iter()
                .map(|(name, value)| (name, value.into()))
                .collect(),
            expires: Timestamp(signed.expires),
        };
        let answer = serde_json::to_vec(&answer).unwrap_or_default();
        let mut response = Response::new(Body::from(Bytes::from(answer)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Whoever has it may call.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

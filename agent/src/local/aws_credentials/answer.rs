//! Answers: credentials, and why there are none.

use std::time::SystemTime;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use serde::Serialize;

use crate::{http::body::Body, local::guard::Foreign, telemetry::timestamp::Timestamp};

/// Seconds after which it is worth asking again.
const RETRY_SECONDS: &str = "2";

/// Something other than a refusal.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// Whether credentials are in it.
    pub(super) gives: bool,
}

/// Why a request gets no credentials.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) why: Why,
    /// For whoever asks: no secrets.
    pub(super) message: String,
}

/// The kinds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The `Host`, or the target's authority, is not this endpoint's.
    ForeignHost,
    /// A web page asks.
    Origin,
    /// A proxy asks for somebody.
    Forwarded,
    /// The process's user and group are not listed.
    NotAllowed,
    /// No token, a wrong one, or one that has expired.
    NoToken,
    /// Nothing is here.
    UnknownPath,
    /// It is asked for otherwise.
    WrongMethod,
    /// An IMDSv2 token with an impossible lifetime.
    BadTtl,
    /// AWS decided.
    Refused,
    /// Not now.
    Unavailable,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Content<'a> {
    code: &'a str,
    message: &'a str,
}

impl Why {
    pub(super) const ALL: [Self; 10] = [
        Self::ForeignHost,
        Self::Origin,
        Self::Forwarded,
        Self::NotAllowed,
        Self::NoToken,
        Self::UnknownPath,
        Self::WrongMethod,
        Self::BadTtl,
        Self::Refused,
        Self::Unavailable,
    ];

    /// Status, word of the metric, `Code` of the answer. 4xx ends an SDK's attempts, 5xx makes it ask again.
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::ForeignHost => (StatusCode::FORBIDDEN, "foreign-host", "ForeignHost"),
            Self::Origin => (StatusCode::FORBIDDEN, "origin", "WebPage"),
            Self::Forwarded => (StatusCode::FORBIDDEN, "forwarded", "Forwarded"),
            Self::NotAllowed => (StatusCode::FORBIDDEN, "not-allowed", "ClientNotAllowed"),
            Self::NoToken => (StatusCode::UNAUTHORIZED, "no-token", "InvalidToken"),
            Self::UnknownPath => (StatusCode::NOT_FOUND, "unknown-path", "NotFound"),
            Self::WrongMethod => (
                StatusCode::METHOD_NOT_ALLOWED,
                "wrong-method",
                "MethodNotAllowed",
            ),
            Self::BadTtl => (StatusCode::BAD_REQUEST, "bad-ttl", "InvalidTtl"),
            Self::Refused => (StatusCode::FORBIDDEN, "refused", "CredentialsRefused"),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "CredentialsUnavailable",
            ),
        }
    }

    pub(super) fn of(foreign: &Foreign) -> Self {
        match foreign {
            Foreign::Host => Self::ForeignHost,
            Foreign::Origin => Self::Origin,
            Foreign::Forwarded(_) => Self::Forwarded,
        }
    }

    pub(super) fn word(self) -> &'static str {
        self.parts().1
    }
}

impl Refusal {
    pub(super) fn new(why: Why, message: impl Into<String>) -> Self {
        Self {
            why,
            message: message.into(),
        }
    }

    /// `imds`: as instance metadata does, whose clients read why AWS refused from a 200.
    pub(super) fn response(self, imds: bool) -> Response<Body> {
        let (status, _, code) = self.why.parts();
        let (status, code) = match self.why {
            Why::Refused if imds => (StatusCode::OK, "AssumeRoleUnauthorizedAccess"),
            _ => (status, code),
        };
        let content = Content {
            code,
            message: &self.message,
        };
        let mut response = json(&content);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        match self.why {
            Why::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
            }
            Why::WrongMethod => {
                headers.insert(ALLOW, HeaderValue::from_static("GET"));
            }
            _ => {}
        }
        response
    }
}

/// `content` as JSON.
pub(super) fn json(content: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(content).unwrap_or_default();
    let mut response = Response::new(Body::from(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `text`, as instance metadata answers.
pub(super) fn text(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// As AWS writes moments: whole seconds, rounded down, so never later than they are.
pub(super) fn seconds(at: SystemTime) -> String {
    let text = Timestamp(at).to_string();
    let whole = text.split('.').next().unwrap_or_default();
    format!("{whole}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_whole_seconds_and_never_later() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_999);
        assert_eq!(seconds(at), "2027-01-15T08:00:00Z");
    }

    #[test]
    fn what_passes_is_asked_again_and_what_was_decided_is_not() {
        for why in Why::ALL {
            let response = Refusal::new(why, "why").response(false);
            let again = why == Why::Unavailable;
            assert_eq!(response.status().is_server_error(), again, "{why:?}");
            assert_eq!(response.headers().contains_key(RETRY_AFTER), again);
            assert!(!response.status().is_success(), "{why:?}");
        }
    }
}

//! Answers: a token, and why there is none (RFC 6749 §5, RFC 8707 §2).

use std::time::SystemTime;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;

use crate::{
    http::body::Body,
    token::{MintError, Objection, Token},
};

/// Seconds after which it is worth asking again: an authority that is back is noticed as soon.
const RETRY_SECONDS: &str = "2";

/// Longest `error_description`.
const MAX_DESCRIPTION: usize = 512;

/// Why a request gets no token.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) why: Why,
    /// For whoever asks: no secrets.
    pub(super) description: String,
}

/// The kinds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Why {
    /// The `Host`, or the target's authority, is not this endpoint's.
    ForeignHost,
    /// A web page asks.
    Origin,
    /// A proxy asks for somebody.
    Forwarded,
    /// The process's user and group are not listed.
    NotAllowed,
    /// Nothing is here.
    UnknownPath,
    /// It is asked for otherwise.
    WrongMethod,
    /// The form is too large.
    TooLarge,
    /// The form did not arrive.
    TimedOut,
    /// A form that is none, or not this one.
    InvalidRequest,
    /// No client credentials, or wrong ones.
    InvalidClient,
    /// The same, too often.
    TooManyFailures,
    /// The authority gives this agent no such token.
    UnauthorizedClient,
    /// Another flow.
    UnsupportedGrantType,
    /// A scope that may not be asked for.
    InvalidScope,
    /// An audience that may not be asked for.
    InvalidTarget,
    /// Not now.
    Unavailable,
}

#[derive(Serialize)]
struct Given<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

#[derive(Serialize)]
struct Refused<'a> {
    error: &'static str,
    error_description: &'a str,
}

impl Why {
    /// Status, word of the metric, `error` of the answer.
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        let invalid = "invalid_request";
        match self {
            Self::ForeignHost => (StatusCode::FORBIDDEN, "foreign-host", invalid),
            Self::Origin => (StatusCode::FORBIDDEN, "origin", invalid),
            Self::Forwarded => (StatusCode::FORBIDDEN, "forwarded", invalid),
            Self::NotAllowed => (StatusCode::FORBIDDEN, "not-allowed", "unauthorized_client"),
            Self::UnknownPath => (StatusCode::NOT_FOUND, "unknown-path", invalid),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "wrong-method", invalid),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", invalid),
            Self::TimedOut => (StatusCode::REQUEST_TIMEOUT, "timed-out", invalid),
            Self::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid-request", invalid),
            Self::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid-client", "invalid_client"),
            Self::TooManyFailures => (
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-failures",
                "invalid_client",
            ),
            Self::UnauthorizedClient => (
                StatusCode::BAD_REQUEST,
                "unauthorized-client",
                "unauthorized_client",
            ),
            Self::UnsupportedGrantType => (
                StatusCode::BAD_REQUEST,
                "unsupported-grant-type",
                "unsupported_grant_type",
            ),
            Self::InvalidScope => (StatusCode::BAD_REQUEST, "invalid-scope", "invalid_scope"),
            Self::InvalidTarget => (StatusCode::BAD_REQUEST, "invalid-target", "invalid_target"),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "temporarily_unavailable",
            ),
        }
    }

    pub(super) fn word(self) -> &'static str {
        self.parts().1
    }
}

impl Refusal {
    pub(super) fn new(why: Why, description: impl Into<String>) -> Self {
        Self {
            why,
            description: description.into(),
        }
    }

    /// What asking again with other words, or later, would change.
    pub(super) fn of_mint(error: &MintError) -> Self {
        let why = match error {
            MintError::Refused { to, .. } => match to {
                Objection::Audience => Why::InvalidTarget,
                Objection::Scope => Why::InvalidScope,
                Objection::Any => Why::UnauthorizedClient,
            },
            MintError::Unavailable { .. } => Why::Unavailable,
        };
        Self::new(why, error.to_string())
    }

    /// The answer. `allow`: the methods of the path.
    pub(super) fn response(&self, allow: &'static str) -> Response<Body> {
        let (status, _, error) = self.why.parts();
        let mut response = json(&Refused {
            error,
            error_description: &described(&self.description),
        });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        match self.why {
            Why::InvalidClient => {
                let basic = HeaderValue::from_static("Basic realm=\"warifu\"");
                headers.insert(WWW_AUTHENTICATE, basic);
            }
            Why::Unavailable | Why::TooManyFailures => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
            }
            Why::WrongMethod => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            _ => {}
        }
        response
    }
}

/// RFC 6749 §5.1.
pub(super) fn token(token: &Token, now: SystemTime) -> Response<Body> {
    let left = token.expires_at().duration_since(now).unwrap_or_default();
    let scopes = token.scopes();
    json(&Given {
        access_token: token.expose(),
        token_type: "Bearer",
        expires_in: left.as_secs(),
        scope: (!scopes.is_empty()).then(|| scopes.join(" ")),
    })
}

/// A JSON answer that nobody may keep.
pub(super) fn json(content: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(content).unwrap_or_default();
    let mut response = Response::new(Body::from(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// In the characters that `error_description` may have (RFC 6749 §5.2).
fn described(text: &str) -> String {
    let allowed = |c: char| match c {
        '"' | '`' => '\'',
        '\\' => '/',
        ' '..='~' => c,
        _ => '?',
    };
    text.chars().take(MAX_DESCRIPTION).map(allowed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_has_the_characters_it_may_have() {
        let text = described("no \"scope\" `a`\\b\r\né…");
        assert_eq!(text, "no 'scope' 'a'/b????");
        assert_eq!(described(&"x".repeat(10_000)).len(), MAX_DESCRIPTION);
    }

    #[test]
    fn what_the_authority_refuses_says_what_to_ask_otherwise() {
        let refused = |to| MintError::Refused {
            audience: "payments".into(),
            to,
            why: "no".into(),
        };
        let away = MintError::Unavailable {
            audience: "payments".into(),
            why: "away".into(),
        };
        for (error, status, code) in [
            (refused(Objection::Audience), 400, "invalid_target"),
            (refused(Objection::Scope), 400, "invalid_scope"),
            (refused(Objection::Any), 400, "unauthorized_client"),
            (away, 503, "temporarily_unavailable"),
        ] {
            let refusal = Refusal::of_mint(&error);
            let (found, _, word) = refusal.why.parts();
            assert_eq!((found.as_u16(), word), (status, code));
            let retry = refusal.response("").headers().contains_key(RETRY_AFTER);
            assert_eq!(retry, status == 503);
        }
    }
}

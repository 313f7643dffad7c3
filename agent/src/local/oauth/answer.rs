//! Answers: a token, and why there is none (RFC 6749 §5, RFC 8707 §2).

use std::time::SystemTime;

use http::{HeaderValue, Response, StatusCode, header::WWW_AUTHENTICATE};
use serde::Serialize;

use crate::{
    http::body::Body,
    local::endpoint::{Own, Refusal, Why, json},
    token::{MintError, Objection, Token},
};

/// Longest `error_description`.
const MAX_DESCRIPTION: usize = 512;

/// The form is too large.
pub(super) const TOO_LARGE: Why = own(StatusCode::PAYLOAD_TOO_LARGE, "too-large", INVALID);
/// The form did not arrive.
pub(super) const TIMED_OUT: Why = own(StatusCode::REQUEST_TIMEOUT, "timed-out", INVALID);
/// A form that is none, or not this one.
pub(super) const INVALID_REQUEST: Why = bad("invalid-request", INVALID);
/// No client credentials, or wrong ones.
pub(super) const INVALID_CLIENT: Why =
    own(StatusCode::UNAUTHORIZED, "invalid-client", "invalid_client");
/// The same, too often.
pub(super) const TOO_MANY_FAILURES: Why = own(
    StatusCode::TOO_MANY_REQUESTS,
    "too-many-failures",
    "invalid_client",
);
/// The authority gives this agent no such token.
pub(super) const UNAUTHORIZED_CLIENT: Why = bad("unauthorized-client", UNAUTHORIZED);
/// Another flow.
pub(super) const UNSUPPORTED_GRANT_TYPE: Why =
    bad("unsupported-grant-type", "unsupported_grant_type");
/// A scope that may not be asked for.
pub(super) const INVALID_SCOPE: Why = bad("invalid-scope", "invalid_scope");
/// An audience that may not be asked for.
pub(super) const INVALID_TARGET: Why = bad("invalid-target", "invalid_target");

/// All of these.
pub(super) const REFUSES: &[Why] = &[
    TOO_LARGE,
    TIMED_OUT,
    INVALID_REQUEST,
    INVALID_CLIENT,
    TOO_MANY_FAILURES,
    UNAUTHORIZED_CLIENT,
    UNSUPPORTED_GRANT_TYPE,
    INVALID_SCOPE,
    INVALID_TARGET,
];

const INVALID: &str = "invalid_request";
const UNAUTHORIZED: &str = "unauthorized_client";

const fn bad(word: &'static str, error: &'static str) -> Why {
    own(StatusCode::BAD_REQUEST, word, error)
}

const fn own(status: StatusCode, word: &'static str, error: &'static str) -> Why {
    Why::Own(Own::new(status, word, error))
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

/// What asking again with other words, or later, would change.
pub(super) fn not_minted(error: &MintError) -> Refusal {
    let why = match error {
        MintError::Refused { to, .. } => match to {
            Objection::Audience => INVALID_TARGET,
            Objection::Scope => INVALID_SCOPE,
            Objection::Any => UNAUTHORIZED_CLIENT,
        },
        // Tokens given out here are the authority's.
        MintError::Denied { .. } | MintError::Unavailable { .. } => Why::Unavailable,
    };
    Refusal::new(why, error.to_string())
}

/// RFC 6749 §5.2.
pub(super) fn refusal(refusal: &Refusal) -> Response<Body> {
    let refused = Refused {
        error: code(refusal.why),
        error_description: &described(&refusal.message),
    };
    let mut response = json(refusal.why.status(), &refused);
    if refusal.why == INVALID_CLIENT {
        let basic = HeaderValue::from_static("Basic realm=\"warifu\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, basic);
    }
    response
}

fn code(why: Why) -> &'static str {
    match why {
        Why::NotAllowed => UNAUTHORIZED,
        Why::Unavailable => "temporarily_unavailable",
        Why::Own(own) => own.code,
        Why::ForeignHost
        | Why::Origin
        | Why::Forwarded
        | Why::UnknownPath
        | Why::WrongMethod(_) => INVALID,
    }
}

/// RFC 6749 §5.1.
pub(super) fn token(token: &Token, now: SystemTime) -> Response<Body> {
    let left = token.expires_at().duration_since(now).unwrap_or_default();
    let scopes = token.scopes();
    let given = Given {
        access_token: token.expose(),
        token_type: "Bearer",
        expires_in: left.as_secs(),
        scope: (!scopes.is_empty()).then(|| scopes.join(" ")),
    };
    json(StatusCode::OK, &given)
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
            let refusal = not_minted(&error);
            let found = (refusal.why.status().as_u16(), self::code(refusal.why));
            assert_eq!(found, (status, code));
        }
    }
}

//! What the endpoints say, in AWS's words.

use std::time::SystemTime;

use http::{Response, StatusCode};
use serde::Serialize;

use crate::{
    http::body::Body,
    local::endpoint::{Own, Refusal, Why, json},
    telemetry::timestamp::Timestamp,
};

/// No token, a wrong one, or one that has expired.
pub(super) const NO_TOKEN: Why = own(StatusCode::UNAUTHORIZED, "no-token", "InvalidToken");
/// An IMDSv2 token with an impossible lifetime.
pub(super) const BAD_TTL: Why = own(StatusCode::BAD_REQUEST, "bad-ttl", "InvalidTtl");
/// AWS decided.
pub(super) const REFUSED: Why = own(StatusCode::FORBIDDEN, "refused", "CredentialsRefused");

/// All of these.
pub(super) const REFUSES: &[Why] = &[NO_TOKEN, BAD_TTL, REFUSED];

const fn own(status: StatusCode, word: &'static str, code: &'static str) -> Why {
    Why::Own(Own::new(status, word, code))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Content<'a> {
    code: &'a str,
    message: &'a str,
}

/// Why there are no credentials.
pub(super) fn refusal(refusal: &Refusal) -> Response<Body> {
    refusal_as(refusal, refusal.why.status(), code(refusal.why))
}

/// The same, with this status and code.
pub(super) fn refusal_as(refusal: &Refusal, status: StatusCode, code: &str) -> Response<Body> {
    let message = &refusal.message;
    json(status, &Content { code, message })
}

fn code(why: Why) -> &'static str {
    match why {
        Why::ForeignHost => "ForeignHost",
        Why::Origin => "WebPage",
        Why::Forwarded => "Forwarded",
        Why::NotAllowed => "ClientNotAllowed",
        Why::UnknownPath => "NotFound",
        Why::WrongMethod(_) => "MethodNotAllowed",
        Why::Unavailable => "CredentialsUnavailable",
        Why::Own(own) => own.code,
    }
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
}

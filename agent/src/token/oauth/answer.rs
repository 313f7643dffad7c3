//! What a token endpoint answers (RFC 6749 §5). Pure, and strict: what is not clearly a bearer token is none.

use std::{collections::BTreeSet, fmt, time::Duration};

use http::StatusCode;
use serde::Deserialize;
use warifu::Secret;

/// Longest token that is taken: what servers take in a header (8 KiB usually), twice.
const MAX_TOKEN: usize = 16 * 1024;

/// Life of a token whose answer says nothing (`expires_in` is only RECOMMENDED): short enough to be right of any
/// provider, long enough not to ask all the time.
pub(super) const DEFAULT_LIFE: Duration = Duration::from_secs(5 * 60);

/// Longest life that is believed. Whoever says more is asked again after a day.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Errors that the answer of a provider may name: what else it says may be anything, secrets included, and is not
/// repeated. RFC 6749 §5.2 and §4.1.2.1, RFC 8707, RFC 9449.
const ERRORS: &[(&str, &str)] = &[
    (
        "invalid_client",
        "the client's id, its secret or key, or the way it authenticates is not what the provider has registered",
    ),
    (
        "invalid_scope",
        "the provider does not give this client these scopes; correct oauth.scopes, or what it may have there",
    ),
    (
        "unauthorized_client",
        "the provider does not give this client tokens for client credentials; allow it that grant there",
    ),
    (
        "invalid_target",
        "the provider knows no such audience or resource; correct oauth.audience or oauth.resource",
    ),
    (
        "invalid_grant",
        "the provider does not give this client what it asked for; look at its registration there",
    ),
    (
        "invalid_request",
        "the provider expects other parameters; look at what its documentation says of client credentials",
    ),
    (
        "unsupported_grant_type",
        "the provider gives no tokens for client credentials; is oauth.token_url right?",
    ),
    (
        "access_denied",
        "the provider denies this client tokens; look at its policies",
    ),
    (
        "invalid_dpop_proof",
        "the provider wants DPoP of this client, which is not supported",
    ),
    (
        "use_dpop_nonce",
        "the provider wants DPoP of this client, which is not supported",
    ),
];

/// Errors that pass.
const PASSING: &[&str] = &["temporarily_unavailable", "server_error", "slow_down"];

/// A token, as it was granted.
#[derive(Debug)]
pub struct Granted {
    /// It.
    pub token: Secret<String>,
    /// How long it lives, from when it was asked for.
    pub lives: Duration,
    /// Its scopes, where the answer says.
    pub scopes: Option<BTreeSet<String>>,
}

/// Why there is no token in an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// It may be otherwise soon.
    ForNow(String),
    /// Asking again changes nothing until someone changes something.
    Decided(Denial),
}

/// What a provider decided.
#[derive(Debug, PartialEq, Eq)]
pub struct Denial {
    /// Its error code, if that is one of those there are.
    pub error: Option<&'static str>,
    /// Whose turn it is.
    pub advice: &'static str,
}

/// RFC 6749 §5.1. A member that is there twice refuses the answer; others than these are ignored.
#[derive(Deserialize)]
struct Success {
    access_token: Text,
    token_type: Text,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    scope: Option<Text>,
}

/// RFC 6749 §5.2.
#[derive(Deserialize)]
struct Failure {
    error: Text,
}

/// Reads an answer.
///
/// # Errors
/// Why there is no token; it repeats nothing of the answer but the name of a known error.
pub fn read(status: StatusCode, content_type: &str, body: &[u8]) -> Result<Granted, Refused> {
    match status {
        StatusCode::OK => granted(content_type, body),
        _ if status.is_server_error() => Err(for_now("the provider has trouble of its own")),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Err(for_now("it is asked too much"))
        }
        _ if status.is_redirection() => Err(Refused::Decided(Denial {
            error: None,
            advice: "it points elsewhere, which is not followed; oauth.token_url must be where it answers",
        })),
        _ => Err(failure(body)),
    }
}

fn granted(content_type: &str, body: &[u8]) -> Result<Granted, Refused> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(for_now("the answer is not application/json"));
    }
    let success: Success = object(body)
        .ok_or_else(|| for_now("the answer is not JSON with access_token and token_type"))?;
    let token_type = success.token_type.0.expose();
    if !token_type.eq_ignore_ascii_case("bearer") {
        return Err(Refused::Decided(Denial {
            error: None,
            advice: "it gives tokens that are not of type Bearer; configure it to give this client bearer tokens",
        }));
    }
    let token = success.access_token.0;
    let is_token = (1..=MAX_TOKEN).contains(&token.expose().len())
        && token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    if !is_token {
        return Err(for_now(
            "the token it gives is none: 1 to 16384 visible ASCII characters are expected",
        ));
    }
    let lives = match success.expires_in {
        None => DEFAULT_LIFE,
        Some(0) => return Err(for_now("the token it gives has expired already")),
        Some(seconds) => Duration::from_secs(seconds).min(MAX_LIFE),
    };
    let scopes = success.scope.map(|scope| {
        let scopes = scope.0.expose().split(' ').filter(|it| is_scope(it));
        scopes.map(str::to_owned).collect()
    });
    Ok(Granted {
        token,
        lives,
        scopes,
    })
}

fn failure(body: &[u8]) -> Refused {
    let failure: Option<Failure> = object(body);
    let said = failure.as_ref().map(|it| it.error.0.expose().as_str());
    if let Some(passing) = PASSING.iter().find(|it| Some(**it) == said) {
        return for_now(passing);
    }
    let known = ERRORS.iter().find(|(error, _)| Some(*error) == said);
    Refused::Decided(match known {
        Some((error, advice)) => Denial {
            error: Some(error),
            advice,
        },
        None => Denial {
            error: None,
            advice: "it names no error of OAuth 2.0; is oauth.token_url its token endpoint?",
        },
    })
}

/// serde would take the members' values in a list, too. Its own words might quote the token, so it has none.
fn object<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Option<T> {
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    is_object.then(|| serde_json::from_slice(body).ok())?
}

fn for_now(why: &str) -> Refused {
    Refused::ForNow(why.to_owned())
}

/// RFC 6749 §3.3. What is none is left out: it is shown to people.
fn is_scope(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (1..=255).contains(&text.len()) && text.bytes().all(token)
}

/// A text that may be secret.
struct Text(Secret<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ok(body: &str) -> Result<Granted, Refused> {
        read(StatusCode::OK, "application/json", body.as_bytes())
    }

    #[test]
    fn a_bearer_token_is_read_with_its_life_and_scopes() {
        let granted = ok(
            r#"{"access_token":"abc.def","token_type":"bEaReR","expires_in":3600,"scope":"a b","x":{}}"#,
        );
        let granted = granted.unwrap();
        assert_eq!(granted.token.expose(), "abc.def");
        assert_eq!(granted.lives, Duration::from_secs(3600));
        let scopes: Vec<String> = granted.scopes.unwrap().into_iter().collect();
        assert_eq!(scopes, ["a", "b"]);
        let bare = ok(r#"{"access_token":"abc","token_type":"Bearer"}"#).unwrap();
        assert_eq!((bare.lives, bare.scopes), (DEFAULT_LIFE, None));
        let long = ok(r#"{"access_token":"abc","token_type":"Bearer","expires_in":99999999999}"#);
        assert_eq!(long.unwrap().lives, MAX_LIFE);
        let charset = "application/json; charset=UTF-8";
        let body = br#"{"access_token":"abc","token_type":"Bearer"}"#;
        assert!(read(StatusCode::OK, charset, body).is_ok());
        assert!(read(StatusCode::OK, "text/html", body).is_err());
    }

    #[test]
    fn what_is_not_clearly_a_bearer_token_is_none() {
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"access_token":"abc"}"#,
            r#"["abc","Bearer",300,"a"]"#,
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"a b","token_type":"Bearer"}"#,
            r#"{"access_token":"a\r\nx: y","token_type":"Bearer"}"#,
            r#"{"access_token":"abc","access_token":"abd","token_type":"Bearer"}"#,
            r#"{"access_token":["abc"],"token_type":"Bearer"}"#,
            r#"{"access_token":"abc","token_type":"DPoP"}"#,
            r#"{"access_token":"abc","token_type":"N_A"}"#,
            r#"{"access_token":"abc","token_type":"Bearer","expires_in":0}"#,
            r#"{"access_token":"abc","token_type":"Bearer","expires_in":-1}"#,
            r#"{"access_token":"abc","token_type":"Bearer","expires_in":"3600"}"#,
            r#"{"access_token":"abc","token_type":"Bearer","expires_in":1e400}"#,
            r#"{"access_token":"abc","token_type":"Bearer"} {}"#,
            r#"{"access_token":"abc","token_type":"Bearer""#,
        ] {
            assert!(ok(wrong).is_err(), "{wrong}");
        }
        let long = format!(
            r#"{{"access_token":"{}","token_type":"Bearer"}}"#,
            "x".repeat(MAX_TOKEN + 1)
        );
        assert!(ok(&long).is_err());
    }

    #[test]
    fn s12_an_error_is_named_only_if_it_is_one_there_is() {
        let failed = |status: u16, body: &str| {
            read(StatusCode::from_u16(status).unwrap(), "", body.as_bytes()).unwrap_err()
        };
        let body = r#"{"error":"invalid_client","error_description":"hunter2 is wrong"}"#;
        let Refused::Decided(denial) = failed(401, body) else {
            panic!("it is decided")
        };
        assert_eq!(denial.error, Some("invalid_client"));
        for (status, body) in [
            (400, r#"{"error":"hunter2"}"#),
            (400, "hunter2"),
            (404, ""),
            (302, ""),
            (403, r#"{"error":"a","error":"invalid_client"}"#),
        ] {
            let refused = failed(status, body);
            assert!(!format!("{refused:?}").contains("hunter2"));
            let Refused::Decided(denial) = refused else {
                panic!("{status} is decided")
            };
            assert_eq!(denial.error, None);
        }
        for (status, body) in [
            (500, ""),
            (503, r#"{"error":"invalid_client"}"#),
            (429, ""),
            (400, r#"{"error":"temporarily_unavailable"}"#),
            (400, r#"{"error":"slow_down"}"#),
        ] {
            assert!(
                matches!(failed(status, body), Refused::ForNow(_)),
                "{status} {body}"
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_a_token_fits_a_header(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            status in 100_u16..600,
        ) {
            let status = StatusCode::from_u16(status).unwrap();
            if let Ok(granted) = read(status, "application/json", &body) {
                prop_assert!(http::HeaderValue::from_str(granted.token.expose()).is_ok());
            }
        }
    }
}

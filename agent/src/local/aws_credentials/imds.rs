//! [IMDSv2](https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html), as much
//! of it as gives a role and a region: for programs that know nothing else.

use std::time::{Duration, Instant};

use aws_lc_rs::{error::Unspecified, hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use serde::Serialize;

use super::{
    Credentials,
    answer::{self, BAD_TTL, NO_TOKEN, REFUSED, seconds},
};
use crate::{
    aws::SessionCredentials,
    http::body::Body,
    local::endpoint::{Answer, GIVEN, Refusal, Why, json, text},
};

const TOKEN_PATH: &str = "/latest/api/token";
const ROLES_PATH: &str = "/latest/meta-data/iam/security-credentials";
const REGION_PATH: &str = "/latest/meta-data/placement/region";

const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");

/// Seconds that a token may live.
const TTL_SECONDS: std::ops::RangeInclusive<u64> = 1..=21_600;

/// Bytes of a token before its tag: when it expires, as seconds since this started.
const EXPIRY: usize = 8;

/// Tokens carry their own expiry under a tag, so there is nothing to keep, however many are asked for.
pub(super) struct Imds {
    key: hmac::Key,
    started: Instant,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Content<'a> {
    code: &'static str,
    last_updated: String,
    r#type: &'static str,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    expiration: String,
}

impl Imds {
    pub(super) fn new() -> Result<Self, Unspecified> {
        let mut random = [0; 32];
        rand::fill(&mut random)?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &random),
            started: Instant::now(),
        })
    }

    /// Answers one request, which the guard let through.
    pub(super) async fn answer<B>(
        &self,
        credentials: &Credentials,
        request: &Request<B>,
    ) -> Result<Answer, Refusal> {
        let (method, path) = (request.method(), request.uri().path());
        if path == TOKEN_PATH {
            return self.token(method, request.headers());
        }
        if !self.is_presented(request.headers(), self.started.elapsed()) {
            return Err(Refusal::new(
                NO_TOKEN,
                format!(
                    "expected a live token in {TOKEN}; PUT {TOKEN_PATH} gives one (IMDSv1 is not emulated)"
                ),
            ));
        }
        if method != Method::GET {
            return Err(Refusal::new(
                Why::WrongMethod("GET"),
                "metadata is asked with GET",
            ));
        }
        let role = credentials.role.rsplit('/').next().unwrap_or_default();
        let of_roles = path.strip_prefix(ROLES_PATH);
        match of_roles {
            Some("" | "/") => Ok(said(role.to_owned())),
            Some(name) if name.strip_prefix('/') == Some(role) => {
                let given = credentials.give().await?;
                Ok(Answer {
                    response: json(StatusCode::OK, &content(&given)),
                    outcome: Some(GIVEN),
                })
            }
            _ if path == REGION_PATH => Ok(said(credentials.roles.region().to_owned())),
            _ => Err(Refusal::new(
                Why::UnknownPath,
                format!("here are {ROLES_PATH}/{role} and {REGION_PATH}"),
            )),
        }
    }

    fn token(&self, method: &Method, headers: &HeaderMap) -> Result<Answer, Refusal> {
        if method != Method::PUT {
            return Err(Refusal::new(
                Why::WrongMethod("PUT"),
                format!("{TOKEN_PATH} is asked with PUT"),
            ));
        }
        let ttl = headers.get(TTL).and_then(|ttl| ttl.to_str().ok());
        let ttl = ttl.and_then(|ttl| ttl.parse::<u64>().ok());
        let Some(ttl) = ttl.filter(|ttl| TTL_SECONDS.contains(ttl)) else {
            let (from, to) = (TTL_SECONDS.start(), TTL_SECONDS.end());
            return Err(Refusal::new(
                BAD_TTL,
                format!("expected {TTL} from {from} to {to}"),
            ));
        };
        let token = self.issue(self.started.elapsed() + Duration::from_secs(ttl));
        let mut answer = said(token);
        // The Rust SDK refuses an answer without it.
        answer
            .response
            .headers_mut()
            .insert(TTL, HeaderValue::from(ttl));
        Ok(answer)
    }

    fn issue(&self, expires: Duration) -> String {
        let mut token = expires.as_secs().to_be_bytes().to_vec();
        let tag = hmac::sign(&self.key, &token);
        token.extend(tag.as_ref());
        URL_SAFE_NO_PAD.encode(token)
    }

    fn is_presented(&self, headers: &HeaderMap, now: Duration) -> bool {
        let mut all = headers.get_all(TOKEN).iter();
        let (Some(token), None) = (all.next(), all.next()) else {
            return false;
        };
        let Ok(token) = URL_SAFE_NO_PAD.decode(token.as_bytes()) else {
            return false;
        };
        let Some((expires, tag)) = token.split_first_chunk::<EXPIRY>() else {
            return false;
        };
        hmac::verify(&self.key, expires, tag).is_ok()
            && now.as_secs() < u64::from_be_bytes(*expires)
    }
}

fn said(what: String) -> Answer {
    Answer {
        response: text(what),
        outcome: None,
    }
}

/// Clients read from a 200 why AWS gives no credentials.
pub(super) fn refusal(refusal: &Refusal) -> Response<Body> {
    match refusal.why {
        REFUSED => answer::refusal_as(refusal, StatusCode::OK, "AssumeRoleUnauthorizedAccess"),
        _ => answer::refusal(refusal),
    }
}

fn content(given: &SessionCredentials) -> Content<'_> {
    Content {
        code: "Success",
        last_updated: seconds(given.obtained),
        r#type: "AWS-HMAC",
        access_key_id: &given.access_key_id,
        secret_access_key: given.secret_access_key.expose(),
        token: given.session_token.expose(),
        expiration: seconds(given.expires),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_token(tokens: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for token in tokens {
            headers.append(TOKEN, token.parse().unwrap());
        }
        headers
    }

    #[test]
    fn s20_a_token_is_good_until_it_expires_and_nothing_else_is() {
        let imds = Imds::new().unwrap();
        let at = Duration::from_secs;
        let token = imds.issue(at(60));
        let is_good = |tokens: &[&str], now| imds.is_presented(&with_token(tokens), at(now));
        assert!(is_good(&[&token], 0) && is_good(&[&token], 59));
        assert!(!is_good(&[&token], 60));
        assert!(!is_good(&[], 0) && !is_good(&[&token, &token], 0));
        let of_another = Imds::new().unwrap().issue(at(60));
        let mut later = URL_SAFE_NO_PAD.decode(&token).unwrap();
        later[7] += 60;
        let later = URL_SAFE_NO_PAD.encode(later);
        for bad in ["", "AAAA", &token[..40], &of_another, &later, "not base64!"] {
            assert!(!is_good(&[bad], 0), "{bad}");
        }
    }

    #[test]
    fn s20_a_token_is_put_with_a_lifetime_of_one_second_to_six_hours() {
        let imds = Imds::new().unwrap();
        let ask = |method: &Method, ttl: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(ttl) = ttl {
                headers.insert(TTL, ttl.parse().unwrap());
            }
            imds.token(method, &headers).map_err(|refusal| refusal.why)
        };
        for ttl in ["1", "60", "21600"] {
            let answer = ask(&Method::PUT, Some(ttl)).ok().unwrap();
            assert_eq!(answer.response.headers()[TTL], ttl);
        }
        for ttl in [
            None,
            Some("0"),
            Some("21601"),
            Some("-1"),
            Some("1.5"),
            Some(""),
            Some("x"),
        ] {
            assert_eq!(ask(&Method::PUT, ttl).err(), Some(BAD_TTL), "{ttl:?}");
        }
        let get = ask(&Method::GET, Some("60")).err();
        assert_eq!(get, Some(Why::WrongMethod("PUT")));
    }
}

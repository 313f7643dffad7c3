//! `sts:GetCallerIdentity` as a proof: the caller signs the one request there is, and keeps to itself whatever
//! would let another choose the request. Signer and verifier build it here, from the same few parts.
//!
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_smithy_types::{DateTime, date_time::Format};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
};
use thiserror::Error;
use warifu::{
    Secret,
    aws::{is_region, sts_host},
};

use super::{
    Roles,
    cache::Held,
    clock::Clock,
    sigv4::{Payload, Profile, Recipe, Regions},
};
use crate::telemetry::timestamp::Timestamp;

/// The whole of the body.
const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// What is signed, in the order SigV4 has it. [`BINDING`] is the last.
const SIGNED_HEADERS: &str = "content-type;host;x-amz-date;x-amz-security-token;x-warifu-binding";
const DATE: &str = "x-amz-date";
const TOKEN: &str = "x-amz-security-token";
const BINDING: &str = "x-warifu-binding";
const SERVICE: &str = "sts";
const JSON: &str = "application/json";

/// A signed request, without all that is the same in every one.
#[derive(Debug, Clone)]
pub struct SignedCall {
    /// The region whose STS endpoint it is for.
    pub region: String,
    /// The access key's id.
    pub access_key_id: String,
    /// `X-Amz-Date`.
    pub date: String,
    /// `X-Amz-Security-Token`.
    pub session_token: Secret<String>,
    /// 64 lower-case hex digits.
    pub signature: String,
}

/// Signs calls with the base credentials of a moment ago.
#[derive(Debug)]
pub struct CallSigner {
    held: Arc<Held>,
    clock: Clock,
    region: String,
}

/// Why no call can be signed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum CallError {
    /// No base credentials.
    #[error("{0}")]
    NoCredentials(String),
    /// Base credentials that no role has.
    #[error(
        "the base credentials are long-term keys (of an IAM user, or the root user): only a role's session is \
         attested; give this agent a role (EKS: Pod Identity or IRSA; ECS: a task role)"
    )]
    NoSession,
    /// No such region.
    #[error("{0:?} is no AWS region's name; set aws.region, or AWS_REGION")]
    Region(String),
    /// Something that can't be signed.
    #[error("signing sts:GetCallerIdentity: {0}")]
    Unsignable(String),
}

impl Roles {
    /// Signs with the base credentials.
    ///
    /// # Errors
    /// When there are none, or they are no role's.
    pub async fn call_signer(&self) -> Result<CallSigner, CallError> {
        let region = self.region().to_owned();
        if !is_region(&region) {
            return Err(CallError::Region(region));
        }
        let held = self.base().get().await;
        let held = held.map_err(|why| CallError::NoCredentials(why.to_string()))?;
        if held.credentials.session_token().is_none() {
            return Err(CallError::NoSession);
        }
        Ok(CallSigner {
            held,
            clock: self.clock().clone(),
            region,
        })
    }
}

impl CallSigner {
    /// Signs the call with `binding` in it.
    ///
    /// # Errors
    /// [`CallError::Unsignable`]: `binding` is no header's value.
    pub fn sign(&self, binding: &str) -> Result<SignedCall, CallError> {
        let host = sts_host(&self.region);
        let mut parts = unsigned(&host, binding)
            .map_err(|why| CallError::Unsignable(why.to_string()))?
            .into_parts()
            .0;
        let regions = Regions::One(self.region.clone());
        let unsignable = |why: super::SignError| CallError::Unsignable(why.to_string());
        let recipe = Recipe::new(Profile::GENERIC, SERVICE, regions)
            .signed_headers(vec![HeaderName::from_static(BINDING)])
            .map_err(|why| CallError::Unsignable(why.to_string()))?;
        recipe.prepare(&mut parts).map_err(unsignable)?;
        let date = Timestamp(self.clock.now()).basic();
        let key = recipe.key(&self.held.credentials, &date);
        let payload = Payload::hash(BODY.as_bytes());
        recipe
            .sign(&key.map_err(unsignable)?, &date, &mut parts, &payload)
            .map_err(unsignable)?;
        let header = |name: &str| {
            let value = parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok());
            value.map(str::to_owned).unwrap_or_default()
        };
        let authorization = header(AUTHORIZATION.as_str());
        let signature = authorization
            .split_once(&format!("SignedHeaders={SIGNED_HEADERS}, Signature="))
            .map(|(_, signature)| signature.to_owned())
            .ok_or_else(|| {
                CallError::Unsignable("other headers were signed than are meant".into())
            })?;
        Ok(SignedCall {
            region: self.region.clone(),
            access_key_id: self.held.credentials.access_key_id().to_owned(),
            date: header(DATE),
            session_token: Secret::new(header(TOKEN)),
            signature,
        })
    }
}

impl SignedCall {
    /// The whole request, for `endpoint` (an absolute URL without a path), with `binding` in it. All but
    /// the five parts is ours: whoever made them had no say in it (S7).
    ///
    /// # Errors
    /// When a part is no part of a header: check them first.
    pub fn request(&self, endpoint: &str, binding: &str) -> Result<Request<Bytes>, http::Error> {
        let Self {
            region,
            access_key_id,
            date,
            session_token,
            signature,
        } = self;
        let day = date.get(..8).unwrap_or_default();
        let mut request = unsigned(&sts_host(region), binding)?;
        *request.uri_mut() = Uri::try_from(format!("{endpoint}/"))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(JSON));
        headers.insert(DATE, HeaderValue::try_from(date)?);
        headers.insert(TOKEN, secret(session_token.expose())?);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={access_key_id}/{day}/{region}/{SERVICE}/aws4_request, \
             SignedHeaders={SIGNED_HEADERS}, Signature={signature}"
        );
        headers.insert(AUTHORIZATION, secret(&authorization)?);
        Ok(request)
    }

    /// When it was signed, if that is a date at all.
    pub fn signed_at(&self) -> Option<SystemTime> {
        parse_date(&self.date)
    }
}

/// `YYYYMMDD'T'HHMMSS'Z'`, as SigV4 has it.
fn parse_date(text: &str) -> Option<SystemTime> {
    let digits = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then_some(digits)
    };
    if text.len() != 16 || text.get(8..9)? != "T" || text.get(15..)? != "Z" {
        return None;
    }
    let rfc3339 = format!(
        "{}-{}-{}T{}:{}:{}Z",
        digits(0..4)?,
        digits(4..6)?,
        digits(6..8)?,
        digits(9..11)?,
        digits(11..13)?,
        digits(13..15)?
    );
    let date = DateTime::from_str(&rfc3339, Format::DateTime).ok()?;
    let since = u64::try_from(date.secs()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since))
}

/// What is signed, but for date and token, which the signer adds.
fn unsigned(host: &str, binding: &str) -> Result<Request<Bytes>, http::Error> {
    Request::builder()
        .method(Method::POST)
        .uri("/")
        .header(HOST, host)
        .header(CONTENT_TYPE, FORM)
        .header(BINDING, binding)
        .body(Bytes::from_static(BODY.as_bytes()))
}

fn secret(text: &str) -> Result<HeaderValue, http::Error> {
    let mut value = HeaderValue::try_from(text)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_date_is_read_as_sigv4_writes_it_and_in_no_other_way() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(parse_date("20261120T142323Z"), Some(at(1_795_184_603)));
        assert_eq!(parse_date("19700101T000000Z"), Some(at(0)));
        for bad in [
            "",
            "20261120T142323",
            "20261120 142323Z",
            "2026-11-20T14:23:23Z",
            "20261320T142323Z",
            "20261120t142323z",
            "+0261120T142323Z",
            "20261120T142323Z\n",
            "２０２６1120T14Z",
            "20260230T000000Z",
        ] {
            assert_eq!(parse_date(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn s07_the_verifiers_request_is_the_same_whatever_the_signer_chose() {
        let call = SignedCall {
            region: "eu-west-1".into(),
            access_key_id: "ASIAEXAMPLE0000000000".into(),
            date: "20261120T142323Z".into(),
            session_token: Secret::new("token".into()),
            signature: "ab".repeat(32),
        };
        let request = call
            .request("http://127.0.0.1:4566", "hash.challenge")
            .unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "http://127.0.0.1:4566/");
        assert_eq!(request.body(), BODY.as_bytes());
        let headers = request.headers();
        assert_eq!(headers["host"], "sts.eu-west-1.amazonaws.com");
        assert_eq!(headers["accept"], "application/json");
        assert_eq!(headers["x-warifu-binding"], "hash.challenge");
        assert_eq!(headers.len(), 7);
        assert_eq!(
            headers["authorization"],
            format!(
                "AWS4-HMAC-SHA256 Credential=ASIAEXAMPLE0000000000/20261120/eu-west-1/sts/aws4_request, \
                 SignedHeaders={SIGNED_HEADERS}, Signature={}",
                "ab".repeat(32)
            )
        );
        assert!(
            !format!("{request:?}").contains("\"token\""),
            "S12: {request:?}"
        );
    }

    proptest! {
        #[test]
        fn s17_no_date_panics(text in "\\PC{0,20}") {
            let _ = parse_date(&text);
        }
    }
}

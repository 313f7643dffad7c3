//! SECRET_HASH for Amazon Cognito: what proves that a sign-in comes through a client that has a secret, added here so
//! that no app holds it.
//!
//! Seven actions pass, for one client each route; every other is refused (S5). The body is read whole, and only the
//! hash in it is changed.
//! <https://docs.aws.amazon.com/cognito/latest/developerguide/signing-up-users-in-your-app.html#cognito-user-pools-computing-secret-hash>

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH},
    request::Parts,
};

use super::Call;
use crate::{
    http::body::Body,
    outbound::refusal::Refusal,
    secrets::{Source, Value},
};
use request::{Action, Request};

pub use request::rewrite;

mod request;

/// Longest body. Cognito's own actions take a few KiB; a token in one is two at most.
const MAX_BODY: usize = 64 * 1024;

/// Names the action.
const TARGET: &str = "x-amz-target";

/// What Cognito's answers say of themselves (AWS JSON protocol), and what it says of a hash that is not right.
const ERROR_TYPE: &str = "x-amzn-errortype";
const ERROR_MESSAGE: &str = "x-amzn-errormessage";
const WRONG_HASH: &[&str] = &["Unable to verify secret hash", "SecretHash does not match"];

/// What an app that signs (with credentials that stand for none) says of a body that is changed here.
pub(in crate::outbound) const REMOVED: &[&str] = &[
    "authorization",
    "content-digest",
    "content-md5",
    "digest",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
];

/// One client of one user pool.
#[derive(Debug)]
pub(in crate::outbound) struct Cognito {
    pub(super) client_id: String,
    pub(super) secret: Source,
    /// The path requests go to.
    pub(super) path: String,
}

/// Adds the hash and sends; once more with another value of the secret where the hash is refused: Cognito looks at it
/// first, so that nothing has been done.
pub(super) async fn send(
    call: &Call<'_>,
    cognito: &Cognito,
    parts: Parts,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let action = cognito.action(&parts)?;
    let body = call.buffers.read(body, MAX_BODY).await?;
    let request = Request::read(action, body.bytes())?;
    if request.client_id() != cognito.client_id {
        return Err(Refusal::CognitoClient {
            ours: cognito.client_id.clone(),
        });
    }
    let value = call.in_time(cognito.secret.value()).await??;
    let (again, text) = (parts.clone(), cognito.hashed(&request, &value));
    let response = send_with(call, parts, text).await?;
    if !is_wrong_hash(&response) {
        return Ok(response);
    }
    if !call.budget.withdraw() {
        return Ok(response);
    }
    let refused = [value];
    let other = call.in_time(cognito.secret.other_than(&refused));
    let Ok(Some(other)) = other.await else {
        return Ok(response);
    };
    drop(response);
    call.counters.retried();
    let response = send_with(call, again, cognito.hashed(&request, &other)).await?;
    match is_wrong_hash(&response) {
        true => cognito.secret.none_works(),
        false => cognito.secret.works(&other),
    }
    Ok(response)
}

impl Cognito {
    fn action(&self, parts: &Parts) -> Result<Action, Refusal> {
        let refused = |why| Err(Refusal::CognitoAction(why));
        if parts.method != Method::POST
            || parts.uri.path() != self.path
            || parts.uri.query().is_some()
        {
            return refused("it is no POST to / without a query");
        }
        if parts.headers.contains_key(CONTENT_ENCODING) {
            return refused("its body is encoded (content-encoding), and can't be read here");
        }
        match one(&parts.headers, TARGET).and_then(Action::of_target) {
            Some(action) => Ok(action),
            None => refused(
                "its x-amz-target is none of InitiateAuth, RespondToAuthChallenge, SignUp, ConfirmSignUp, \
                 ForgotPassword, ConfirmForgotPassword and ResendConfirmationCode",
            ),
        }
    }

    fn hashed(&self, request: &Request<'_>, secret: &Value) -> Bytes {
        let key = Key::new(HMAC_SHA256, secret.expose().as_bytes());
        let message = [request.username(), self.client_id.as_str()].concat();
        let hash = STANDARD.encode(sign(&key, message.as_bytes()).as_ref());
        Bytes::from(request.with_hash(&hash))
    }
}

async fn send_with(
    call: &Call<'_>,
    mut parts: Parts,
    body: Bytes,
) -> Result<Response<Body>, Refusal> {
    let length = HeaderValue::from(body.len());
    parts.headers.insert(CONTENT_LENGTH, length);
    call.send(parts, body.into()).await
}

fn is_wrong_hash(response: &Response<Body>) -> bool {
    let said = one(response.headers(), ERROR_MESSAGE).unwrap_or_default();
    let kind = one(response.headers(), ERROR_TYPE).unwrap_or_default();
    response.status() == StatusCode::BAD_REQUEST
        && kind.starts_with("NotAuthorizedException")
        && WRONG_HASH.iter().any(|it| said.starts_with(it))
}

/// The only line of this name.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    match lines.next() {
        None => line.to_str().ok(),
        Some(_) => None,
    }
}

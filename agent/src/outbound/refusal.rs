//! Why the app's request got an answer of ours instead of the upstream's, and that answer.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header::RETRY_AFTER};
use thiserror::Error;
use warifu::TrustDomain;

use crate::{
    aws::SignError,
    http::{answer::answer, body::Body, path::PathError, pool::SendError, upgrade::NoTunnel},
    secrets::SecretError,
    token::MintError,
};

/// Why a request was not forwarded, or came back without an answer.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error(
        "CONNECT is not served: call the service by its name over plain http, the agent adds TLS"
    )]
    Connect,
    #[error("TRACE is not served: its answer would show what the agent attaches")]
    Trace,
    #[error("{0}")]
    Upgrade(NoTunnel),
    #[error("the upstream answered a WebSocket's handshake wrongly: {0}")]
    Switched(NoTunnel),
    #[error("{0}; send an HTTP request whose Host is one of the agent's routes")]
    Target(&'static str),
    #[error(
        "no route for host {host:?}; routes: {routes}; add one to `outbound.routes` or correct the URL"
    )]
    NoRoute { host: String, routes: String },
    #[error("{0}")]
    Path(#[from] PathError),
    #[error("the request's target is too long or not a URL")]
    Url,
    #[error(
        "the body is larger than the {limit} bytes that this route holds to hash; raise the route's `sigv4.max_body`, \
         or, to S3, send `x-amz-content-sha256: UNSIGNED-PAYLOAD`, and it is streamed"
    )]
    BodyTooLarge { limit: usize },
    #[error("too many bodies are being signed at this moment; try again")]
    Crowded,
    #[error("the request's body broke off: {0}")]
    RequestBody(String),
    #[error("this agent has no identity yet; `warifu status` says what it waits for")]
    NoIdentity,
    #[error("this agent's identity has expired and could not be renewed; `warifu status` says why")]
    IdentityExpired,
    #[error(
        "this agent has no bundle of trust domain {0}, to verify the upstream with; the authority must have it in \
         `federation`, and `warifu authority status` says what became of it"
    )]
    NoBundle(TrustDomain),
    #[error(
        "the revocation list is older than revocation.max_age allows ({0}), and the configuration says to \
         refuse then; the authority must be reachable"
    )]
    RevocationsStale(String),
    #[error("this agent's identity can't be used for TLS: {0}")]
    Identity(String),
    #[error("x-warifu-presign takes a span of one second or more, such as 5m")]
    PresignSpan,
    #[error(
        "x-warifu-presign asks for more than the {0:?} this route allows; ask for less, or raise the route's \
         `sigv4.presign.expires`"
    )]
    PresignTooLong(Duration),
    #[error(
        "this route presigns no URLs; give it `sigv4: {{presign: {{expires: …}}}}` to allow it"
    )]
    PresignNotAllowed,
    #[error(transparent)]
    Token(#[from] MintError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the secret {0} has characters that no header has")]
    SecretUnfit(String),
    #[error("this route is for sign-in with Amazon Cognito only, and this request is not one: {0}")]
    CognitoAction(&'static str),
    #[error("this route is for the app client {ours}, and the request names another in ClientId")]
    CognitoClient { ours: String },
    #[error("the request can't be read as one to Amazon Cognito: {0}")]
    CognitoBody(&'static str),
    #[error(
        "nothing to attach within the {0:?} this route may take; it is still being obtained, \
         `warifu status` says with what success"
    )]
    NotInTime(Duration),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(
        "no AWS credentials within the {0:?} this route may take; they are still being obtained, \
         `warifu status` says with what success"
    )]
    SignTimedOut(Duration),
    #[error(
        "no answer within the {0:?} that a whole request of this route may take (timeouts.whole)"
    )]
    WholeTimedOut(Duration),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// When to try again what may pass by itself, in seconds: about the time a renewal or a connect takes.
const SOON: &str = "1";

impl Refusal {
    /// Its name in the metric and in the answer's `x-warifu-reason`.
    pub(super) fn reason(&self) -> &'static str {
        self.kind().1
    }

    /// The answer to the app.
    pub(super) fn into_response(self) -> Response<Body> {
        let (status, reason) = self.kind();
        let mut response = answer(status, reason, &self.to_string());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(SOON));
        }
        response
    }

    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Connect => (StatusCode::METHOD_NOT_ALLOWED, "connect-refused"),
            Self::Trace => (StatusCode::METHOD_NOT_ALLOWED, "trace-refused"),
            Self::Upgrade(_) => (StatusCode::BAD_REQUEST, "bad-upgrade"),
            Self::Switched(_) => (StatusCode::BAD_GATEWAY, "upstream-switched-wrongly"),
            Self::Target(_) => (StatusCode::BAD_REQUEST, "bad-host"),
            Self::NoRoute { .. } => (StatusCode::FORBIDDEN, "no-route"),
            Self::Path(_) | Self::Url => (StatusCode::BAD_REQUEST, "bad-path"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"),
            Self::Crowded => (StatusCode::SERVICE_UNAVAILABLE, "too-many-bodies"),
            Self::RequestBody(_) => (StatusCode::BAD_REQUEST, "request-body"),
            Self::NoIdentity => (StatusCode::SERVICE_UNAVAILABLE, "no-identity"),
            Self::IdentityExpired => (StatusCode::SERVICE_UNAVAILABLE, "identity-expired"),
            Self::NoBundle(_) => (StatusCode::SERVICE_UNAVAILABLE, "no-bundle"),
            Self::RevocationsStale(_) => (StatusCode::SERVICE_UNAVAILABLE, "revocations-stale"),
            Self::Identity(_) => (StatusCode::SERVICE_UNAVAILABLE, "bad-identity"),
            Self::PresignSpan | Self::PresignTooLong(_) => {
                (StatusCode::BAD_REQUEST, "presign-refused")
            }
            Self::PresignNotAllowed => (StatusCode::FORBIDDEN, "presign-refused"),
            Self::Token(MintError::Refused { .. }) => (StatusCode::FORBIDDEN, "token-refused"),
            Self::Token(MintError::Denied { .. }) => (StatusCode::BAD_GATEWAY, "token-denied"),
            Self::Token(_) | Self::NotInTime(_) => (StatusCode::SERVICE_UNAVAILABLE, "no-token"),
            Self::Secret(_) | Self::SecretUnfit(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "no-secret")
            }
            Self::CognitoAction(_) => (StatusCode::FORBIDDEN, "action-refused"),
            Self::CognitoClient { .. } => (StatusCode::FORBIDDEN, "client-refused"),
            Self::CognitoBody(_) => (StatusCode::BAD_REQUEST, "bad-body"),
            Self::Sign(SignError::Unsignable(_)) => (StatusCode::BAD_REQUEST, "unsignable"),
            Self::Sign(_) | Self::SignTimedOut(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "no-credentials")
            }
            Self::WholeTimedOut(_) => (StatusCode::GATEWAY_TIMEOUT, "timed-out"),
            Self::Send(error) => match error {
                SendError::Connect { .. } => (StatusCode::BAD_GATEWAY, "connect-failed"),
                SendError::ConnectTimedOut { .. } => {
                    (StatusCode::GATEWAY_TIMEOUT, "connect-timed-out")
                }
                SendError::Refused { .. } => (StatusCode::BAD_GATEWAY, "peer-revoked"),
                SendError::Exhausted { .. } => {
                    (StatusCode::SERVICE_UNAVAILABLE, "too-many-connections")
                }
                SendError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "timed-out"),
                SendError::Broken { .. } => (StatusCode::BAD_GATEWAY, "upstream-broke"),
                // Here nothing limits what is sent on.
                SendError::RequestBody(_) | SendError::RequestBodyTooLarge => {
                    (StatusCode::BAD_REQUEST, "request-body")
                }
                SendError::RequestBodyLate { .. } => {
                    (StatusCode::REQUEST_TIMEOUT, "request-body-late")
                }
                SendError::NoHost { .. } => (StatusCode::BAD_REQUEST, "bad-host"),
            },
        }
    }
}

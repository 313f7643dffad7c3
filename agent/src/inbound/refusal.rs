//! The one place that turns a cause into an answer.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use warifu::{TrustDomain, caller::CallerError};

use super::{authenticate::TokenError, ext_authz::Unclear, quota::Exceeded};
use crate::{
    http::{
        answer::whole, path::PathError, pool::SendError, proxy_protocol::TooLong, upgrade::NoTunnel,
    },
    policy::{Decision, Reason, Undecided, Verdict},
    revocation::Kind,
};

/// Why a request is not answered by the app.
#[derive(Debug)]
pub(super) enum Refusal {
    Tunnel,
    BadUpgrade(NoTunnel),
    /// The app's answer to a WebSocket.
    AppSwitched(NoTunnel),
    Trace,
    TransferCoding,
    TwoLengths,
    Host(&'static str),
    Path(PathError),
    /// What Envoy asked.
    Unclear(Unclear),
    /// Envoy's client; or the connection's, whose handshake was on other terms than those of now.
    PeerNotAccepted(&'static str),
    /// Who asks for decisions, and may no longer.
    EnvoyRevoked(Kind),
    TwoAuthorizations,
    /// Of subjects: a token and a secret, or one of them twice.
    TwoProofs,
    Unauthenticated,
    BadToken(TokenError),
    BadSecret,
    NoIdentity,
    /// Of the token's issuer; or the secret that a caller's would be compared with.
    NoKeys(String),
    /// What the token would be verified with.
    NoBundle(TrustDomain),
    /// The connection's: the bundle of its trust domain no longer verifies it, or is gone.
    PeerNotVerified(String),
    /// The connection's: whoever it is, none of its requests is answered any more.
    PeerRevoked(Kind),
    /// The request's: others on the connection may have good ones.
    TokenRevoked(Kind),
    RevocationsStale(String),
    Denied(Reason),
    CallerTooLarge(CallerError),
    /// The caller's, of which no more is wanted.
    BodyTooLarge,
    /// The caller's, of which nothing came for so long.
    BodyLate(Duration),
    /// This caller's quota.
    TooMany(Exceeded),
    /// All callers' places.
    Crowded,
    App(SendError),
    /// What the app would be told of the connection.
    Told(TooLong),
    /// No whole answer within this time.
    AppTooSlow(Duration),
}

/// The refusal that a verdict is, unless it allows.
pub(super) fn of(verdict: &Verdict) -> Option<Refusal> {
    match &verdict.decision {
        Decision::Allow(_) => None,
        Decision::Deny(reason) => Some(Refusal::Denied(reason.clone())),
    }
}

impl Refusal {
    /// The answer. It says what the caller can do about it, and nothing of what is behind the agent.
    pub(super) fn response(&self) -> Response<Bytes> {
        let (status, reason, message) = self.say();
        let mut response = whole(status, reason, &message);
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge() {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Self::TooMany(exceeded) = self {
            headers.insert(RETRY_AFTER, exceeded.seconds().into());
        }
        response
    }

    /// One word for logs and metrics: the same as in the answer.
    pub(super) fn reason(&self) -> &'static str {
        self.say().1
    }

    /// Whether no further request on this connection is worth hearing.
    pub(super) fn ends_the_connection(&self) -> bool {
        matches!(
            self,
            Self::PeerRevoked(_) | Self::PeerNotVerified(_) | Self::PeerNotAccepted(_)
        )
    }

    /// Whether it is about who calls, or what it may: what permissive mode lets pass. A certificate that is revoked, or
    /// no longer vouched for, is not: its owner may come without.
    pub(super) fn is_of_the_caller(&self) -> bool {
        match self {
            Self::TwoAuthorizations
            | Self::TwoProofs
            | Self::Unauthenticated
            | Self::BadToken(_)
            | Self::BadSecret
            | Self::NoIdentity
            | Self::NoKeys(_)
            | Self::NoBundle(_)
            | Self::TokenRevoked(_)
            | Self::RevocationsStale(_)
            | Self::Denied(_)
            | Self::CallerTooLarge(_) => true,
            Self::Tunnel
            | Self::BadUpgrade(_)
            | Self::AppSwitched(_)
            | Self::Trace
            | Self::TransferCoding
            | Self::TwoLengths
            | Self::Host(_)
            | Self::Path(_)
            | Self::PeerNotVerified(_)
            | Self::PeerRevoked(_)
            | Self::Unclear(_)
            | Self::PeerNotAccepted(_)
            | Self::EnvoyRevoked(_)
            | Self::Crowded
            | Self::TooMany(_)
            | Self::BodyTooLarge
            | Self::BodyLate(_)
            | Self::App(_)
            | Self::Told(_)
            | Self::AppTooSlow(_) => false,
        }
    }

    /// What the caller is not told.
    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::BadToken(error) => Some(error.to_string()),
            Self::NoKeys(why) => Some(why.clone()),
            Self::NoBundle(domain) => Some(format!("there is no bundle of {domain}")),
            Self::PeerNotVerified(why) => Some(why.clone()),
            Self::PeerRevoked(kind) => Some(format!("the certificate is revoked by {kind}")),
            Self::TokenRevoked(kind) => Some(format!("the token is revoked by {kind}")),
            Self::RevocationsStale(known) => Some(known.clone()),
            Self::Denied(Reason::Undecided(_, why)) => Some(why.to_string()),
            Self::Denied(reason) => Some(reason.as_str().to_owned()),
            Self::App(error) => Some(error.to_string()),
            Self::Told(error) => Some(error.to_string()),
            Self::AppTooSlow(whole) => Some(format!("no answer within timeouts.whole ({whole:?})")),
            Self::AppSwitched(why) => Some(why.to_string()),
            Self::Host(why) => Some((*why).to_owned()),
            Self::Path(error) => Some(error.to_string()),
            Self::Unclear(unclear) => Some(unclear.to_string()),
            Self::PeerNotAccepted(why) => Some((*why).to_owned()),
            Self::EnvoyRevoked(kind) => Some(format!("Envoy's certificate is revoked by {kind}")),
            Self::CallerTooLarge(error) => Some(error.to_string()),
            Self::TooMany(exceeded) => Some(exceeded.to_string()),
            Self::BodyLate(after) => Some(format!("nothing of it came for {after:?}")),
            _ => None,
        }
    }

    /// How the audit log sorts it.
    pub(super) fn result(&self) -> &'static str {
        match self {
            Self::Denied(_)
            | Self::PeerRevoked(_)
            | Self::PeerNotVerified(_)
            | Self::PeerNotAccepted(_)
            | Self::EnvoyRevoked(_) => "denied",
            Self::Unauthenticated | Self::BadToken(_) | Self::BadSecret | Self::TokenRevoked(_) => {
                "unauthenticated"
            }
            Self::NoIdentity | Self::NoKeys(_) | Self::NoBundle(_) | Self::RevocationsStale(_) => {
                "unavailable"
            }
            Self::App(_) | Self::AppTooSlow(_) | Self::AppSwitched(_) => "failed",
            _ => "refused",
        }
    }

    fn say(&self) -> (StatusCode, &'static str, std::borrow::Cow<'static, str>) {
        match self {
            Self::Tunnel => (
                StatusCode::NOT_IMPLEMENTED,
                "tunnel-not-supported",
                "CONNECT, and Upgrade to anything but a WebSocket, are not supported".into(),
            ),
            Self::BadUpgrade(why) => (StatusCode::BAD_REQUEST, "bad-upgrade", why.0.into()),
            Self::AppSwitched(_) => (
                StatusCode::BAD_GATEWAY,
                "app-switched-wrongly",
                "the service behind this agent answered a WebSocket with something else".into(),
            ),
            Self::Trace => (
                StatusCode::NOT_IMPLEMENTED,
                "trace-not-supported",
                "TRACE is not supported".into(),
            ),
            Self::TransferCoding => (
                StatusCode::NOT_IMPLEMENTED,
                "transfer-coding-not-supported",
                "no transfer coding but `chunked` is supported".into(),
            ),
            Self::TwoLengths => (
                StatusCode::BAD_REQUEST,
                "two-lengths",
                "the request has more than one content-length header".into(),
            ),
            Self::Host(why) => (StatusCode::BAD_REQUEST, "bad-host", (*why).into()),
            Self::Path(error) => (
                StatusCode::BAD_REQUEST,
                "bad-path",
                error.to_string().into(),
            ),
            Self::Unclear(unclear) => unclear.say(),
            Self::PeerNotAccepted(_) => (
                StatusCode::FORBIDDEN,
                "peer-not-accepted",
                "this caller's certificate, or that it has none, is not accepted here".into(),
            ),
            Self::EnvoyRevoked(_) => (
                StatusCode::FORBIDDEN,
                "revoked",
                "the proxy in front of this service may no longer ask for decisions".into(),
            ),
            Self::TwoAuthorizations => (
                StatusCode::BAD_REQUEST,
                "two-authorizations",
                "the request has more than one authorization header".into(),
            ),
            Self::TwoProofs => (
                StatusCode::BAD_REQUEST,
                "two-proofs",
                "the request proves more than one subject: present one token, or one secret".into(),
            ),
            Self::Unauthenticated => (
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "this service wants to know who calls: present a token, or what else it accepts"
                    .into(),
            ),
            Self::BadToken(_) => (
                StatusCode::UNAUTHORIZED,
                "invalid-token",
                "the request holds no valid token for this service".into(),
            ),
            Self::BadSecret => (
                StatusCode::UNAUTHORIZED,
                "invalid-secret",
                "the secret of the request is not one that this service knows".into(),
            ),
            Self::NoKeys(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no-keys",
                "what this caller's proof is verified with can't be had now; try again".into(),
            ),
            Self::NoIdentity => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no-identity",
                "this agent has no keys to verify tokens with yet; try again".into(),
            ),
            Self::NoBundle(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no-bundle",
                "this agent has no keys of that trust domain to verify tokens with; try again"
                    .into(),
            ),
            Self::PeerNotVerified(_) => (
                StatusCode::FORBIDDEN,
                "no-longer-verified",
                "this caller's trust domain no longer vouches for its certificate".into(),
            ),
            Self::PeerRevoked(_) => (
                StatusCode::FORBIDDEN,
                "revoked",
                "this caller's certificate is revoked".into(),
            ),
            Self::TokenRevoked(_) => (
                StatusCode::UNAUTHORIZED,
                "revoked",
                "this token is revoked".into(),
            ),
            Self::RevocationsStale(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "revocations-stale",
                "this agent does not know for certain who is revoked; try again".into(),
            ),
            Self::Denied(Reason::Undecided(_, Undecided::Busy(_))) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "policy-busy",
                "this agent decides on too many requests at once; try again".into(),
            ),
            // Asking again helps nobody: it denies until the policy is mended.
            Self::Denied(Reason::Undecided(..)) => (
                StatusCode::FORBIDDEN,
                "policy-failed",
                "this agent could not decide whether this caller may make this request".into(),
            ),
            // Whether a rule denies it or none allows it is for those who write rules.
            Self::Denied(_) => (
                StatusCode::FORBIDDEN,
                "denied",
                "no rule allows this caller this request".into(),
            ),
            Self::TooMany(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-requests",
                "this caller asks more than its share; try again later".into(),
            ),
            Self::Crowded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "crowded",
                "this service has too many requests under way; try again".into(),
            ),
            Self::CallerTooLarge(_) => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "caller-too-large",
                "the claims of the token are too large to be passed on".into(),
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "the request's body is larger than this service takes".into(),
            ),
            Self::BodyLate(_) => (
                StatusCode::REQUEST_TIMEOUT,
                "body-late",
                "the request's body did not come in time".into(),
            ),
            Self::App(error) => of_the_app(error),
            Self::Told(_) => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "caller-too-large",
                "what the connection says of itself is too long to be passed on".into(),
            ),
            Self::AppTooSlow(_) => app_timed_out(),
        }
    }

    /// RFC 6750 §3: no error code where there was no token.
    fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Unauthenticated | Self::BadSecret => Some("Bearer"),
            Self::BadToken(_) | Self::TokenRevoked(_) => Some("Bearer error=\"invalid_token\""),
            Self::TwoAuthorizations | Self::TwoProofs => Some("Bearer error=\"invalid_request\""),
            _ => None,
        }
    }
}

fn of_the_app(error: &SendError) -> (StatusCode, &'static str, std::borrow::Cow<'static, str>) {
    match error {
        SendError::Connect { .. } | SendError::Refused { .. } => (
            StatusCode::BAD_GATEWAY,
            "app-unreachable",
            "the service behind this agent does not accept connections".into(),
        ),
        SendError::TimedOut { .. } | SendError::ConnectTimedOut { .. } => app_timed_out(),
        SendError::Exhausted { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "app-overloaded",
            "the service behind this agent has too many requests; try again".into(),
        ),
        SendError::RequestBody(_) => (
            StatusCode::BAD_REQUEST,
            "body-broke-off",
            "the request's body broke off".into(),
        ),
        // Broken, and whatever else may come.
        _ => (
            StatusCode::BAD_GATEWAY,
            "app-broke-off",
            "the service behind this agent closed the connection before it answered".into(),
        ),
    }
}

fn app_timed_out() -> (StatusCode, &'static str, std::borrow::Cow<'static, str>) {
    (
        StatusCode::GATEWAY_TIMEOUT,
        "app-timed-out",
        "the service behind this agent did not answer in time".into(),
    )
}

impl From<PathError> for Refusal {
    fn from(error: PathError) -> Self {
        Self::Path(error)
    }
}

impl From<CallerError> for Refusal {
    fn from(error: CallerError) -> Self {
        Self::CallerTooLarge(error)
    }
}

impl From<SendError> for Refusal {
    fn from(error: SendError) -> Self {
        match error {
            SendError::RequestBodyTooLarge => Self::BodyTooLarge,
            SendError::RequestBodyLate { after } => Self::BodyLate(after),
            error => Self::App(error),
        }
    }
}

impl From<TooLong> for Refusal {
    fn from(error: TooLong) -> Self {
        Self::Told(error)
    }
}

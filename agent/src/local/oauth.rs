//! An OAuth 2.0 token endpoint for programs that know OAuth alone: access tokens of the authority by
//! `client_credentials` (RFC 6749 §4.4), with metadata (RFC 8414) and keys (RFC 7517) beside it.
//!
//! ```text
//! connection ──▶ guard (Host, Origin, forwarded) ──▶ uid, gid ──▶ path, method ──▶ form ──▶ client secret
//!                                                                                            │
//! token, kept fresh ahead of its expiry ◀── audience and scopes that the configuration names ◀┘
//! ```
//!
//! The tokens' issuer is the authority, the endpoint's is the endpoint: see docs/adr/0014.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};

use super::{
    Setup,
    endpoint::{Answer, Endpoint, GIVEN, Protocol, Refusal, Why, json},
};
use crate::{
    config::local::Oauth,
    http::{
        body::Body,
        server::{Limits, Listener},
    },
    identity,
    token::{MintError, Requested, Source, Token, Wanted},
};
use client::{Client, Verdict};
use form::TokenRequest;

pub use client::SecretError;

mod answer;
mod client;
mod form;

/// `POST`: a token.
const TOKEN: &str = "/oauth2/token";
/// `GET`: the keys that verify tokens.
const KEYS: &str = "/oauth2/jwks";
/// `GET`: what there is (RFC 8414 §3).
const METADATA: &str = "/.well-known/oauth-authorization-server";

/// The only grant type there is.
const CLIENT_CREDENTIALS: &str = "client_credentials";

/// Largest form: two names of 512 bytes, a secret, dozens of scopes.
const MAX_FORM: usize = 16 * 1024;
/// Time for it to arrive. It is on this machine.
const FORM_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections at once: every worker of a large app may start at the same moment. With a form in each, 64 MiB at worst.
const MAX_CONNECTIONS: usize = 4096;
/// Time a connection may be idle. Clients ask once in minutes.
const IDLE: Duration = Duration::from_secs(30);
/// Age at which a connection is closed: nobody keeps a place by asking for ever.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// What is given.
struct AccessTokens {
    config: Oauth,
    client: Option<Client>,
    scopes: BTreeSet<String>,
    identity: identity::Current,
    access_keys: identity::AccessKeys,
    /// What a client gets that asks for nothing in particular: at hand whether or not anybody asks.
    usual: Source,
    others: Requested,
}

/// Serves on `listener`, in a task of the current runtime.
///
/// # Errors
/// When the client secret is of no use.
pub(super) fn start(
    config: &Oauth,
    listener: Listener,
    setup: &Setup<'_>,
) -> Result<JoinHandle<usize>, SecretError> {
    let client = config.client.as_ref().map(Client::new).transpose()?;
    let scopes: BTreeSet<String> = config.scopes.iter().cloned().collect();
    let usual = config.audiences.first().map_or("", String::as_str);
    let usual = Wanted::access_token(usual, scopes.clone());
    let tokens = AccessTokens {
        config: config.clone(),
        client,
        scopes,
        identity: setup.identity.clone(),
        access_keys: setup.renewal.access_keys().clone(),
        usual: setup.tokens.source(usual),
        others: setup.tokens.requested(),
    };
    let listen = listener.address().to_string();
    tracing::info!(listen, "OAuth 2.0 access tokens are given here");
    let limits = Limits {
        max_connections: MAX_CONNECTIONS,
        idle: IDLE,
        max_age: Some(MAX_AGE),
        ..Limits::default()
    };
    let (setting, counts) = ("local.oauth".to_owned(), setup.metrics.oauth.counts(vec![]));
    let endpoint = Endpoint::new(tokens, setting, &listener, &config.clients, counts);
    let metrics = setup.server_metrics.listener("oauth");
    Ok(tokio::spawn(endpoint.serve(
        listener,
        limits,
        metrics,
        setup.draining.clone(),
    )))
}

impl Protocol for AccessTokens {
    const REFUSES: &'static [Why] = answer::REFUSES;

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let (path, method) = (request.uri().path(), request.method().as_str());
        let Some(allow) = allowed(path) else {
            return Err(Refusal::new(
                Why::UnknownPath,
                format!("expected {TOKEN}, {KEYS} or {METADATA}, spelled so"),
            ));
        };
        if !allow.split(", ").any(|allowed| allowed == method) {
            return Err(Refusal::new(
                Why::WrongMethod(allow),
                format!("{path} is asked with {allow}"),
            ));
        }
        match path {
            METADATA => Ok(self.metadata(&request)),
            KEYS => self.keys(),
            _ => self.token(request).await,
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        answer::refusal(refusal)
    }
}

impl AccessTokens {
    async fn token(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let asked = read(request).await?;
        self.authenticate(&asked)?;
        let wanted = self.wanted(asked)?;
        let token = match &wanted == self.usual.wanted() {
            true => self.usual.token().await,
            false => self.other(wanted).await,
        };
        let token = token.map_err(|why| answer::not_minted(&why))?;
        Ok(Answer {
            response: answer::token(&token, SystemTime::now()),
            outcome: Some(GIVEN),
        })
    }

    /// On a loopback address everybody says who they are; on a unix socket the kernel has said so.
    fn authenticate(&self, asked: &TokenRequest) -> Result<(), Refusal> {
        let Some(client) = &self.client else {
            return Ok(());
        };
        let Some(credentials) = &asked.credentials else {
            return Err(Refusal::new(
                answer::INVALID_CLIENT,
                "expected client_id and client_secret, by HTTP Basic or in the form",
            ));
        };
        match client.verify(credentials, Instant::now()) {
            Verdict::Known => Ok(()),
            Verdict::Unknown => Err(Refusal::new(
                answer::INVALID_CLIENT,
                "client_id or client_secret is wrong: they are local.oauth.client of the agent's configuration",
            )),
            Verdict::TooMany => Err(Refusal::new(
                answer::TOO_MANY_FAILURES,
                "client_id or client_secret is wrong, and was so too often in the last seconds",
            )),
        }
    }

    /// Only what the configuration names is asked of the authority, whose rules have the last word (S5).
    fn wanted(&self, asked: TokenRequest) -> Result<Wanted, Refusal> {
        match asked.grant_type.as_deref() {
            Some(CLIENT_CREDENTIALS) => {}
            None => {
                return Err(Refusal::new(
                    answer::INVALID_REQUEST,
                    format!("grant_type is missing: expected {CLIENT_CREDENTIALS}"),
                ));
            }
            Some(_) => {
                return Err(Refusal::new(
                    answer::UNSUPPORTED_GRANT_TYPE,
                    format!("the only grant_type here is {CLIENT_CREDENTIALS}"),
                ));
            }
        }
        let audiences = &self.config.audiences;
        let audience = match &asked.audience {
            None => self.usual.wanted().audience().into_owned(),
            Some(audience) if audiences.contains(audience) => audience.clone(),
            Some(_) => {
                let known = audiences.join(", ");
                return Err(Refusal::new(
                    answer::INVALID_TARGET,
                    format!("local.oauth.audiences has no such audience; it has {known}"),
                ));
            }
        };
        if asked.scopes.is_empty() {
            return Ok(Wanted::access_token(&audience, self.scopes.clone()));
        }
        if !self.scopes.is_empty() && !asked.scopes.is_subset(&self.scopes) {
            let known = self.config.scopes.join(" ");
            return Err(Refusal::new(
                answer::INVALID_SCOPE,
                format!("local.oauth.scopes has no such scope; it has {known}"),
            ));
        }
        Ok(Wanted::access_token(&audience, asked.scopes))
    }

    async fn other(&self, wanted: Wanted) -> Result<Token, MintError> {
        let subject = self
            .identity
            .borrow()
            .as_ref()
            .map(|it| it.svid.id().clone());
        let Some(subject) = subject else {
            return Err(MintError::Unavailable {
                audience: wanted.audience().into_owned(),
                why: "this agent has no identity yet; `warifu status` says what it waits for"
                    .to_owned(),
            });
        };
        self.others.token(&subject, wanted).await
    }

    /// `issuer` is what the client asked for this document (RFC 8414 §3.3).
    fn metadata(&self, request: &Request<Incoming>) -> Answer {
        let issuer = self.issuer(request);
        let methods = match self.client {
            Some(_) => json!(["client_secret_basic", "client_secret_post"]),
            None => json!(["none"]),
        };
        let mut metadata = json!({
            "issuer": issuer,
            "token_endpoint": format!("{issuer}{TOKEN}"),
            "token_endpoint_auth_methods_supported": methods,
            "jwks_uri": format!("{issuer}{KEYS}"),
            "grant_types_supported": [CLIENT_CREDENTIALS],
            // RFC 8414 §2 wants one; there is no authorization endpoint.
            "response_types_supported": ["none"],
        });
        if let Some(members) = metadata.as_object_mut() {
            if !self.scopes.is_empty() {
                let scopes = self.scopes.iter().cloned().collect::<Vec<_>>();
                members.insert("scopes_supported".to_owned(), scopes.into());
            }
            if let Some(keys) = self.access_keys.load() {
                let issuer = Value::from(keys.issuer.clone());
                members.insert("warifu_access_token_issuer".to_owned(), issuer);
            }
        }
        Answer {
            response: json(StatusCode::OK, &metadata),
            outcome: Some("metadata"),
        }
    }

    /// Where the client found us. The guard has seen that it means this machine.
    fn issuer(&self, request: &Request<Incoming>) -> String {
        let host = request.headers().get(HOST);
        let host = host.and_then(|host| host.to_str().ok());
        let host = host.or_else(|| request.uri().authority().map(|it| it.as_str()));
        format!("http://{}", host.unwrap_or("localhost"))
    }

    fn keys(&self) -> Result<Answer, Refusal> {
        let Some(published) = self.access_keys.load() else {
            return Err(Refusal::new(
                Why::Unavailable,
                "the authority has not told its keys of access tokens yet, or mints none (`tokens.access_token` of \
                 its configuration)",
            ));
        };
        let keys: Vec<Value> = published
            .keys
            .iter()
            .map(|key| key.to_json("sig"))
            .collect();
        Ok(Answer {
            response: json(StatusCode::OK, &json!({ "keys": keys })),
            outcome: Some("keys"),
        })
    }
}

/// What a path is asked with; `None` where nothing is. Only these spellings: a path in another form is another path.
fn allowed(path: &str) -> Option<&'static str> {
    match path {
        TOKEN => Some("POST"),
        KEYS | METADATA => Some("GET, HEAD"),
        _ => None,
    }
}

/// Whether this is a request for a token: its `authorization` headers and its form. For the fuzzer: what was read
/// shows no secret, and means one thing.
pub fn reads_token_request(authorization: &[&[u8]], form: &[u8]) -> Option<impl std::fmt::Debug> {
    TokenRequest::read(authorization.iter().copied(), form).ok()
}

/// The form of a request for a token.
async fn read(request: Request<Incoming>) -> Result<TokenRequest, Refusal> {
    let invalid = |why: &str| Refusal::new(answer::INVALID_REQUEST, why);
    if request.uri().query().is_some() {
        return Err(invalid(
            "parameters belong in the form, not in the URL, which ends up in logs",
        ));
    }
    let mut types = request.headers().get_all(CONTENT_TYPE).iter();
    let is_form = types.next().is_some_and(|value| {
        let value = value.to_str().unwrap_or_default();
        let media = value.split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    if !is_form || types.next().is_some() || request.headers().contains_key(CONTENT_ENCODING) {
        return Err(invalid(
            "expected Content-Type: application/x-www-form-urlencoded, and no Content-Encoding",
        ));
    }
    let (head, body) = request.into_parts();
    let body = timeout(FORM_TIMEOUT, Limited::new(body, MAX_FORM).collect()).await;
    let body: Bytes = match body {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(why)) if why.is::<LengthLimitError>() => {
            let why = format!("the form is over {MAX_FORM} bytes");
            return Err(Refusal::new(answer::TOO_LARGE, why));
        }
        Ok(Err(_)) => return Err(invalid("the form broke off")),
        Err(_) => {
            let why = format!("the form did not arrive within {FORM_TIMEOUT:?}");
            return Err(Refusal::new(answer::TIMED_OUT, why));
        }
    };
    let authorization = head.headers.get_all(AUTHORIZATION).iter();
    TokenRequest::read(authorization.map(|value| value.as_bytes()), &body)
}

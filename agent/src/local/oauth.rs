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
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{
    Request, Response,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};

use super::{
    Setup,
    asker::{Asker, Door},
    guard::{Foreign, guard},
};
use crate::{
    config::{local::Oauth, value::Listen},
    http::{
        body::Body,
        server::{self, Connection, Limits, Listener, Opened, Refused},
    },
    identity,
    token::{MintError, Requested, Source, Token, Wanted},
};
use answer::{Refusal, Why};
use client::{Bucket, Client, Verdict};
use form::TokenRequest;

pub use client::SecretError;
pub(super) use metrics::Metrics;

mod answer;
mod client;
mod form;
mod metrics;

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

/// The endpoint.
struct Endpoint {
    config: Oauth,
    listen: Listen,
    door: Door,
    client: Option<Client>,
    scopes: BTreeSet<String>,
    identity: identity::Current,
    access_keys: identity::AccessKeys,
    /// What a client gets that asks for nothing in particular: at hand whether or not anybody asks.
    usual: Source,
    others: Requested,
    metrics: Metrics,
    /// Lines of the log that refusals may write.
    lines: Mutex<Bucket>,
}

/// What the requests of one connection share.
struct Session {
    asker: Asker,
    endpoint: Arc<Endpoint>,
}

struct Service(Arc<Endpoint>);

/// Something other than a refusal.
struct Answer {
    response: Response<Body>,
    /// For the metric.
    what: &'static str,
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
    let endpoint = Endpoint {
        config: config.clone(),
        listen: listener.address().clone(),
        door: Door::new(&config.clients),
        client,
        scopes,
        identity: setup.identity.clone(),
        access_keys: setup.renewal.access_keys().clone(),
        usual: setup.tokens.source(usual),
        others: setup.tokens.requested(),
        metrics: setup.metrics.oauth.clone(),
        lines: Mutex::new(Bucket::new(Instant::now())),
    };
    let listen = endpoint.listen.to_string();
    tracing::info!(listen, "OAuth 2.0 access tokens are given here");
    let limits = Limits {
        max_connections: MAX_CONNECTIONS,
        idle: IDLE,
        max_age: Some(MAX_AGE),
        ..Limits::default()
    };
    Ok(tokio::spawn(server::serve(
        listener,
        Arc::new(Service(Arc::new(endpoint))),
        limits,
        setup.server_metrics.listener("oauth"),
        setup.draining.clone(),
    )))
}

impl server::Service for Service {
    type Session = Session;

    fn open(&self, connection: Connection) -> Result<Opened<Session>, Refused> {
        let session = Session {
            asker: self.0.door.asker(connection.remote),
            endpoint: Arc::clone(&self.0),
        };
        Ok(Opened {
            session: Arc::new(session),
            expires: None,
        })
    }

    async fn call(session: Arc<Session>, request: Request<Incoming>) -> Response<Body> {
        session.endpoint.answer(&session.asker, request).await
    }
}

impl Endpoint {
    async fn answer(&self, asker: &Asker, request: Request<Incoming>) -> Response<Body> {
        let allow = allowed(request.uri().path());
        match self.try_answer(asker, request, allow).await {
            Ok(Answer { response, what }) => {
                self.metrics.count(what);
                response
            }
            Err(refusal) => {
                self.metrics.count(refusal.why.word());
                self.log(asker, &refusal);
                refusal.response(allow.unwrap_or_default())
            }
        }
    }

    async fn try_answer(
        &self,
        asker: &Asker,
        request: Request<Incoming>,
        allow: Option<&'static str>,
    ) -> Result<Answer, Refusal> {
        guard(&self.listen, &request).map_err(|foreign| Refusal::of_foreign(&foreign))?;
        if !asker.may_ask() {
            return Err(Refusal::new(
                Why::NotAllowed,
                "local.oauth.clients names neither this process's user nor its group",
            ));
        }
        let Some(allow) = allow else {
            return Err(Refusal::new(
                Why::UnknownPath,
                format!("expected {TOKEN}, {KEYS} or {METADATA}, spelled so"),
            ));
        };
        let method = request.method().as_str();
        if !allow.split(", ").any(|allowed| allowed == method) {
            let path = request.uri().path();
            return Err(Refusal::new(
                Why::WrongMethod,
                format!("{path} is asked with {allow}"),
            ));
        }
        match request.uri().path() {
            METADATA => Ok(self.metadata(&request)),
            KEYS => self.keys(),
            _ => self.token(request).await,
        }
    }

    async fn token(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let asked = read(request).await?;
        self.authenticate(&asked)?;
        let wanted = self.wanted(asked)?;
        let token = match &wanted == self.usual.wanted() {
            true => self.usual.token().await,
            false => self.other(wanted).await,
        };
        let token = token.map_err(|why| Refusal::of_mint(&why))?;
        Ok(Answer {
            response: answer::token(&token, SystemTime::now()),
            what: "given",
        })
    }

    /// On a loopback address everybody says who they are; on a unix socket the kernel has said so.
    fn authenticate(&self, asked: &TokenRequest) -> Result<(), Refusal> {
        let Some(client) = &self.client else {
            return Ok(());
        };
        let Some(credentials) = &asked.credentials else {
            return Err(Refusal::new(
                Why::InvalidClient,
                "expected client_id and client_secret, by HTTP Basic or in the form",
            ));
        };
        match client.verify(credentials, Instant::now()) {
            Verdict::Known => Ok(()),
            Verdict::Unknown => Err(Refusal::new(
                Why::InvalidClient,
                "client_id or client_secret is wrong: they are local.oauth.client of the agent's configuration",
            )),
            Verdict::TooMany => Err(Refusal::new(
                Why::TooManyFailures,
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
                    Why::InvalidRequest,
                    format!("grant_type is missing: expected {CLIENT_CREDENTIALS}"),
                ));
            }
            Some(_) => {
                return Err(Refusal::new(
                    Why::UnsupportedGrantType,
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
                    Why::InvalidTarget,
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
                Why::InvalidScope,
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
            response: answer::json(&metadata),
            what: "metadata",
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
            response: answer::json(&json!({ "keys": keys })),
            what: "keys",
        })
    }

    /// One line for each, unless there are too many.
    fn log(&self, asker: &Asker, refusal: &Refusal) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.take(Instant::now()) {
            let (remote, reason) = (asker.remote(), refusal.why.word());
            tracing::warn!(%remote, reason, why = refusal.description, "no access token was given");
        }
    }
}

impl Refusal {
    fn of_foreign(foreign: &Foreign) -> Self {
        let why = match foreign {
            Foreign::Host => Why::ForeignHost,
            Foreign::Origin => Why::Origin,
            Foreign::Forwarded(_) => Why::Forwarded,
        };
        Self::new(why, foreign.to_string())
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
    let invalid = |why: &str| Refusal::new(Why::InvalidRequest, why);
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
            return Err(Refusal::new(Why::TooLarge, why));
        }
        Ok(Err(_)) => return Err(invalid("the form broke off")),
        Err(_) => {
            let why = format!("the form did not arrive within {FORM_TIMEOUT:?}");
            return Err(Refusal::new(Why::TimedOut, why));
        }
    };
    let authorization = head.headers.get_all(AUTHORIZATION).iter();
    TokenRequest::read(authorization.map(|value| value.as_bytes()), &body)
}

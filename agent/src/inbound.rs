//! Calls to the app: accept, authenticate, authorise, forward.
//!
//! ```text
//! caller ══TLS══▶ handshake ─▶ peer ┐                                  ┌─▶ app
//!        ──HTTP─▶ path ─▶ token ────┴▶ caller ─▶ rules ─▶ strip, insert ┘
//! ```
//!
//! `answer` is a request's way from top to bottom. What is known of a connection (its peer, and the
//! headers that say so) is made once, in [`Service::open`]; a verified token is remembered until it
//! expires. The rest of a request costs no more than a proxy's.
//!
//! Where a listener accepts no tokens, `authorization` is the app's own business and passes through.
//! Where it accepts them, the header is ours: it must hold one good bearer token, and goes no further.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, HOST},
    request::Parts,
    uri::PathAndQuery,
};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::task::JoinHandle;
use warifu::{caller::context, jwt::SigningKey};

use crate::{
    config::{
        inbound as config,
        outbound::Protocol,
        value::{Forward, Listen},
    },
    http::{
        body::{self, Body},
        headers::{self, Filter, XFCC},
        patience::Patience,
        pool::{Address, Destination, Keep, Pool, Switches, Upstream},
        server::{
            self, Connection, Draining, Failed, Limits, Listener, Opened, Refused, Remote,
            Security, Service,
        },
        upgrade::Wanted,
    },
    identity,
    policy::{self, Policy, Verdict},
    telemetry::audit::Audit,
};
use authenticate::{Authenticated, Authenticator};
use certificate::{Certificate, Foreign};
use grant::Grant;
use record::Record;
use refusal::Refusal;
use tunnel::Opening;

mod authenticate;
mod cache;
mod certificate;
mod grant;
mod key_file;
mod record;
mod refusal;
mod settle;
mod source;
#[cfg(test)]
mod tests;
mod tunnel;

pub use record::Metrics;

const CALLER: HeaderName = HeaderName::from_static(context::CALLER_HEADER);
const CONTEXT: HeaderName = HeaderName::from_static(context::CONTEXT_HEADER);

/// What a listener needs of the rest of the agent.
#[derive(Debug, Clone)]
pub struct Environment {
    /// What it presents, and verifies callers with.
    pub identity: identity::Current,
    /// Whose credentials are revoked.
    pub revocations: identity::Revocations,
    /// Connections to the app.
    pub pool: Pool,
    /// Where decisions are written.
    pub audit: Audit,
    /// What requests count in.
    pub metrics: Metrics,
    /// What connections count in.
    pub server_metrics: server::Metrics,
    /// When to end.
    pub draining: Draining,
}

/// Why a listener can't start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The app could not verify the signed context.
    #[error(
        "writing the context key to {path}: {source}; its directory must exist and be writable for \
         the agent alone"
    )]
    KeyFile {
        /// `context.key_file`.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A listener that serves.
#[derive(Debug)]
pub struct Handle {
    inbound: Arc<Inbound>,
    address: Listen,
    serving: JoinHandle<usize>,
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> &Listen {
        &self.address
    }

    /// From now on this decides, on live connections as well.
    pub fn set_policy(&self, policy: Policy) {
        self.inbound.policy.store(Arc::new(policy));
    }

    /// Waits until a drain has ended; returns how many connections it cut.
    pub async fn drained(self) -> usize {
        self.serving.await.unwrap_or_default()
    }
}

/// Serves `listener`, bound to `config.listen`, in a task of its own.
///
/// # Errors
/// See [`StartError`].
pub fn start(
    config: &config::Inbound,
    listener: Listener,
    environment: &Environment,
) -> Result<Handle, StartError> {
    let inbound = Inbound::new(config, environment)?;
    Ok(serve(inbound, listener, config, environment))
}

fn serve(
    inbound: Inbound,
    listener: Listener,
    config: &config::Inbound,
    environment: &Environment,
) -> Handle {
    let inbound = Arc::new(inbound);
    let front = Arc::new(Front(Arc::clone(&inbound)));
    let limits = Limits {
        max_connections: config.max_connections,
        max_age: Some(config.max_connection_age.0),
        ..Limits::default()
    };
    let address = listener.address().clone();
    let metrics = environment.server_metrics.listener("inbound");
    let draining = environment.draining.clone();
    let serving = tokio::spawn(server::serve(listener, front, limits, metrics, draining));
    Handle {
        inbound,
        address,
        serving,
    }
}

/// What all connections of a listener share.
#[derive(Debug)]
struct Inbound {
    certificate: Certificate,
    authenticator: Authenticator,
    revocations: identity::Revocations,
    policy: ArcSwap<Policy>,
    /// Proxies in front whose word on the source address is taken.
    trusted_hops: usize,
    /// Whether a rule looks at headers, or a proxy's word on the source address is taken from one.
    reads_headers: bool,
    app: Upstream,
    patience: Patience,
    /// Signs who called, for apps reached over TCP.
    context_key: Option<SigningKey>,
    to_app: Arc<Filter>,
    from_app: Arc<Filter>,
    audit: Audit,
    metrics: Metrics,
}

/// What all requests of a connection share.
#[derive(Debug)]
struct Session {
    inbound: Arc<Inbound>,
    /// The other end, as the audit log shows it.
    remote: String,
    /// Its address, where it has one.
    source: Option<IpAddr>,
    /// The same for `x-forwarded-for`.
    forwarded_for: Option<HeaderValue>,
    /// `x-forwarded-client-cert`, where the peer has a certificate.
    xfcc: Option<HeaderValue>,
    /// Who the connection proved.
    peer: Option<Arc<Authenticated>>,
    /// The same, where it is of another trust domain.
    foreign: Option<Foreign>,
}

impl Inbound {
    fn new(config: &config::Inbound, environment: &Environment) -> Result<Self, StartError> {
        let Environment {
            identity,
            revocations,
            pool,
            audit,
            metrics,
            ..
        } = environment.clone();
        let address = match &config.forward {
            Forward::Tcp(address) => Address::Socket(*address),
            Forward::Unix(path) => Address::Unix(path.clone()),
        };
        let context_key =
            match &config.context {
                Some(context) => Some(key_file::write(&context.key_file).map_err(|source| {
                    StartError::KeyFile {
                        path: context.key_file.clone(),
                        source,
                    }
                })?),
                None => None,
            };
        let authenticator = Authenticator::new(config, identity.clone(), metrics.tokens.clone());
        let mut rules = config.allow.iter().chain(&config.deny);
        Ok(Self {
            certificate: Certificate::new(&config.accept, identity),
            authenticator,
            revocations,
            policy: ArcSwap::from_pointee(Policy::new(&config.allow, &config.deny)),
            trusted_hops: config.trusted_hops,
            reads_headers: config.trusted_hops > 0 || rules.any(|rule| !rule.headers.is_empty()),
            app: pool.upstream(
                Destination {
                    http2: config.app_protocol == Protocol::Http2,
                    ..Destination::new(address, None)
                },
                Keep::APP.connecting_within(config.timeouts.connect.0),
            ),
            patience: Patience::new(&config.timeouts),
            context_key,
            to_app: Arc::new(Filter::to_app(config.forward_claims.values())),
            from_app: Arc::new(Filter::from_app()),
            audit,
            metrics,
        })
    }
}

/// What [`server::serve`] is given.
struct Front(Arc<Inbound>);

impl Service for Front {
    type Session = Session;

    fn security(&self) -> Security {
        self.0.certificate.current(SystemTime::now())
    }

    fn open(&self, connection: Connection) -> Result<Opened<Session>, Refused> {
        let mut peer = self.0.certificate.peer(&connection.peer_chain)?;
        let foreign = peer.as_mut().and_then(|peer| peer.foreign.take());
        let expires = peer.as_ref().map(|peer| peer.expires);
        let (xfcc, authenticated) = match peer {
            Some(peer) => (
                Some(peer.xfcc.clone()),
                Some(Authenticated::by_certificate(peer)?),
            ),
            None => (None, None),
        };
        let source = match &connection.remote {
            Remote::Tcp(address) => Some(address.ip()),
            Remote::Unix(_) => None,
        };
        let forwarded_for =
            source.and_then(|address| HeaderValue::try_from(address.to_string()).ok());
        let session = Arc::new(Session {
            inbound: Arc::clone(&self.0),
            remote: connection.remote.to_string(),
            source,
            forwarded_for,
            xfcc,
            peer: authenticated.map(Arc::new),
            foreign,
        });
        Ok(Opened { session, expires })
    }

    fn failed(&self, remote: &Remote, why: &Failed) {
        record::failed_connection(&self.0.audit, remote, why);
    }

    async fn call(session: Arc<Session>, request: Request<Incoming>) -> Response<Body> {
        let mut record = Record::start(&session, &request);
        match answer(&session, request, &mut record).await {
            Ok(response) => {
                record.answered(response.status());
                response
            }
            Err(refusal) => {
                let mut response = refusal.response();
                record.refused(&refusal, response.status());
                if refusal.ends_the_connection() {
                    server::close_after(&mut response);
                }
                response
            }
        }
    }
}

/// A request's way to the app and back.
async fn answer(
    session: &Arc<Session>,
    request: Request<Incoming>,
    record: &mut Record<'_>,
) -> Result<Response<Body>, Refusal> {
    let inbound = &*session.inbound;
    let (mut parts, body) = request.into_parts();

    // What can be read in one way only. From here on there is one host and one path.
    let websocket = settle::refuse_what_is_not_served(&parts)?;
    settle::host(&mut parts)?;
    settle::path(&mut parts)?;
    record.settled(&parts.uri);

    // Who calls, and whether it may. The rules see the path that will be forwarded.
    let caller = authenticate(session, &parts.headers, |caller| record.caller(caller))?;
    let verdict = decide(session, &caller, &parts.method, &parts.uri, &parts.headers);
    let refused = refusal::of(&verdict);
    record.decided(verdict);
    refused.map_or(Ok(()), Err)?;
    let grant = Grant::new(session, &caller, &parts);
    let opening = match websocket {
        Some(wanted) => {
            let headers = parts.headers.clone();
            Some(Opening::new(wanted, session, &mut parts, headers)?)
        }
        None => None,
    };

    // What the network said of identity goes, then ours comes, last.
    inbound.to_app.strip(&mut parts.headers);
    if inbound.authenticator.takes_tokens() {
        parts.headers.remove(AUTHORIZATION);
    }
    headers::join_cookies(&mut parts.headers);
    insert_ours(session, &caller, &mut parts)?;
    if opening.is_some() {
        Wanted::say(&mut parts.headers);
        parts.extensions.insert(Switches);
    }

    // To the app and back. Bodies stream both ways, for as long as what lets the caller in does.
    let deadline = inbound.patience.deadline();
    let first_byte = inbound.patience.first_byte(&parts.headers);
    let request = Request::from_parts(parts, body);
    let request = settle::framing(request, &inbound.to_app);
    let is_long = body::is_long(request.body());
    let sent = grant.hold(is_long, inbound.app.send(request, first_byte));
    let mut response = match deadline {
        None => sent.await??,
        Some(deadline) => tokio::time::timeout_at(deadline.at, sent)
            .await
            .map_err(|_| Refusal::AppTooSlow(deadline.whole))???,
    };
    match opening {
        Some(opening) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            opening.opened(session, &mut response, &inbound.from_app)?;
        }
        _ => {
            inbound.from_app.strip(response.headers_mut());
            let body = response.body_mut();
            body.filter_trailers(&inbound.from_app);
            body.while_still(|| grant.into_still());
            if let Some(deadline) = deadline {
                body.end_by(deadline);
            }
        }
    }
    Ok(response)
}

/// Who calls. Every credential that is presented must verify, and go back to nothing that is revoked or
/// withdrawn meanwhile: on connections that are up already, too. `noted` hears of whoever it is, revoked or not.
fn authenticate(
    session: &Session,
    headers: &HeaderMap,
    noted: impl FnOnce(&Arc<Authenticated>),
) -> Result<Arc<Authenticated>, Refusal> {
    let inbound = &*session.inbound;
    let known = inbound.revocations.load();
    refuse_withdrawn(session, &known)?;
    let authenticator = &inbound.authenticator;
    let caller = authenticator.authenticate(session.peer.as_ref(), headers)?;
    noted(&caller);
    caller.refuse_revoked(&known.list)?;
    Ok(caller)
}

/// Refuses what goes back to a certificate that is revoked, or that nobody vouches for any more.
fn refuse_withdrawn(session: &Session, known: &identity::Known) -> Result<(), Refusal> {
    if known.is_too_old() {
        return Err(Refusal::RevocationsStale(known.to_string()));
    }
    if let Some(peer) = &session.peer {
        peer.refuse_revoked(&known.list)?;
    }
    if let Some(foreign) = &session.foreign {
        let now = SystemTime::now();
        let certificate = &session.inbound.certificate;
        certificate.refuse_withdrawn(foreign, now)?;
    }
    Ok(())
}

/// What the rules say of a request of `caller`.
fn decide(
    session: &Session,
    caller: &Authenticated,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Verdict {
    let asked = policy::Request {
        method,
        path: uri.path(),
        host: headers.get(HOST).and_then(|host| host.to_str().ok()),
        headers,
        source: source::of(session.source, session.inbound.trusted_hops, headers),
        now: SystemTime::now(),
    };
    let policy = session.inbound.policy.load();
    policy.decide(caller.who(), caller.evidence(), asked)
}

/// Who called, as the agent vouches for it.
fn insert_ours(
    session: &Session,
    caller: &Authenticated,
    parts: &mut Parts,
) -> Result<(), Refusal> {
    let Parts {
        method,
        uri,
        headers,
        ..
    } = parts;
    let https = HeaderValue::from_static("https");
    headers::set_forwarded(headers, session.forwarded_for.as_ref(), https);
    if let Some(xfcc) = &session.xfcc {
        headers.insert(XFCC, xfcc.clone());
    }
    caller.insert(headers);
    if let Some(key) = &session.inbound.context_key {
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let now = SystemTime::now();
        let context = context::sign(key, caller.who(), method, target, now)?;
        headers.insert(CONTEXT, context);
    }
    Ok(())
}

//! Envoy's external authorization (`ext_authz`, v3): Envoy holds a request, and is told whether it may go on and as
//! whose.
//!
//! ```text
//! caller ══TLS══▶ Envoy ──Check──▶ request ─▶ caller ─▶ rules ─▶ answer
//!                   │  ◀──────────── headers to set and to remove ─┘
//!                   └─▶ app
//! ```
//!
//! The callers, the rules and the audit log are the listener's own. What differs is who saw the caller: Envoy
//! did, so Envoy proves itself first, as a process of this machine or with an X.509-SVID. What it says of its
//! client is believed only as far as the client's certificate bears it out, and a path is decided on only where
//! it is in normal form already, because Envoy forwards it as it came (S11).

use std::{
    mem,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Request, Response, header::AUTHORIZATION, request::Parts};
use hyper::body::Incoming;
use tonic::{Status, async_trait};
use tower_service::Service as _;
use warifu::{SpiffeId, TrustDomain};

use super::{
    Inbound, Session,
    authenticate::Authenticated,
    certificate::Certificate,
    decide::{Admitted, admit, vouch},
    record::{self, Record},
    refusal::Refusal,
    settle,
    terms::Terms,
};
use crate::{
    config::{
        inbound::ExtAuthz,
        local::Clients,
        value::{IdPattern, Listen},
    },
    http::{
        body::Body,
        grpc,
        server::{self, Connection, Failed, Opened, Process, Refused, Remote, Security},
    },
    policy,
};
use proto::service::{
    CheckRequest, CheckResponse,
    authorization_server::{Authorization, AuthorizationServer},
};
use request::{Asked, Presented};

pub(super) use request::Unclear;

mod answer;
mod proto;
mod request;

/// Longest `Check`, in bytes: Envoy takes 60 KiB of headers where it is not told otherwise, and a certificate. A body
/// is nothing to decide on, and with one it may be longer: Envoy is told so, and lets nothing pass.
const MAX_CHECK: usize = 256 * 1024;

/// Time for a `Check` to come and be answered. Envoy itself waits 200 ms where it is not told otherwise.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How the audit log calls a request that Envoy holds.
const EVENT: &str = "ext-authz";

/// What [`server::serve`] is given.
#[derive(Debug)]
pub(super) struct Front {
    inbound: Arc<Inbound>,
    envoys: Arc<Envoys>,
    /// Over TCP.
    certificate: Option<Certificate>,
}

/// Who may ask.
#[derive(Debug)]
struct Envoys {
    clients: Clients,
    peers: Vec<IdPattern>,
}

/// What all checks of a connection share.
#[derive(Debug)]
pub(super) struct Asking {
    inbound: Arc<Inbound>,
    /// Envoy, where it proved itself with a certificate.
    envoy: Option<Authenticated>,
    /// Where Envoy is.
    remote: String,
}

/// The gRPC service, for one connection.
#[derive(Debug, Clone)]
struct Checks(Arc<Asking>);

impl Front {
    pub(super) fn new(inbound: Arc<Inbound>, config: &ExtAuthz) -> Self {
        let certificate = matches!(inbound.address, Listen::Tcp(_)).then(|| {
            let mut trust_domains: Vec<TrustDomain> = Vec::new();
            let named = config.peers.iter().map(|peer| &peer.trust_domain);
            for domain in named.filter_map(|name| TrustDomain::new(name).ok()) {
                if !trust_domains.contains(&domain) {
                    trust_domains.push(domain);
                }
            }
            Certificate::of_svid(trust_domains, inbound.environment.identity.clone())
        });
        let envoys = Envoys {
            clients: config.clients.clone(),
            peers: config.peers.clone(),
        };
        Self {
            inbound,
            envoys: Arc::new(envoys),
            certificate,
        }
    }
}

impl server::Service for Front {
    type Session = Asking;

    fn security(&self) -> Security {
        match &self.certificate {
            Some(certificate) => certificate.current(SystemTime::now()),
            None => Security::Plaintext,
        }
    }

    fn open(&self, connection: Connection) -> Result<Opened<Asking>, Refused> {
        let (envoy, expires) = match (&self.certificate, &connection.remote) {
            (None, Remote::Unix(Some(process))) if self.envoys.include_process(*process) => {
                (None, None)
            }
            (None, _) => return Err(Refused("this process may not ask for decisions")),
            (Some(certificate), _) => {
                let unknown = Refused("this peer may not ask for decisions");
                let proved = certificate.peer(&connection.peer_chain)?;
                let proved = proved.ok_or(unknown.clone())?;
                if !self.envoys.include_peer(&proved.peer.spiffe_id) {
                    return Err(unknown);
                }
                let expires = proved.expires;
                (Some(Authenticated::by_certificate(proved)?), Some(expires))
            }
        };
        let session = Asking {
            inbound: Arc::clone(&self.inbound),
            envoy,
            remote: connection.remote.to_string(),
        };
        let terms = self.inbound.terms();
        Ok(Opened {
            session: Arc::new(session),
            expires: terms.ends_by(expires, SystemTime::now()),
        })
    }

    fn failed(&self, remote: &Remote, why: &Failed) {
        record::failed_connection(&self.inbound.environment.audit, remote, why);
    }

    async fn call(session: Arc<Asking>, request: Request<Incoming>) -> Response<Body> {
        let checks = AuthorizationServer::new(Checks(session));
        let mut checks = checks.max_decoding_message_size(MAX_CHECK);
        let answer = match tokio::time::timeout(ANSWER_WITHIN, checks.call(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(never)) => match never {},
            Err(_) => {
                let late = format!("no answer within {ANSWER_WITHIN:?}");
                Status::deadline_exceeded(late).into_http()
            }
        };
        grpc::answer(answer)
    }
}

#[async_trait]
impl Authorization for Checks {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, Status> {
        let answer = self.0.decide(request.into_inner()).await;
        Ok(tonic::Response::new(answer))
    }
}

impl Asking {
    /// Whether Envoy may let a request pass, and as whose.
    async fn decide(&self, check: CheckRequest) -> CheckResponse {
        let terms = self.inbound.terms();
        let (method, target) = request::line(&check);
        let asked = Asked::read(check).map_err(Refusal::Unclear);
        let asked = asked.and_then(|asked| Ok((self.session(&terms, &asked)?, asked.parts)));
        let (session, parts) = match asked {
            Ok((session, parts)) => (session, Ok(parts)),
            Err(refusal) => (self.unproved(None), Err(refusal)),
        };
        let mut record = Record::start(&session, terms.one_in, EVENT, method, target);
        let passed = match parts {
            Ok(parts) => pass(&session, &terms, parts, &mut record).await,
            Err(refusal) => Err(refusal),
        };
        match passed {
            Ok(pass) => {
                record.passed();
                pass
            }
            Err(refusal) => {
                let response = refusal.response();
                record.refused(&refusal, response.status());
                answer::refuse(&response)
            }
        }
    }

    /// A connection to Envoy, as one to us.
    fn session(&self, terms: &Terms, asked: &Asked) -> Result<Session, Refusal> {
        if let Some(envoy) = &self.envoy {
            let known = self.inbound.environment.revocations.load();
            if let Err(Refusal::PeerRevoked(kind)) = envoy.refuse_revoked(&known.list) {
                return Err(Refusal::EnvoyRevoked(kind));
            }
        }
        let mut session = self.unproved(asked.source);
        let Some(Presented { principal, leaf }) = &asked.presented else {
            return Ok(session);
        };
        if let Some(mut proved) = terms.certificate.seen(leaf, principal, SystemTime::now())? {
            session.certificate = mem::take(&mut proved.headers);
            let peer = Authenticated::by_certificate(proved);
            let peer = peer.map_err(|why| Refusal::PeerNotAccepted(why.0))?;
            session.peer = Some(Arc::new(peer));
        }
        Ok(session)
    }

    fn unproved(&self, source: Option<IpAddr>) -> Session {
        Session {
            inbound: Arc::clone(&self.inbound),
            remote: source.map_or_else(|| self.remote.clone(), |source| source.to_string()),
            source,
            forwarded_for: None,
            certificate: Default::default(),
            peer: None,
            foreign: None,
        }
    }
}

/// As a request of our own: `super::forward`.
async fn pass(
    session: &Session,
    terms: &Terms,
    mut parts: Parts,
    record: &mut Record<'_>,
) -> Result<CheckResponse, Refusal> {
    settle::refuse_what_is_not_served(&parts)?;
    // What Envoy lets pass is under way at Envoy: only how often is asked can be seen from here.
    let Admitted { caller, .. } = admit(session, terms, &parts, record).await?;

    let seen = mem::take(&mut parts.headers);
    if let Some(caller) = &caller {
        vouch(session, terms, caller, &mut parts)?;
    }
    let mut remove = terms.to_app.to_remove(&seen, &parts.headers);
    if terms.authenticator.takes_tokens() && caller.is_some() {
        remove.push(AUTHORIZATION.as_str().to_owned());
    }
    Ok(answer::pass(&parts.headers, remove))
}

impl Envoys {
    fn include_process(&self, process: Process) -> bool {
        self.clients.uids.contains(&process.uid) || self.clients.gids.contains(&process.gid)
    }

    fn include_peer(&self, id: &SpiffeId) -> bool {
        self.peers.iter().any(|pattern| policy::is_of(id, pattern))
    }
}

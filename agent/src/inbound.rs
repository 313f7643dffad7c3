//! Calls to the app: accept, authenticate, authorise, forward.
//!
//! ```text
//! caller ══TLS══▶ handshake ─▶ peer ┐                                  ┌─▶ app
//!        ──HTTP─▶ path ─▶ token ────┴▶ caller ─▶ rules ─▶ strip, insert ┘
//! ```
//!
//! `forward` is a request's way from top to bottom. What is known of a connection (its peer, and the
//! headers that say so) is made once, when it opens; a verified token is remembered until it
//! expires. The rest of a request costs no more than a proxy's.
//!
//! Where a listener accepts no tokens, `authorization` is the app's own business and passes through.
//! Where it accepts them, the header is ours: it must hold one good bearer token, and goes no further.

use std::{net::IpAddr, num::NonZeroU32, path::PathBuf, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use thiserror::Error;
use tokio::{sync::Semaphore, task::JoinHandle};
use warifu::{caller::context, jwt::SigningKey};

use crate::{
    config::{
        inbound::{self as config, Accept},
        value::Listen,
    },
    http::{
        headers::Filter,
        patience::Patience,
        pool::Pool,
        server::{self, Draining, Limits, Listener},
        tls_files::TlsFilesError,
    },
    identity,
    policy::Policy,
    secrets::Secrets,
    telemetry::{audit::Audit, emf::Counts},
};
use authenticate::{Authenticated, Authenticator};
use certificate::{Certificate, Files, Foreign};
use quota::Quotas;
use record::Sample;

mod app_port;
mod authenticate;
mod cache;
mod certificate;
mod decide;
mod ext_authz;
mod forward;
mod grant;
mod issuers;
mod key_file;
mod quota;
mod recent;
mod record;
mod refusal;
mod settle;
mod source;
#[cfg(test)]
mod tests;
mod tunnel;

pub use app_port::AppPorts;
pub use issuers::{Issuers, KeptWarm};
pub use record::Metrics;

const CALLER: HeaderName = HeaderName::from_static(context::CALLER_HEADER);

/// What a listener needs of the rest of the agent.
#[derive(Debug, Clone)]
pub struct Environment {
    /// What it presents, and verifies callers with.
    pub identity: identity::Current,
    /// Whose credentials are revoked.
    pub revocations: identity::Revocations,
    /// The keys of those whose tokens are accepted.
    pub issuers: Issuers,
    /// What callers are compared with that have a secret.
    pub secrets: Secrets,
    /// Connections to the app.
    pub pool: Pool,
    /// Where decisions are written.
    pub audit: Audit,
    /// Of requests that were allowed, one line in so many.
    pub allowed_one_in: NonZeroU32,
    /// Where decisions are counted, for CloudWatch.
    pub counts: Option<Counts>,
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
    /// It has no certificate to present.
    #[error("inbound.tls: {0}")]
    Certificate(#[from] TlsFilesError),
    /// Tokens of an issuer could not be verified.
    #[error("the entry {accept} of accept: {why}")]
    Issuer {
        /// Its name.
        accept: String,
        /// What is wrong.
        why: String,
    },
}

/// A listener that serves.
#[derive(Debug)]
pub struct Handle {
    inbound: Arc<Inbound>,
    address: Listen,
    serving: JoinHandle<usize>,
    /// Ends with it.
    _reading: Option<Reading>,
}

/// Follows the files of a listener's certificates while it is held.
#[derive(Debug)]
struct Reading(JoinHandle<()>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> &Listen {
        &self.address
    }

    /// Its rules, to be replaced while it serves.
    pub fn rules(&self) -> Rules {
        Rules(Arc::clone(&self.inbound))
    }

    /// Waits until a drain has ended; returns how many connections it cut.
    pub async fn drained(self) -> usize {
        self.serving.await.unwrap_or_default()
    }
}

/// The rules of a listener that serves.
#[derive(Debug, Clone)]
pub struct Rules(Arc<Inbound>);

impl Rules {
    /// From now on this decides, on live connections as well.
    pub fn replace(&self, policy: Policy) {
        self.0.policy.store(Arc::new(policy));
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
    if let Some(permissive) = config.permissive {
        let (listen, until) = (&config.listen, permissive.until);
        match SystemTime::now() < until.0 {
            true => tracing::warn!(
                %listen, %until,
                "permissive mode: what would be refused here is let pass until then, and written to the audit log"
            ),
            false => {
                tracing::warn!(%listen, %until, "permissive mode is over; remove it from the configuration");
            }
        }
    }
    Ok(serve(inbound, listener, config, environment))
}

fn serve(
    inbound: Inbound,
    listener: Listener,
    config: &config::Inbound,
    environment: &Environment,
) -> Handle {
    let inbound = Arc::new(inbound);
    let limits = Limits {
        max_connections: config.max_connections,
        max_age: Some(config.max_connection_age.0),
        ..Limits::default()
    };
    let address = listener.address().clone();
    let metrics = environment.server_metrics.listener("inbound");
    let draining = environment.draining.clone();
    let shared = Arc::clone(&inbound);
    let serving = match (&config.ext_authz, &config.forward) {
        (Some(ext_authz), _) => {
            let identity = environment.identity.clone();
            let front = ext_authz::Front::new(shared, ext_authz, &address, identity);
            let front = Arc::new(front);
            tokio::spawn(server::serve(listener, front, limits, metrics, draining))
        }
        (None, Some(forward)) => {
            let front = forward::Front::new(shared, forward, config, &environment.pool);
            let front = Arc::new(front);
            tokio::spawn(server::serve(listener, front, limits, metrics, draining))
        }
        // The configuration was checked: a listener has one of the two.
        (None, None) => tokio::spawn(std::future::ready(0)),
    };
    let reading = inbound.certificate.files().map(|files| {
        let gauge = environment.metrics.certificate(&address);
        let look = move |files: &Files| {
            let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok();
            let seconds = files.not_after().and_then(since).unwrap_or_default();
            gauge.set(i64::try_from(seconds.as_secs()).unwrap_or(i64::MAX));
        };
        Reading(tokio::spawn(Arc::clone(files).keep_reading(look)))
    });
    Handle {
        inbound,
        address,
        serving,
        _reading: reading,
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
    /// Until then refusals are written down and don't happen.
    permissive_until: Option<SystemTime>,
    patience: Patience,
    quotas: Option<Quotas>,
    /// Requests under way.
    places: Option<Arc<Semaphore>>,
    /// Signs who called, for apps reached over TCP.
    context_key: Option<SigningKey>,
    to_app: Arc<Filter>,
    audit: Audit,
    sample: Sample,
    counts: Option<Counts>,
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
    /// What the app is told of the peer's certificate, where it has one.
    certificate: certificate::Headers,
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
            audit,
            allowed_one_in,
            counts,
            metrics,
            ..
        } = environment.clone();
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
        let secrets = config.accept.iter().filter_map(|accept| match accept {
            Accept::SecretHeader(secret) => Some(&secret.header),
            _ => None,
        });
        let removed = config.forward_claims.values().chain(secrets);
        let to_app = match config.ext_authz {
            Some(_) => Filter::to_app_of_proxy(removed),
            None => Filter::to_app(removed),
        };
        let authenticator = Authenticator::new(config, environment)?;
        Ok(Self {
            certificate: Certificate::new(config, identity)?,
            authenticator,
            revocations,
            policy: ArcSwap::from_pointee(Policy::new(&config.allow, &config.deny)),
            trusted_hops: config.trusted_hops,
            permissive_until: config.permissive.map(|permissive| permissive.until.0),
            patience: Patience::new(&config.timeouts),
            quotas: Quotas::new(config.limits.per_caller),
            places: config
                .limits
                .concurrency
                .map(|most| Arc::new(Semaphore::new(most.get().min(Semaphore::MAX_PERMITS)))),
            context_key,
            to_app: Arc::new(to_app),
            audit,
            sample: Sample::new(allowed_one_in),
            counts,
            metrics,
        })
    }
}

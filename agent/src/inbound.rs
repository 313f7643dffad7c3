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
//! What the configuration says of a listener is in its `Terms`, which a reload replaces as one; what is here
//! lives as long as the socket.
//!
//! Where a listener accepts no tokens, `authorization` is the app's own business and passes through.
//! Where it accepts them, the header is ours: it must hold one good bearer token, and goes no further.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU32},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use thiserror::Error;
use tokio::task::JoinHandle;
use warifu::caller::context;

use crate::{
    config::{inbound as config, private::PrivateError, value::Listen},
    http::{
        headers::Filter,
        pool::Pool,
        server::{self, Draining, Limits, Listener},
        tls_files::TlsFilesError,
    },
    identity,
    secrets::Secrets,
    telemetry::{audit::Audit, emf::Counts},
};
use authenticate::Authenticated;
use certificate::{Files, Foreign};
use quota::Quotas;
use terms::Terms;

mod app_port;
mod authenticate;
mod cache;
mod certificate;
mod change;
mod decide;
mod ext_authz;
mod forward;
mod grant;
mod issuers;
mod key_file;
mod opaque;
mod quota;
mod recent;
mod record;
mod refusal;
mod rego;
mod session;
mod settle;
mod source;
mod terms;
#[cfg(test)]
mod tests;
mod tunnel;

pub use app_port::AppPorts;
pub use change::{Change, Live};
pub use issuers::Issuers;
pub use record::Metrics;
pub use rego::{Evaluations, PolicyError, policy_of};

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
    /// Where Rego policies are evaluated.
    pub evaluations: Evaluations,
    /// Connections to the app.
    pub pool: Pool,
    /// Where decisions are written.
    pub audit: Audit,
    /// Where decisions are counted, for CloudWatch.
    pub counts: Option<Counts>,
    /// What requests count in.
    pub metrics: Metrics,
    /// What connections count in.
    pub server_metrics: server::Metrics,
    /// When to end.
    pub draining: Draining,
}

/// Why a listener can't serve what its configuration says.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The app could not verify the signed context.
    #[error("context.key_file: {0}; its directory must exist and be writable for the agent alone")]
    KeyFile(#[from] PrivateError),
    /// It has nothing to decide by.
    #[error("inbound.{0}")]
    Policy(#[from] PolicyError),
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
    /// Callers that have a secret could not be told from others.
    #[error("the entry {accept} of accept: {why}")]
    Secret {
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
    serving: JoinHandle<usize>,
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> &Listen {
        &self.inbound.address
    }

    /// What of it can change while it serves.
    pub fn live(&self) -> Live {
        Live(Arc::clone(&self.inbound))
    }

    /// Waits until a drain has ended; returns how many connections it cut.
    pub async fn drained(self) -> usize {
        self.serving.await.unwrap_or_default()
    }
}

/// Serves `listener`, bound to `config.listen`, in a task of its own. Of requests that are allowed, one in so many has
/// its line in the audit log.
///
/// # Errors
/// See [`StartError`].
pub fn start(
    config: &config::Inbound,
    allowed_one_in: NonZeroU32,
    listener: Listener,
    environment: &Environment,
) -> Result<Handle, StartError> {
    let terms = Terms::of(config, allowed_one_in, environment, None)?.in_force()?;
    if let Some(permissive) = config.permissive {
        permissive_mode(&config.listen, permissive);
    }
    Ok(serve(terms, listener, environment))
}

fn serve(terms: Terms, listener: Listener, environment: &Environment) -> Handle {
    let config = terms.config.clone();
    let limits = Limits {
        max_connections: config.max_connections,
        ..Limits::default()
    };
    let metrics = environment.server_metrics.listener("inbound");
    let draining = environment.draining.clone();
    let inbound = Inbound::new(terms, listener.address().clone(), environment.clone());
    let shared = Arc::clone(&inbound);
    let serving = match config.ext_authz {
        Some(ext_authz) => {
            let front = Arc::new(ext_authz::Front::new(shared, &ext_authz));
            tokio::spawn(server::serve(listener, front, limits, metrics, draining))
        }
        None if config.is_opaque() => {
            let front = Arc::new(opaque::Front::new(shared));
            let serving = server::serve_bytes(listener, front, limits, metrics, draining);
            tokio::spawn(serving)
        }
        None => {
            let front = Arc::new(forward::Front::new(shared));
            tokio::spawn(server::serve(listener, front, limits, metrics, draining))
        }
    };
    Handle { inbound, serving }
}

fn permissive_mode(listen: &Listen, config::Permissive { until }: config::Permissive) {
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

/// What all connections of a listener share, for as long as it is bound.
#[derive(Debug)]
struct Inbound {
    /// Where it is.
    address: Listen,
    /// What the configuration says at this time.
    terms: ArcSwap<Terms>,
    environment: Environment,
    quotas: Quotas,
    from_app: Arc<Filter>,
    /// Requests that were allowed, for those whose line is written.
    allowed: AtomicU32,
    /// Follows the files of its certificates.
    reading: Mutex<Option<Reading>>,
}

/// Follows the files of a listener's certificates while it is held.
#[derive(Debug)]
struct Reading {
    files: Arc<Files>,
    task: JoinHandle<()>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
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
    fn new(terms: Terms, address: Listen, environment: Environment) -> Arc<Self> {
        let terms = Arc::new(terms);
        let inbound = Self {
            address,
            terms: ArcSwap::new(Arc::clone(&terms)),
            environment,
            quotas: Quotas::default(),
            from_app: Arc::new(Filter::from_app()),
            allowed: AtomicU32::new(0),
            reading: Mutex::default(),
        };
        inbound.follow_files(&terms);
        Arc::new(inbound)
    }

    /// What the configuration says now. Asked once a request: what is decided is decided by one version.
    fn terms(&self) -> Arc<Terms> {
        self.terms.load_full()
    }

    /// From now on these are the terms.
    fn enforce(&self, terms: Arc<Terms>) {
        self.follow_files(&terms);
        self.terms.store(terms);
    }

    fn follow_files(&self, terms: &Terms) {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(files) = terms.certificate.files() else {
            *reading = None;
            self.environment.metrics.no_certificate(&self.address);
            return;
        };
        let followed = reading.as_ref().map(|reading| &reading.files);
        if followed.is_some_and(|followed| Arc::ptr_eq(followed, files)) {
            return;
        }
        let gauge = self.environment.metrics.certificate(&self.address);
        let look = move |files: &Files| {
            let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok();
            let seconds = files.not_after().and_then(since).unwrap_or_default();
            gauge.set(i64::try_from(seconds.as_secs()).unwrap_or(i64::MAX));
        };
        *reading = Some(Reading {
            files: Arc::clone(files),
            task: tokio::spawn(Arc::clone(files).keep_reading(look)),
        });
    }
}

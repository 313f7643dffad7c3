//! The authority: attests agents and issues X.509-SVIDs and JWT-SVIDs; publishes the trust bundle.
//!
//! ```text
//! api ──▶ issue ──▶ rules ──▶ ca ──▶ audit, then the answer
//!           │ evidence, record    ▲
//!           ▼                     │ live: the document made usable
//!         state ◀── maintain ◀── ca_state ◀── rotation
//! ```
//!
//! Replicas share one small document (`ca_state`), the revocation list and the join tokens, in a [`state`] store. Losing
//! the store stops rotation and join tokens, not issuing.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use prometheus_client::registry::Registry;
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    attest::wire::CallerIdentityProof,
    config::{
        AuthorityConfig,
        value::{Listen, SpkiPin},
    },
    http::server::{self, Drain, Limits, Listener},
    telemetry::{
        audit::Audit,
        ready::{Condition, Readiness},
    },
};

pub mod admin;
mod api;
mod attestors;
mod audit;
mod ca;
mod ca_state;
mod challenge;
mod denied;
mod federation;
mod issue;
mod join_token;
mod keyring;
mod keys;
mod kms;
mod limits;
mod live;
mod maintain;
mod metrics;
mod pca;
mod publish;
mod record;
mod revocation;
mod rotation;
pub mod rules;
mod settings;
mod start;
pub mod state;
mod status;
#[cfg(test)]
mod tests;
mod web;

pub use attestors::{AttestorError, AttestorProblem};
pub use ca::CaError;
pub use ca_state::CaStateError;
pub use federation::FederationError;
pub use join_token::{JoinTokenError, NewJoinToken};
pub use keys::KeyError;
pub use kms::KmsError;
pub use maintain::{MaintainError, RotateError};
pub use revocation::{Change, Changed, Entry, ListError, Revocations, RevokeError};
pub use settings::SettingsError;
pub use start::StartError;
pub use status::{RootStatus, RotationStatus, Status};
pub use web::CertificateError;

use issue::Issuing;
use rules::Facts;
use start::Prepared;

/// Time for a handshake, the wait for its turn included. Agents give up after as long, so that later it is
/// not worth the work.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Time an agent's connection may be idle: agents come back in minutes, and ten thousand idle ones
/// would take every slot.
const IDLE: Duration = Duration::from_secs(30);
/// Age at which an agent's connection is closed. HTTP/2 keeps a silent connection open with pings, so
/// [`IDLE`] alone would let whoever connects keep a slot; an agent that comes back connects again.
const MAX_AGE: Duration = Duration::from_secs(60);
/// Administrators at once.
const MAX_ADMINS: usize = 16;

/// What an authority shares with the rest of the process.
pub struct Parts<'a> {
    /// Gets a line for every decision.
    pub audit: Audit,
    /// Gets the condition `authority`.
    pub readiness: &'a Readiness,
    /// Gets its metrics.
    pub registry: &'a mut Registry,
    /// Metrics of the process's listeners.
    pub servers: &'a server::Metrics,
}

/// A running authority. Dropped, it stops at once; see [`Authority::shutdown`].
#[derive(Debug)]
pub struct Authority {
    issuing: Arc<Issuing>,
    address: SocketAddr,
    admin: Listen,
    web: Option<web::Serving>,
    drain: Drain,
    servers: Vec<JoinHandle<usize>>,
    /// Aborted when dropped.
    tasks: JoinSet<()>,
}

/// Starts an authority: binds first, then loads or makes its keys, then serves.
///
/// # Errors
/// See [`StartError`].
pub async fn start(config: &AuthorityConfig, parts: Parts<'_>) -> Result<Authority, StartError> {
    bind(config, parts).await?.serve().await
}

/// An authority with its sockets and metrics, and without its keys yet.
#[derive(Debug)]
pub struct Bound {
    front: Listener,
    admin: Listener,
    listen: SocketAddr,
    front_metrics: server::ListenerMetrics,
    admin_metrics: server::ListenerMetrics,
    web: Option<(web::Bound, server::ListenerMetrics)>,
    condition: Condition,
    prepared: Prepared,
}

/// Binds the sockets, and reads what needs nobody's answer.
///
/// # Errors
/// See [`StartError`].
pub async fn bind(config: &AuthorityConfig, parts: Parts<'_>) -> Result<Bound, StartError> {
    let Listen::Unix(_) = &config.admin else {
        return Err(StartError::Combination(
            "admin is a TCP address; expected unix:/path, where the kernel says who connects",
        ));
    };
    let front = Listener::bind(&Listen::Tcp(config.listen)).map_err(|why| why.at("listen"))?;
    let admin = Listener::bind_private(&config.admin).map_err(|why| why.at("admin"))?;
    let web = config.web.as_ref().map(web::Bound::new).transpose()?;
    let condition = parts
        .readiness
        .condition("authority", "loading keys and state");
    Ok(Bound {
        front,
        admin,
        listen: config.listen,
        front_metrics: parts.servers.listener("authority"),
        admin_metrics: parts.servers.listener("admin"),
        web: web.map(|web| (web, parts.servers.listener("web"))),
        condition,
        prepared: Prepared::new(config, parts.audit, parts.registry).await?,
    })
}

impl Bound {
    /// Loads or makes the keys, then serves. While what that needs of AWS is away, it stays unready, says
    /// why, and tries again.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn serve(self) -> Result<Authority, StartError> {
        let issuing = Arc::new(self.prepared.load(&self.condition).await?);
        let address = match self.front.address() {
            Listen::Tcp(address) => *address,
            Listen::Unix(_) => self.listen,
        };
        let admin = self.admin.address().clone();
        let (drain, draining) = server::drain();
        let mut servers = vec![
            tokio::spawn(server::serve(
                self.front,
                Arc::new(api::FrontDoor::new(
                    Arc::clone(&issuing),
                    api::MAX_IN_FLIGHT,
                )),
                front_door_limits(),
                self.front_metrics,
                draining.clone(),
            )),
            tokio::spawn(server::serve(
                self.admin,
                Arc::new(admin::Administration(Arc::clone(&issuing))),
                Limits {
                    max_connections: MAX_ADMINS,
                    ..Limits::default()
                },
                self.admin_metrics,
                draining.clone(),
            )),
        ];
        self.condition.met();
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_maintaining(Arc::clone(&issuing), self.condition));
        tasks.spawn(warm(Arc::clone(&issuing)));
        for index in 0..issuing.federation.count() {
            tasks.spawn(keep_polling(Arc::clone(&issuing), index));
        }
        let web = self.web.map(|(bound, metrics)| {
            let web = bound.serving();
            tasks.spawn(web.clone().keep_reading(issuing.metrics.clone()));
            servers.push(bound.serve(Arc::clone(&issuing), metrics, draining));
            web
        });
        let authority = Authority {
            issuing,
            address,
            admin,
            web,
            drain,
            servers,
            tasks,
        };
        for root in authority.status().roots {
            tracing::info!(phase = root.phase, root_spki_sha256 = root.spki_sha256, %address, "authority serves");
        }
        Ok(authority)
    }
}

impl Authority {
    /// Where agents connect, with the port the kernel chose where `:0` was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The administration socket.
    pub fn admin(&self) -> &Listen {
        &self.admin
    }

    /// Where the world reads, where that is configured.
    pub fn web(&self) -> Option<SocketAddr> {
        self.web.as_ref().map(|web| web.address)
    }

    /// Reads the certificate of the web listener from its files now: whether it is another.
    ///
    /// # Errors
    /// See [`CertificateError`]; the last good one stays in use.
    pub fn reload_certificate(&self) -> Result<bool, CertificateError> {
        self.web.as_ref().map_or(Ok(false), web::Serving::reload)
    }

    /// Makes a join token that attests `facts` once, within `ttl`.
    ///
    /// # Errors
    /// See [`JoinTokenError`].
    pub async fn create_join_token(
        &self,
        attestor: &str,
        facts: Facts,
        ttl: Duration,
    ) -> Result<NewJoinToken, JoinTokenError> {
        self.issuing
            .create_join_token(attestor, facts, ttl, SystemTime::now())
            .await
    }

    /// The pin of every published root: the current one, and the next or the old one.
    pub fn root_pins(&self) -> Vec<SpkiPin> {
        let pins = self.issuing.live.load().root_pins().into_iter();
        pins.map(|(_, pin)| SpkiPin(pin)).collect()
    }

    /// Starts the rotation of root and keys now, ahead of its time: the next ones are published, and
    /// sign after `ca.publish_ahead`.
    ///
    /// # Errors
    /// See [`RotateError`].
    pub async fn rotate(&self) -> Result<(), RotateError> {
        self.issuing.rotate(SystemTime::now()).await
    }

    /// Revokes, or takes back. In force here at once, at other replicas within their reload, at agents
    /// within their poll.
    ///
    /// # Errors
    /// See [`RevokeError`].
    pub async fn revoke(&self, change: &Change) -> Result<Changed, RevokeError> {
        self.issuing.revoke(change, SystemTime::now()).await
    }

    /// What is revoked.
    pub fn revocations(&self) -> Revocations {
        self.issuing.revocations()
    }

    /// What there is.
    pub fn status(&self) -> Status {
        self.issuing.status()
    }

    /// Stops accepting, and waits for requests under way, at most `grace`.
    pub async fn shutdown(mut self, grace: Duration) {
        self.tasks.abort_all();
        self.drain.start(grace);
        for server in &mut self.servers {
            if let Err(why) = server.await {
                tracing::error!(%why, "a server of the authority did not end well");
            }
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

fn front_door_limits() -> Limits {
    Limits {
        handshake: HANDSHAKE,
        idle: IDLE,
        max_age: Some(MAX_AGE),
        ..Limits::default()
    }
}

/// Whether `csr` is a PKCS#10 request (DER) that proves a key we certify: what the front door asks of
/// every one. Open for fuzzing, which needs no authority around it.
pub fn proves_a_key(csr: &[u8]) -> bool {
    ca::public_key(csr).is_ok()
}

/// The request to STS that is made of a proof, with `binding` in it; `None` where a value of the proof is not such as
/// a signature has. Open for fuzzing.
pub fn asks_sts(
    proof: &CallerIdentityProof,
    binding: &str,
    now: SystemTime,
) -> Option<http::Request<bytes::Bytes>> {
    attestors::request_of_proof(proof, binding, now)
}

/// What STS's answer to that request proves; `None` where it proves nothing. Open for fuzzing.
pub fn reads_caller(content_type: &str, body: &[u8], region: &str) -> Option<Facts> {
    attestors::facts_of_answer(content_type, body, region)
}

/// Has the issuers' keys at hand before the first agent asks. Ends by itself.
async fn warm(issuing: Arc<Issuing>) {
    issuing.attestors.warm(SystemTime::now()).await;
}

/// Follows another trust domain's bundle as long as the authority runs.
async fn keep_polling(issuing: Arc<Issuing>, index: usize) {
    loop {
        let (store, metrics) = (&*issuing.store, &issuing.metrics);
        let now = SystemTime::now();
        let next = issuing.federation.poll(index, store, metrics, now).await;
        tokio::time::sleep(next).await;
    }
}

/// Maintains as long as the authority runs. A failure is logged when it begins and when it changes.
async fn keep_maintaining(issuing: Arc<Issuing>, condition: Condition) {
    let mut trouble = None;
    loop {
        tokio::time::sleep(issuing.settings.reload()).await;
        let now = SystemTime::now();
        let why = issuing.maintain(now).await.err().map(|why| why.to_string());
        if let Some(why) = &why {
            issuing.metrics.maintenance_failed();
            if trouble.as_ref() != Some(why) {
                tracing::error!(%why, "CA maintenance failed; issuing goes on, rotation does not");
            }
        }
        trouble = why;
        if issuing.live.load().signer.not_after() > now {
            condition.met();
        } else {
            condition.unmet("the intermediate has expired and could not be replaced");
        }
    }
}

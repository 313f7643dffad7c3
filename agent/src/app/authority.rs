//! An authority with what surrounds it: audit log, metrics, probes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use thiserror::Error;

use super::{ADMIN_GRACE, AUDIT_FLUSH, Serving};
use crate::{
    admin::{self, Admin, Surface},
    authority,
    config::{AuthorityConfig, defaults, value::Listen},
    http::server::{self, BindError, Drain, Listener},
    telemetry::{
        audit::{Audit, AuditError},
        metrics,
        ready::Readiness,
    },
};

/// A running authority. Dropped, it cuts what it was doing; [`Authority::drain`] ends it in order.
#[derive(Debug)]
pub struct Authority {
    /// What issues.
    pub issuer: authority::Authority,
    /// Address of the probes.
    pub probes: Option<Listen>,
    /// What is still missing.
    pub readiness: Readiness,
    audit: Audit,
    admin_drain: Drain,
    admin_serving: Serving,
}

/// Why an authority could not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthorityStartError {
    /// The probes' listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The audit log can't be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Keys, state, rules or sockets.
    #[error(transparent)]
    Authority(#[from] authority::StartError),
}

/// Starts an authority.
///
/// # Errors
/// See [`AuthorityStartError`].
pub async fn start_authority(config: &AuthorityConfig) -> Result<Authority, AuthorityStartError> {
    let probes = config.probes.as_ref().map(Listener::bind).transpose();
    let probes = probes.map_err(|error| error.at("probes"))?;
    let audit = match &config.audit_file {
        Some(file) => Audit::file(file)?,
        None => Audit::stdout()?,
    };
    let mut registry = metrics::registry();
    audit.register(&mut registry);
    let readiness = Readiness::default();
    let servers = server::Metrics::new(&mut registry);
    let parts = authority::Parts {
        audit: audit.clone(),
        readiness: &readiness,
        registry: &mut registry,
        servers: &servers,
    };
    let bound = authority::bind(config, parts).await?;

    let (admin_drain, draining) = server::drain();
    let address = probes.as_ref().map(|listener| listener.address().clone());
    let admin_serving = probes.map(|listener| {
        let admin = Arc::new(Admin {
            readiness: readiness.clone(),
            registry,
            started: SystemTime::now(),
            // Only the probes are served here: the authority's status is on its own admin socket.
            status: Arc::new(|| serde_json::Value::Null),
            drain: Arc::new(|| {}),
        });
        admin::start(
            listener,
            Surface::Probes,
            admin,
            servers.listener("probes"),
            draining,
        )
    });
    let admin_serving = Serving(admin_serving.into_iter().collect());
    // The probes answer already: what keys and state are in may be away, and they say so.
    let issuer = bound.serve().await?;
    Ok(Authority {
        issuer,
        probes: address,
        readiness,
        audit,
        admin_drain,
        admin_serving,
    })
}

impl Authority {
    /// Stops accepting, lets requests under way end, then ends.
    pub async fn drain(self) {
        self.drain_within(defaults::DRAIN).await;
    }

    async fn drain_within(mut self, grace: Duration) {
        self.issuer.shutdown(grace).await;
        self.admin_drain.start(ADMIN_GRACE);
        self.admin_serving.ended().await;
        if !self.audit.flush(AUDIT_FLUSH) {
            tracing::error!("the last audit lines could not be written");
        }
    }
}

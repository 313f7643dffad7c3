//! Opaque TCP of the app, carried to an upstream over mTLS.

use std::{sync::Arc, time::SystemTime};

use super::{Setup, link::Mtls, metrics::TcpCounters, refusal::Refusal, route::RouteError};
use crate::{
    config::{defaults::TCP_IDLE, outbound::TcpRoute},
    http::{
        origin::Stream,
        pool::Far,
        server::{Carrier, Remote},
        tunnel::{Bounds, End, carry},
    },
    identity,
};

/// One route, as a [`Carrier`] for [`crate::http::server::serve_bytes`].
#[derive(Debug)]
pub struct Tcp {
    /// The upstream, as the configuration has it.
    to: String,
    link: Mtls,
    identity: identity::Current,
    counters: TcpCounters,
}

impl Tcp {
    pub(super) fn new(
        route: &TcpRoute,
        setup: &Setup<'_>,
        counters: TcpCounters,
    ) -> Result<Arc<Self>, RouteError> {
        Ok(Arc::new(Self {
            to: route.upstream.to_string(),
            link: Mtls::over_tcp(route, setup)?,
            identity: setup.identity.clone(),
            counters,
        }))
    }

    /// A connection to the upstream, under the identity of this moment.
    async fn connect(&self) -> Result<Far, Refusal> {
        let identity = self.identity.borrow().clone();
        let identity = identity.ok_or(Refusal::NoIdentity)?;
        let upstream = self.link.upstream(&identity, SystemTime::now())?;
        Ok(upstream.open().await?)
    }
}

impl Carrier for Tcp {
    /// There is no answer to say it with: a connection that can't be carried is cut, counted and logged. So is one whose
    /// other side broke off: an app that took that for the end would take a part for the whole.
    async fn carry(&self, near: &mut impl Stream, remote: Remote) -> bool {
        match self.connect().await {
            Ok(far) => {
                let bounds = Bounds::idle(TCP_IDLE);
                let carried = carry(near, far.into_parts(), bounds, &self.counters.tunnels);
                carried.await == End::Closed
            }
            Err(refusal) => {
                self.counters.refused(&refusal);
                tracing::warn!(to = self.to, %remote, %refusal, "a TCP connection was cut");
                false
            }
        }
    }
}

//! Opaque TCP of the app, carried to an upstream over mTLS.

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;

use super::{Setup, link::Mtls, metrics::TcpCounters, refusal::Refusal, route::RouteError};
use crate::{
    config::{defaults::TCP_IDLE, outbound::TcpRoute},
    http::{
        origin::Stream,
        pool::Far,
        server::{Carrier, Connection, Opened, Refused, Remote},
        tunnel::{Bounds, Passed, carry},
    },
    identity,
};

/// One route, as a [`Carrier`] for [`crate::http::server::serve_bytes`].
#[derive(Debug)]
pub struct Tcp(Arc<Way>);

/// Where its connections go.
#[derive(Debug)]
struct Way {
    /// The upstream, as the configuration has it.
    to: String,
    link: Mtls,
    identity: identity::Current,
    counters: TcpCounters,
}

/// A connection of the app.
#[derive(Debug)]
pub struct Carried {
    way: Arc<Way>,
    remote: Remote,
}

impl Tcp {
    pub(super) fn new(
        route: &TcpRoute,
        setup: &Setup<'_>,
        counters: TcpCounters,
    ) -> Result<Arc<Self>, RouteError> {
        Ok(Arc::new(Self(Arc::new(Way {
            to: route.upstream.to_string(),
            link: Mtls::over_tcp(route, setup)?,
            identity: setup.identity.clone(),
            counters,
        }))))
    }
}

impl Way {
    /// A connection to the upstream, under the identity of this moment.
    async fn connect(&self) -> Result<Far, Refusal> {
        let identity = self.identity.borrow().clone();
        let identity = identity.ok_or(Refusal::NoIdentity)?;
        let upstream = self.link.upstream(&identity, SystemTime::now())?;
        Ok(upstream.open().await?)
    }
}

impl Carrier for Tcp {
    type Session = Carried;

    fn open(&self, connection: Connection) -> Result<Opened<Carried>, Refused> {
        let carried = Carried {
            way: Arc::clone(&self.0),
            remote: connection.remote,
        };
        Ok(Opened {
            session: Arc::new(carried),
            expires: None,
        })
    }

    /// There is no answer to say it with: a connection that can't be carried is cut, counted and logged. So is one whose
    /// other side broke off: an app that took that for the end would take a part for the whole.
    async fn carry(carried: Arc<Carried>, near: &mut impl Stream, ends: Option<Instant>) {
        let Carried { way, remote } = &*carried;
        match way.connect().await {
            Ok(far) => {
                let bounds = Bounds::idle(TCP_IDLE).until(ends).abrupt();
                let (far, passed) = (far.into_parts(), Passed::default());
                carry(near, far, bounds, &way.counters.tunnels, &passed).await;
            }
            Err(refusal) => {
                way.counters.refused(&refusal);
                tracing::warn!(to = way.to, %remote, %refusal, "a TCP connection was cut");
                near.cut();
            }
        }
    }
}

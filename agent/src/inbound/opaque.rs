//! A listener whose app speaks no HTTP: who connects is decided on as a request would be, once before the first byte, and
//! again while the connection lasts.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Method, request::Parts};
use tokio::{io::AsyncWriteExt, time::Instant};

use super::{
    Inbound, Session,
    certificate::hex,
    decide::{Admitted, admit},
    grant::Grant,
    record::{self, Record},
    refusal::Refusal,
    terms::Terms,
};
use crate::{
    config::{defaults::TCP_IDLE, inbound::ProxyProtocol},
    http::{
        origin::Stream,
        pool::{FarParts, SendError},
        proxy_protocol::{self, Tls, Told},
        server::{Agreed, Carrier, Connection, Failed, Opened, Refused, Remote, Security},
        still::Still,
        tunnel::{Bounds, carry, close},
    },
};

/// What [`crate::http::server::serve_bytes`] is given.
#[derive(Debug)]
pub(super) struct Front(Arc<Inbound>);

/// A connection.
#[derive(Debug)]
pub(super) struct Connected {
    session: Arc<Session>,
    /// What the audit log and the app call it.
    id: String,
    /// Who connects, and where it connected to.
    between: Option<(SocketAddr, SocketAddr)>,
    tls: Option<Agreed>,
}

/// The app's end of a connection that is allowed.
struct Allowed {
    far: FarParts,
    still: Still,
}

impl Front {
    pub(super) fn new(inbound: Arc<Inbound>) -> Self {
        Self(inbound)
    }
}

impl Carrier for Front {
    type Session = Connected;

    fn security(&self) -> Security {
        self.0.terms().certificate.current(SystemTime::now())
    }

    fn open(&self, connection: Connection) -> Result<Opened<Connected>, Refused> {
        let Opened { session, expires } = Session::open(&self.0, &connection)?;
        let source = match connection.remote {
            Remote::Tcp(address) => Some(address),
            Remote::Unix(_) => None,
        };
        let connected = Connected {
            session,
            id: id()?,
            between: source.zip(connection.local),
            tls: connection.tls,
        };
        Ok(Opened {
            session: Arc::new(connected),
            expires,
        })
    }

    fn failed(&self, remote: &Remote, why: &Failed) {
        record::failed_connection(&self.0.environment.audit, remote, why);
    }

    async fn carry(connected: Arc<Connected>, near: &mut impl Stream, ends: Option<Instant>) {
        let session = &connected.session;
        let terms = session.inbound.terms();
        let mut record = Record::of_connection(session, terms.one_in, &connected.id);
        let Allowed { far, still } = match connected.open(&terms, &mut record).await {
            Ok(allowed) => allowed,
            Err(refusal) => {
                record.connection_refused(&refusal);
                drop(record);
                // There is nothing to say it with.
                return close(near).await;
            }
        };
        // They may be replaced before this ends.
        drop(terms);
        let carried = record.carried();
        let bounds = Bounds::idle(TCP_IDLE).until(ends).abrupt();
        let bounds = bounds.while_still(Some(still));
        let meter = &session.inbound.environment.metrics.tunnels;
        let end = carry(near, far, bounds, meter, &carried.passed).await;
        carried.ended(end);
    }
}

impl Connected {
    /// Decides, and connects to the app, which is told of whom.
    async fn open(&self, terms: &Terms, record: &mut Record<'_>) -> Result<Allowed, Refusal> {
        let parts = asked();
        let Admitted { caller, places } = admit(&self.session, terms, &parts, record).await?;
        let mut far = terms.app()?.open().await?.into_parts();
        if let Some(ProxyProtocol::V2) = terms.config.proxy_protocol {
            // Whoever is let pass unknown is told of without a name.
            let known = caller.as_ref().and_then(|caller| caller.peer.as_deref());
            let header = self.header(known)?;
            tell(&mut far, &header, terms.config.timeouts.connect.0).await?;
        }
        let grant = Grant::new(&self.session, terms, caller.as_ref(), &parts, places);
        Ok(Allowed {
            far,
            still: grant.into_still(),
        })
    }

    fn header(&self, spiffe_id: Option<&str>) -> Result<Vec<u8>, Refusal> {
        let agreed = self.tls.as_ref();
        let told = Told {
            between: self.between,
            tls: Tls {
                version: agreed.map_or("", |tls| tls.version),
                server_name: agreed.and_then(|tls| tls.server_name.as_deref()),
                alpn: agreed.and_then(|tls| tls.alpn.as_deref()),
            },
            unique_id: &self.id,
            spiffe_id,
        };
        Ok(proxy_protocol::encode(&told)?)
    }
}

/// Writes the header: an app that reads nothing keeps no connection waiting for longer than one that does not accept.
async fn tell(far: &mut FarParts, header: &[u8], within: Duration) -> Result<(), SendError> {
    let written = tokio::time::timeout(within, far.stream.write_all(header)).await;
    let written = written.unwrap_or_else(|elapsed| Err(elapsed.into()));
    written.map_err(|why| SendError::Broken {
        to: "the app".to_owned(),
        why: format!("it took no PROXY header: {why}"),
    })
}

/// A name that no other connection has.
fn id() -> Result<String, Refused> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| Refused("the system gives no randomness"))?;
    Ok(hex(&id))
}

/// What is asked of rules that say nothing of methods, paths and headers: the configuration was checked.
fn asked() -> Parts {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::CONNECT;
    parts
}

//! What is known of a connection when it is up, made once for all that comes over it.

use std::{mem, sync::Arc, time::SystemTime};

use http::HeaderValue;

use super::{Inbound, Session, authenticate::Authenticated, certificate};
use crate::http::server::{Connection, Opened, Refused, Remote};

impl Session {
    /// Of `connection`, on the terms of now, and when it ends at the latest.
    pub(super) fn open(
        inbound: &Arc<Inbound>,
        connection: &Connection,
    ) -> Result<Opened<Self>, Refused> {
        let terms = inbound.terms();
        let mut peer = terms.certificate.peer(&connection.peer_chain)?;
        let foreign = peer.as_mut().and_then(|peer| peer.foreign.take());
        let expires = peer.as_ref().map(|peer| peer.expires);
        let expires = terms.ends_by(expires, SystemTime::now());
        let (certificate, authenticated) = match peer {
            Some(mut peer) => (
                mem::take(&mut peer.headers),
                Some(Authenticated::by_certificate(peer)?),
            ),
            None => (certificate::Headers::default(), None),
        };
        let source = match &connection.remote {
            Remote::Tcp(address) => Some(address.ip()),
            Remote::Unix(_) => None,
        };
        let forwarded_for =
            source.and_then(|address| HeaderValue::try_from(address.to_string()).ok());
        let session = Self {
            inbound: Arc::clone(inbound),
            remote: connection.remote.to_string(),
            source,
            forwarded_for,
            certificate,
            peer: authenticated.map(Arc::new),
            foreign,
        };
        Ok(Opened {
            session: Arc::new(session),
            expires,
        })
    }
}

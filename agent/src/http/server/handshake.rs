//! From a connection that was accepted to one that is secured as its service says.

use std::{
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{ProtocolVersion, ServerConfig, server::Acceptor};
use tokio::sync::Semaphore;
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{Agreed, Connection, Failed, Opened, Refused, Remote, Security, io::Stream};

/// Handshakes that are worked on at once: so many keep every core busy where a client's answer takes a
/// tenth of a second (2,000 a second), and few enough that the first of a crowd are done soon.
pub(super) const HANDSHAKES: usize = 256;

/// How long a handshake keeps its place: longer than a client far away takes to answer.
const HOLD: Duration = Duration::from_millis(500);

/// The handshakes of a listener.
#[derive(Debug)]
pub(super) struct Handshakes {
    places: Semaphore,
    within: Duration,
}

/// A connection that is secured.
pub(super) struct Secured {
    pub(super) transport: Transport,
    pub(super) connection: Connection,
    /// When what we presented expires.
    pub(super) expires: Option<SystemTime>,
}

/// A connection that is secured and that its service opened.
pub(super) struct Up<T> {
    pub(super) transport: Transport,
    pub(super) session: Arc<T>,
    /// When what either side proved expires.
    pub(super) expires: Option<SystemTime>,
}

pub(super) enum Transport {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
}

impl Secured {
    /// Hands it to its service, which says whether it may go on.
    pub(super) fn open<T>(
        self,
        open: impl FnOnce(Connection) -> Result<Opened<T>, Refused>,
    ) -> Result<Up<T>, Failed> {
        let opened = open(self.connection)?;
        Ok(Up {
            transport: self.transport,
            session: opened.session,
            expires: self.expires.into_iter().chain(opened.expires).min(),
        })
    }
}

impl Handshakes {
    /// Each has this long.
    pub(super) fn within(within: Duration) -> Self {
        Self {
            places: Semaphore::new(HANDSHAKES),
            within,
        }
    }

    /// What `security` asks for.
    pub(super) async fn secure(
        &self,
        stream: Stream,
        remote: &Remote,
        security: Security,
    ) -> Result<Secured, Failed> {
        let mut connection = Connection {
            remote: remote.clone(),
            local: stream.local(),
            peer_chain: Vec::new(),
            tls: None,
        };
        let tls = match security {
            Security::Unavailable(why) => return Err(Failed::Unavailable(why)),
            Security::Plaintext => {
                return Ok(Secured {
                    transport: Transport::Plain(stream),
                    connection,
                    expires: None,
                });
            }
            Security::Tls(tls) => tls,
        };
        let handshake = self.handshake(stream, tls.config);
        let stream = tokio::time::timeout(self.within, handshake)
            .await
            .map_err(|_| Failed::TimedOut(self.within))?
            .map_err(Failed::Handshake)?;
        let (_, session) = stream.get_ref();
        connection.peer_chain = session
            .peer_certificates()
            .map(|chain| chain.iter().map(|cert| cert.clone().into_owned()).collect())
            .unwrap_or_default();
        connection.tls = Some(Agreed {
            version: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                // The configurations of this process know no third.
                _ => "TLSv1.3",
            },
            server_name: session.server_name().map(str::to_owned),
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        });
        Ok(Secured {
            transport: Transport::Tls(Box::new(stream)),
            connection,
            expires: tls.expires,
        })
    }

    /// Some handshakes at a time, in the order their clients spoke. Were all of a crowd under way at once,
    /// each would end as late as the last, when its client has given up, and none would have been
    /// worth the work.
    async fn handshake(
        &self,
        stream: Stream,
        config: Arc<ServerConfig>,
    ) -> io::Result<TlsStream<Stream>> {
        // Who says nothing takes no place.
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let place = self.places.acquire().await;
        let mut rest = pin!(hello.into_stream(config));
        tokio::select! {
            ended = &mut rest => return ended,
            () = tokio::time::sleep(HOLD) => {}
        }
        // Nor does who is slow keep it: our own part of the work is done.
        drop(place);
        rest.await
    }
}

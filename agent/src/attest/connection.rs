//! One HTTP/2 connection to the authority, kept while it is used.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{error::ClientError, skew};
use crate::{
    config::value::{HttpsOrigin, Span},
    revocation::{List, issuers_of_peer},
};

/// Time to connect. Two SYN retransmissions fit; longer, and an agent that waits in vain here
/// would not be ready within 2 s of the authority's return.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the TLS and HTTP/2 handshakes: an authority in a cold start of ten thousand agents
/// makes us queue for seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection is probed after this time, so that a vanished authority is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Sends requests; cheap to clone.
pub(super) type Sender = http2::SendRequest<Full<Bytes>>;

/// A connection, and by whom the other end says it is certified.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) sender: Sender,
    /// SHA-256 of the public keys of the CA certificates it presented, hex.
    issuers: Vec<Box<str>>,
}

impl Connected {
    /// Whether no key of its chain is revoked.
    pub(super) fn is_trusted(&self, revoked: &List) -> bool {
        !self.issuers.iter().any(|key| revoked.revokes_issuer(key))
    }
}

/// Where the authority is and whose it must be.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: String,
    pub(super) origin: HttpsOrigin,
    pub(super) trust_domain: String,
}

impl Target {
    pub(super) fn unreachable(&self, why: impl ToString) -> ClientError {
        ClientError::Unreachable {
            authority: self.url.clone(),
            why: why.to_string(),
        }
    }

    pub(super) fn broken(&self, why: impl ToString) -> ClientError {
        ClientError::Broken {
            authority: self.url.clone(),
            why: why.to_string(),
        }
    }
}

impl Target {
    /// Whoever answers has a certificate by a key that was stolen.
    pub(super) fn revoked(&self) -> ClientError {
        not_the_authority(self, &"the key that signed its certificate is revoked")
    }
}

/// Connects, handshakes, and drives the connection in a task of its own until either side closes it.
pub(super) async fn open(
    target: &Target,
    tls: Arc<ClientConfig>,
) -> Result<Connected, ClientError> {
    let HttpsOrigin { host, port } = &target.origin;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| target.unreachable(format!("{host:?} is not a host name")))?;
    let address = (host.trim_matches(['[', ']']), *port);
    let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| target.unreachable(format!("no connection within {CONNECT_TIMEOUT:?}")))?
        .map_err(|why| target.unreachable(why))?;
    // Small requests and answers in turn: waiting to fill a segment only adds delay.
    tcp.set_nodelay(true)
        .map_err(|why| target.unreachable(why))?;

    let handshake = async {
        let tls = TlsConnector::from(tls)
            .connect(name, tcp)
            .await
            .map_err(|why| explain(target, &why))?;
        let (_, session) = tls.get_ref();
        let issuers = issuers_of_peer(session.peer_certificates().unwrap_or_default());
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|why| target.broken(why))?;
        Ok((issuers, sender, connection))
    };
    let (issuers, sender, connection) = timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .map_err(|_| target.unreachable(format!("no handshake within {HANDSHAKE_TIMEOUT:?}")))??;
    tokio::spawn(async move {
        // Whoever waits for an answer is told; a connection closed between requests is no news.
        if let Err(why) = connection.await {
            tracing::debug!(%why, "the connection to the authority ended");
        }
    });
    Ok(Connected { sender, issuers })
}

/// A failed handshake: the wrong party, the wrong time, or only the network.
fn explain(target: &Target, error: &io::Error) -> ClientError {
    let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return target.unreachable(error);
    };
    let clock = |is: &str, skew: String| ClientError::Clock {
        what: format!(
            "by this machine's clock the certificate of the authority at {} {is}",
            target.url
        ),
        skew,
    };
    let rustls::Error::InvalidCertificate(certificate) = tls else {
        return not_the_authority(target, tls);
    };
    match certificate {
        CertificateError::NotValidYetContext { not_before, .. } => {
            let by = apart(*not_before);
            let skew = format!("this machine's clock is at least {by} behind the authority's");
            clock("is not valid yet", skew)
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            let by = apart(*not_after);
            let skew = format!("this machine's clock is at least {by} ahead of the authority's");
            clock("has expired", skew)
        }
        CertificateError::NotValidYet | CertificateError::Expired => {
            clock("is not valid now", "one of the two clocks is off".into())
        }
        // rustls wraps what our verifier says in its own names of types.
        CertificateError::Other(why) => not_the_authority(target, &why.0),
        _ => not_the_authority(target, tls),
    }
}

fn not_the_authority(target: &Target, why: &dyn fmt::Display) -> ClientError {
    ClientError::NotTheAuthority {
        authority: target.url.clone(),
        trust_domain: target.trust_domain.clone(),
        why: why.to_string(),
    }
}

/// How far `time` is from now, at least.
fn apart(time: UnixTime) -> Span {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    skew::at_least(Duration::from_secs(now.abs_diff(time.as_secs())))
}

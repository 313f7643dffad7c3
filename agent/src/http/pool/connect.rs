//! Making a connection: dialled, TLS handshake, HTTP/1.1 or HTTP/2, or bytes.

use std::{
    error::Error,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock, atomic::AtomicUsize, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Driven, Inner, Tls,
    dial::{Dialled, dial},
    shelf::{Driver, Life, Made, Sender, Streams},
};
use crate::http::{origin::Stream, tls_files::not_after};

/// Bound of the read buffer, and so of a response's head: four times what browsers and most
/// servers allow. Buffers start at 8 KiB and grow only under load.
const MAX_BUFFER: usize = 64 * 1024;

/// HTTP/2 flow control: what one slow reader may make us hold, per stream and per connection. The
/// connection's is four times the stream's, so that one unread stream does not stall the others.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bound of an HTTP/2 response's headers.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// A ping after this long without a byte while requests are under way finds a peer across the network that acknowledges and
/// serves no more; one that vanished is found by TCP's keep-alive, much sooner. Rarer than once in five minutes: gRPC
/// servers in Go, Java and C++ take a third ping that comes sooner, with no answer in between, for an attack, and end the
/// connection with all its streams (`ENHANCE_YOUR_CALM`: gRFC A8, the servers' `MinTime`, `permitKeepAliveTime` and
/// `min_ping_interval_without_data`) …
const PING_AFTER: Duration = Duration::from_secs(5 * 60 + 10);
/// … when it does not answer within this time.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
pub(super) enum NotMade {
    /// It failed.
    Failed(String),
    /// It was made, and the peer is not admitted.
    Refused(String),
}

impl From<String> for NotMade {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// What a connection is made from.
pub(super) struct Connector {
    pub(super) upstream: Arc<Inner>,
    pub(super) tls: Option<Tls>,
    /// The address whose handshake is under way: if it comes to nothing, it is to blame.
    pub(super) at: Arc<OnceLock<SocketAddr>>,
}

/// A connection that is nobody else's: the bytes, and what the peer proved.
pub(super) struct Raw {
    pub(super) stream: Box<dyn Stream>,
    pub(super) proof: Proof,
}

/// What is known of a TLS peer.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// Its certificates, leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// When what either side proved expires.
    pub(super) ends: Option<Instant>,
}

impl Connector {
    /// Connects for HTTP; `driven` is held as long as the connection is open.
    pub(super) async fn connect(self, driven: Arc<Driven>) -> Result<Made, NotMade> {
        match self.dial().await? {
            Dialled::Tcp(stream) => self.speak(stream, driven).await,
            Dialled::Unix(stream) => self.speak(stream, driven).await,
        }
    }

    /// Connects for what only the two ends understand.
    pub(super) async fn open(self) -> Result<Raw, NotMade> {
        match self.dial().await? {
            Dialled::Tcp(stream) => self.secure(stream).await,
            Dialled::Unix(stream) => self.secure(stream).await,
        }
    }

    async fn dial(&self) -> Result<Dialled, String> {
        let Inner {
            address,
            proxy,
            failed,
            ..
        } = &*self.upstream;
        let dialled = dial(address, proxy.as_ref(), failed).await?;
        if let (Dialled::Tcp(stream), None) = (&dialled, proxy)
            && let Ok(address) = stream.peer_addr()
        {
            let _ = self.at.set(address);
        }
        Ok(dialled)
    }

    /// TLS where the destination has it, then HTTP.
    async fn speak<T>(&self, stream: T, driven: Arc<Driven>) -> Result<Made, NotMade>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let until = Instant::now() + jittered(self.upstream.keep.max_age);
        let Some(tls) = &self.tls else {
            let life = Life {
                generation: 0,
                until,
            };
            return Ok(match self.upstream.http2 {
                true => http2(stream, driven, life, Proof::default(), false).await?,
                false => http1(stream, driven, life, Proof::default()).await?,
            });
        };
        let (stream, proof) = handshake(stream, tls).await?;
        let life = Life {
            generation: tls.generation,
            until: proof.ends.map_or(until, |end| end.min(until)),
        };
        Ok(if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            http2(stream, driven, life, proof, true).await?
        } else {
            http1(stream, driven, life, proof).await?
        })
    }

    /// TLS where the destination has it.
    async fn secure<T: Stream + 'static>(&self, stream: T) -> Result<Raw, NotMade> {
        let Some(tls) = &self.tls else {
            let stream = Box::new(stream);
            let proof = Proof::default();
            return Ok(Raw { stream, proof });
        };
        let (stream, proof) = handshake(stream, tls).await?;
        let stream = Box::new(stream);
        Ok(Raw { stream, proof })
    }
}

/// A verified and admitted peer.
async fn handshake<T>(stream: T, tls: &Tls) -> Result<(TlsStream<T>, Proof), NotMade>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = TlsConnector::from(Arc::clone(&tls.config))
        .connect(tls.server_name.clone(), stream)
        .await
        .map_err(|error| format!("TLS handshake: {}", describe(error)))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    if let Some(admit) = &tls.admit {
        admit.says(chain).map_err(NotMade::Refused)?;
    }
    let ours = tls.expires.and_then(at);
    let proof = Proof {
        ends: [ours, peer_expiry(chain)].into_iter().flatten().min(),
        chain: match &tls.admit {
            Some(_) => chain.iter().map(|it| it.clone().into_owned()).collect(),
            None => Vec::new(),
        },
    };
    Ok((stream, proof))
}

async fn http1<T>(stream: T, driven: Arc<Driven>, life: Life, proof: Proof) -> Result<Made, String>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(describe)?;
    Ok(Made {
        sender: Sender::H1(sender),
        driver: drive(connection.with_upgrades(), driven),
        life,
        proof,
    })
}

async fn http2<T>(
    stream: T,
    driven: Arc<Driven>,
    life: Life,
    proof: Proof,
    across_the_network: bool,
) -> Result<Made, String>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(across_the_network.then_some(PING_AFTER))
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(describe)?;
    let streams: Streams = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
    let seen = Arc::clone(&streams);
    // Only the connection knows how many streams the peer allows: note it whenever it ran.
    let connection = poll_fn(move |cx| {
        let done = Pin::new(&mut connection).poll(cx);
        seen.store(connection.current_max_send_streams(), Ordering::Relaxed);
        done
    });
    Ok(Made {
        sender: Sender::H2(sender, streams),
        driver: drive(connection, driven),
        life,
        proof,
    })
}

/// Runs a connection to its end: it ends when it breaks, or when its senders are dropped and what
/// is under way is done.
fn drive(
    connection: impl Future<Output = hyper::Result<()>> + Send + 'static,
    driven: Arc<Driven>,
) -> Driver {
    let ended = Arc::new(OnceLock::new());
    let why = Arc::clone(&ended);
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            let _ = why.set(describe(error));
        }
        drop(driven);
    });
    Driver {
        task: task.abort_handle(),
        ended,
    }
}

/// When the peer's certificate expires.
fn peer_expiry(chain: &[CertificateDer<'_>]) -> Option<Instant> {
    let (_, leaf) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    at(not_after(&leaf)?)
}

/// A time of day, as a time to wait for.
fn at(time: SystemTime) -> Option<Instant> {
    let left = time.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now().checked_add(left)
}

/// `age` less up to a fifth.
fn jittered(age: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness: no jitter.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    age - age * u32::from(byte[0]) / (5 * 256)
}

/// An error with its causes, which hyper and rustls keep out of their own text.
pub(super) fn describe<E: Error>(error: E) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

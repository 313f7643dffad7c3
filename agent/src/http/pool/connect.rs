//! Making a connection: resolve, connect, TLS handshake, HTTP/1.1 or HTTP/2.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, OnceLock, atomic::AtomicUsize, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
};
use tokio_rustls::TlsConnector;

use super::{
    Address, Driven, Keep, Tls,
    shelf::{Driver, Life, Made, Sender, Streams},
};

/// Addresses of one name that are tried before giving up; each gets its share of the time.
const MAX_ADDRESSES: usize = 8;

/// Bound of the read buffer, and so of a response's head: four times what browsers and most
/// servers allow. Buffers start at 8 KiB and grow only under load.
const MAX_BUFFER: usize = 64 * 1024;

/// HTTP/2 flow control: what one slow reader may make us hold, per stream and per connection. The
/// connection's is four times the stream's, so that one unread stream does not stall the others.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bound of an HTTP/2 response's headers.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// A ping after this long without a byte while requests are under way finds a peer that vanished …
const PING_AFTER: Duration = Duration::from_secs(20);
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
pub(super) struct Connector<'a> {
    pub(super) address: &'a Address,
    pub(super) tls: Option<&'a Tls>,
    pub(super) keep: &'a Keep,
}

impl Connector<'_> {
    /// Connects; `driven` is held as long as the connection is open.
    pub(super) async fn connect(&self, driven: Driven) -> Result<Made, NotMade> {
        match self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(describe)?;
                self.speak(stream, driven).await
            }
            Address::Socket(address) => {
                let stream = TcpStream::connect(address).await.map_err(describe)?;
                self.speak(no_delay(stream), driven).await
            }
            Address::Name(name, port) => {
                let stream = self.connect_by_name(name, *port).await?;
                self.speak(no_delay(stream), driven).await
            }
        }
    }

    /// Tries the addresses of a name in turn, in the resolver's order. A dead one can't use up the
    /// time of those after it.
    async fn connect_by_name(&self, name: &str, port: u16) -> Result<TcpStream, String> {
        let deadline = Instant::now() + self.keep.connect;
        let addresses: Vec<_> = lookup_host((name, port))
            .await
            .map_err(|error| format!("looking up {name}: {error}"))?
            .take(MAX_ADDRESSES)
            .collect();
        let mut why = format!("{name} has no address");
        let mut left = u32::try_from(addresses.len()).unwrap_or(1);
        for address in addresses {
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            left = left.saturating_sub(1).max(1);
            why = match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => format!("{address}: {error}"),
                Err(_) => format!("{address}: no answer within {share:?}"),
            };
        }
        Err(why)
    }

    /// TLS where the destination has it, then HTTP.
    async fn speak<T>(&self, stream: T, driven: Driven) -> Result<Made, NotMade>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let until = Instant::now() + jittered(self.keep.max_age);
        let Some(tls) = self.tls else {
            let generation = 0;
            return Ok(http1(stream, driven, Life { generation, until }).await?);
        };
        let stream = TlsConnector::from(Arc::clone(&tls.config))
            .connect(tls.server_name.clone(), stream)
            .await
            .map_err(|error| format!("TLS handshake: {}", describe(error)))?;
        let (_, session) = stream.get_ref();
        if let Some(admit) = &tls.admit {
            let chain = session.peer_certificates().unwrap_or_default();
            admit.says(chain).map_err(NotMade::Refused)?;
        }
        let life = Life {
            generation: tls.generation,
            until: peer_expiry(session.peer_certificates()).map_or(until, |end| end.min(until)),
        };
        Ok(if session.alpn_protocol() == Some(b"h2") {
            http2(stream, driven, life).await?
        } else {
            http1(stream, driven, life).await?
        })
    }
}

async fn http1<T>(stream: T, driven: Driven, life: Life) -> Result<Made, String>
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
        driver: drive(connection, driven),
        life,
    })
}

async fn http2<T>(stream: T, driven: Driven, life: Life) -> Result<Made, String>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(PING_AFTER)
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
    })
}

/// Runs a connection to its end: it ends when it breaks, or when its senders are dropped and what
/// is under way is done.
fn drive(
    connection: impl Future<Output = hyper::Result<()>> + Send + 'static,
    driven: Driven,
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

/// Small writes go out at once: HTTP writes whole messages.
fn no_delay(stream: TcpStream) -> TcpStream {
    // Fails only on a connection that is already gone, which the next step finds out.
    let _ = stream.set_nodelay(true);
    stream
}

/// When the peer's certificate expires.
fn peer_expiry(chain: Option<&[rustls_pki_types::CertificateDer<'_>]>) -> Option<Instant> {
    let (_, leaf) = x509_parser::parse_x509_certificate(chain?.first()?).ok()?;
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).ok()?;
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    let left = end.duration_since(SystemTime::now()).unwrap_or_default();
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

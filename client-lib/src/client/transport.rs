//! Connections to the agent: kept, bounded, and replaced when the agent closed them.

use std::{
    error::Error as _,
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Request;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    CONNECTION_HEADER, ClientError, ResponseBody, address::AgentAddress, body::RequestBody,
    error::Exchange,
};

/// Requests under way at once; more wait for their turn, within their time-out. Far above what one
/// process keeps busy, far below its file descriptors.
pub(super) const MAX_IN_FLIGHT: usize = 256;

/// Idle HTTP/1.1 connections kept: enough that a steady load opens none.
const MAX_IDLE: usize = 32;

/// How long an idle connection is trusted: below the 60 s after which common servers close theirs,
/// so that few requests meet a connection that is just being closed.
const MAX_IDLE_AGE: Duration = Duration::from_secs(45);

/// Time to connect to the agent on this machine; it either listens or it does not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection whose answer was just read may take to become ready for the next request.
/// It needs one turn of its task, unless the request's own body is still being sent.
const READY_TIMEOUT: Duration = Duration::from_millis(5);

/// Most bytes of an answer's head, and of HTTP/1.1 read-ahead.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What is spoken to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// The way to one agent.
pub(super) struct Transport {
    address: AgentAddress,
    protocol: Protocol,
    in_flight: Arc<Semaphore>,
    /// HTTP/1.1: connections without a request, the most recently used last.
    idle: Mutex<Vec<Idle>>,
    /// HTTP/2: the one connection. Locked while connecting, so that only one is made.
    shared: tokio::sync::Mutex<Option<Shared>>,
    /// How many HTTP/2 connections there were.
    opened: AtomicU64,
}

#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    number: u64,
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

/// What an answer's body holds while it is read: its turn, and its connection.
pub(super) struct Lease {
    _turn: OwnedSemaphorePermit,
    connection: Option<(Arc<Transport>, http1::SendRequest<RequestBody>)>,
}

impl Transport {
    pub(super) fn new(address: AgentAddress, protocol: Protocol) -> Self {
        Self {
            address,
            protocol,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            idle: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
            opened: AtomicU64::new(0),
        }
    }

    pub(super) fn address(&self) -> &AgentAddress {
        &self.address
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Sends `request` and waits for the head of the answer; the caller limits the time.
    ///
    /// Sends it a second time, over a new connection, only if the first was a kept one that the
    /// agent closed before it answered, and either nothing of the request was sent or sending it
    /// twice does no harm.
    pub(super) async fn send(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        exchange: &Exchange,
    ) -> Result<http::Response<ResponseBody>, ClientError> {
        let turn = Arc::clone(&self.in_flight)
            .acquire_owned()
            .await
            .map_err(|_| self.unreachable(io::Error::other("the client is shut down")))?;
        let mut connection = match self.kept().await {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let spare = if connection.reused {
            replay(&request)
        } else {
            None
        };
        let mut answer = match connection.send(request).await {
            Ok(answer) => answer,
            Err(failed) if connection.reused => {
                let again = match failed.unsent {
                    Some(unsent) => unsent,
                    None if connection.was_closed(&failed.source).await => {
                        spare.ok_or_else(|| self.broken(exchange, failed.source))?
                    }
                    None => return Err(self.broken(exchange, failed.source)),
                };
                connection = self.connect().await?;
                connection
                    .send(again)
                    .await
                    .map_err(|failed| self.broken(exchange, failed.source))?
            }
            Err(failed) => return Err(self.broken(exchange, failed.source)),
        };
        let closes = answer.headers_mut().remove(CONNECTION_HEADER).is_some();
        if let (true, Sender::Http2(shared)) = (closes, &connection.sender) {
            self.retire(shared.number).await;
        }
        let lease = Lease {
            _turn: turn,
            connection: match connection.sender {
                Sender::Http1(sender) => Some((Arc::clone(self), sender)),
                Sender::Http2(_) => None,
            },
        };
        Ok(answer.map(|incoming| ResponseBody::new(incoming, lease)))
    }

    /// A connection from an earlier request, if one is fit for use.
    async fn kept(&self) -> Option<Connection> {
        match self.protocol {
            Protocol::Http1 => loop {
                let mut idle = self.pop_idle()?;
                if idle.since.elapsed() > MAX_IDLE_AGE {
                    continue;
                }
                if let Ok(Ok(())) = timeout(READY_TIMEOUT, idle.sender.ready()).await {
                    return Some(Connection {
                        sender: Sender::Http1(idle.sender),
                        reused: true,
                    });
                }
            },
            Protocol::Http2 => {
                let shared = self.shared.lock().await;
                let shared = shared.as_ref().filter(|it| !it.sender.is_closed())?;
                Some(Connection {
                    sender: Sender::Http2(shared.clone()),
                    reused: true,
                })
            }
        }
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        match self.protocol {
            Protocol::Http1 => Ok(Connection {
                sender: Sender::Http1(self.open(handshake_http1).await?),
                reused: false,
            }),
            Protocol::Http2 => {
                let mut shared = self.shared.lock().await;
                // Another request may have connected while this one waited for the lock.
                if let Some(shared) = shared.as_ref().filter(|it| !it.sender.is_closed()) {
                    return Ok(Connection {
                        sender: Sender::Http2(shared.clone()),
                        reused: true,
                    });
                }
                let made = Shared {
                    sender: self.open(handshake_http2).await?,
                    number: self.opened.fetch_add(1, Ordering::Relaxed),
                };
                *shared = Some(made.clone());
                Ok(Connection {
                    sender: Sender::Http2(made),
                    reused: false,
                })
            }
        }
    }

    /// The agent is about to close this connection: the next request opens another.
    async fn retire(&self, number: u64) {
        let mut shared = self.shared.lock().await;
        shared.take_if(|shared| shared.number == number);
    }

    /// Connects the socket and opens HTTP over it.
    async fn open<S, F>(&self, handshake: impl FnOnce(Box<dyn Io>) -> F) -> Result<S, ClientError>
    where
        F: Future<Output = hyper::Result<S>>,
    {
        let connecting = async {
            Ok(match &self.address {
                AgentAddress::Unix(path) => {
                    Box::new(UnixStream::connect(path).await?) as Box<dyn Io>
                }
                AgentAddress::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    // Requests are written whole: waiting for more would only add delay.
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
            })
        };
        let io = match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| self.unreachable(error))?,
            Err(_) => return Err(self.unreachable(io::ErrorKind::TimedOut.into())),
        };
        handshake(io)
            .await
            .map_err(|source| self.broken(&"opening a connection", source))
    }

    fn pop_idle(&self) -> Option<Idle> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    /// Kept connections, and whether each is still open.
    #[cfg(test)]
    pub(super) fn idle_open(&self) -> Vec<bool> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.iter().map(|idle| !idle.sender.is_closed()).collect()
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        ClientError::AgentUnreachable {
            agent: self.address.to_string(),
            source,
        }
    }

    fn broken(&self, what: &dyn fmt::Display, source: hyper::Error) -> ClientError {
        ClientError::Connection {
            agent: self.address.to_string(),
            what: what.to_string(),
            source,
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("address", &self.address)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// The answer was read to its end: its connection may carry the next request.
    pub(super) fn give_back(self) {
        let Some((transport, sender)) = self.connection else {
            return;
        };
        let mut idle = transport
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() <= MAX_IDLE_AGE);
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

/// A connection about to carry a request.
struct Connection {
    sender: Sender,
    reused: bool,
}

enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(Shared),
}

struct Failed {
    source: hyper::Error,
    /// The request, if no byte of it was sent.
    unsent: Option<Request<RequestBody>>,
}

impl Connection {
    async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<http::Response<Incoming>, Failed> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(shared) => shared.sender.try_send_request(request).await,
        }
        .map_err(|mut failed| Failed {
            unsent: failed.take_message(),
            source: failed.into_error(),
        })
    }

    /// Whether `error` means that the agent closed this connection without an answer.
    async fn was_closed(&self, error: &hyper::Error) -> bool {
        let io_failed = error.source().is_some_and(|cause| {
            cause.downcast_ref::<io::Error>().is_some_and(|cause| {
                matches!(
                    cause.kind(),
                    io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::NotConnected
                )
            })
        });
        if io_failed || error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return true;
        }
        match &self.sender {
            Sender::Http1(_) => false,
            // A stream can fail alone. Let the connection's task say whether it ended, too.
            Sender::Http2(shared) => {
                tokio::task::yield_now().await;
                shared.sender.is_closed()
            }
        }
    }
}

/// `request` once more, if sending it twice does no harm (RFC 9110 §9.2.2) and its body is at hand.
fn replay(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !request.method().is_idempotent() {
        return None;
    }
    let mut again = Request::new(request.body().replay()?);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// A connected socket of either kind.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn handshake_http1(io: Box<dyn Io>) -> hyper::Result<http1::SendRequest<RequestBody>> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(io))
        .await?;
    // Ends when the sender is gone or the agent closed; its error reaches the request under way.
    tokio::spawn(connection);
    Ok(sender)
}

async fn handshake_http2(io: Box<dyn Io>) -> hyper::Result<http2::SendRequest<RequestBody>> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .handshake(TokioIo::new(io))
        .await?;
    tokio::spawn(connection);
    Ok(sender)
}

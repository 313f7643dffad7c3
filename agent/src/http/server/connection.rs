//! One connection, from accept to its end.

use std::{
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use http::{
    HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, RETRY_AFTER},
};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Answer, CloseAfter, Failed, Limits, ListenerMetrics, MAX_HEAD_BYTES, MAX_STREAMS, Remote,
    Service,
    bounded::{Bounded, Unread},
    handshake::{Handshakes, Transport, Up},
    io::{Io, Stream},
    open::{Entered, Open},
    slots::Slot,
};
use crate::http::{answer::answer, body::Body, headers::X_WARIFU_CONNECTION, tunnel::Handover};

/// Bytes in flight to us on one HTTP/2 stream, and on all of a connection. The connection's is four
/// times the stream's, so that a stream nobody reads does not stall the others.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// Bytes an HTTP/2 stream buffers for a client that reads slowly.
const SEND_BUFFER: usize = 64 * 1024;

/// Requests that a client may take back before they were begun; with more its connection ends ("rapid reset",
/// CVE-2023-44487). A client that gives up a page takes back what it has just asked for, not hundreds.
const MAX_TAKEN_BACK: usize = 20;

/// Streams of one connection that a client's errors may make us reset; with more it ends ("MadeYouReset",
/// CVE-2025-8671). An error now and then is a race of a client in good faith, over a long life as well.
const MAX_RESETS_FOR_ERRORS: usize = 1024;

/// Bytes an HTTP/1.1 connection buffers, either way: a body of 64 KiB and its head are read at once.
const BUFFER: usize = 64 * 1024 + MAX_HEAD_BYTES;

/// How often a quiet HTTP/2 client is pinged, and how long it may take to answer.
const PING_EVERY: std::time::Duration = std::time::Duration::from_secs(30);
const PING_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// How long a connection beyond the limit may stay to hear that it is.
const TURN_AWAY: std::time::Duration = std::time::Duration::from_secs(2);

/// What all connections of a listener share.
pub(super) struct Server<S> {
    handshakes: Handshakes,
    service: Arc<S>,
    limits: Limits,
    metrics: ListenerMetrics,
    open: Arc<Open>,
    h1: http1::Builder,
    h2: http2::Builder<TokioExecutor>,
}

impl<S: Service> Server<S> {
    pub(super) fn new(
        service: Arc<S>,
        limits: Limits,
        metrics: ListenerMetrics,
        open: Arc<Open>,
    ) -> Self {
        let mut h1 = http1::Builder::new();
        // hyper's default of 100 headers stays: another number would cost an allocation per request.
        h1.timer(TokioTimer::new())
            .header_read_timeout(limits.idle)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(BUFFER);
        let mut h2 = http2::Builder::new(TokioExecutor::new());
        h2.timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(MAX_TAKEN_BACK)
            .max_local_error_reset_streams(MAX_RESETS_FOR_ERRORS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        Self {
            handshakes: Handshakes::within(limits.handshake),
            service,
            limits,
            metrics,
            open,
            h1,
            h2,
        }
    }

    /// Serves one connection to its end.
    pub(super) async fn connection(self: Arc<Self>, stream: Stream, remote: Remote, slot: Slot) {
        let _counted = self.metrics.accepted(slot.crowded);
        match self.establish(stream, &remote).await {
            Ok(up) => self.serve(up, slot.crowded).await,
            Err(why) => {
                self.metrics.failed(&why);
                self.service.failed(&remote, &why);
            }
        }
    }

    /// Handshake, then [`Service::open`].
    async fn establish(&self, stream: Stream, remote: &Remote) -> Result<Up<S::Session>, Failed> {
        let security = self.service.security();
        let secured = self.handshakes.secure(stream, remote, security).await?;
        secured.open(|connection| self.service.open(connection))
    }

    /// Speaks HTTP until either side has enough.
    async fn serve(&self, up: Up<S::Session>, crowded: bool) {
        let mut entered = self.enter(up.expires, crowded);
        let closer = entered.closer();
        let ends = entered.ends;
        let Entered { last, close, .. } = &mut entered;
        let (last, closer) = (&*last, &closer);
        let session = &up.session;
        let unread = Unread::default();
        let service = service_fn(|request: Request<Incoming>| {
            let version = request.version();
            let has_body = !request.body().is_end_stream();
            let session = Arc::clone(session);
            let (last, closer, unread) = (Arc::clone(last), closer.clone(), unread.clone());
            async move {
                // In a box of its own: hyper keeps room for what is returned here while a connection is idle, too, and this has
                // some 7 KiB.
                let mut response = match crowded {
                    false => Box::pin(S::call(session, request)).await,
                    true => too_many_connections(),
                };
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    if let Some(tunnel) = Handover::take(response.extensions_mut()) {
                        closer.becomes(tunnel);
                    }
                    return Answer::Ok(response);
                }
                unread.is(has_body && !response.status().is_success());
                let is_last = response.extensions_mut().remove::<CloseAfter>().is_some();
                if is_last {
                    closer.close(Instant::now());
                }
                let cut_short = version != Version::HTTP_2
                    && has_body
                    && matches!(
                        response.status(),
                        StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE
                    );
                if is_last || crowded || cut_short || last.load(Ordering::Relaxed) {
                    let name = match version {
                        Version::HTTP_2 => X_WARIFU_CONNECTION,
                        _ => CONNECTION,
                    };
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(name, close);
                }
                Answer::Ok(response)
            }
        });
        let (io, h2) = match up.transport {
            Transport::Tls(stream) => {
                // ALPN said so.
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                (Io::Tls(stream), h2)
            }
            Transport::Plain(stream) => {
                let first = tokio::time::timeout(self.limits.idle, Io::plain(stream));
                tokio::select! {
                    first = first => match first {
                        Ok(Ok(known)) => known,
                        Ok(Err(_)) | Err(_) => return,
                    },
                    _ = &mut *close => return,
                }
            }
        };
        let ended = if h2 {
            let connection = self.h2.serve_connection(TokioIo::new(io), service);
            drive(connection, http2::Connection::graceful_shutdown, close).await
        } else {
            let io = TokioIo::new(Bounded::new(io, unread.clone()));
            let connection = self.h1.serve_connection(io, service).with_upgrades();
            drive(
                connection,
                http1::UpgradeableConnection::graceful_shutdown,
                close,
            )
            .await
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
        // In this very task, so that it takes the connection's place, and a drain waits for it.
        if let Some(tunnel) = entered.tunnel() {
            tunnel.run(ends).await;
        }
    }

    fn enter(&self, expires: Option<SystemTime>, crowded: bool) -> Entered {
        let now = Instant::now();
        let crowded = crowded
            .then_some(TURN_AWAY)
            .and_then(|at| now.checked_add(at));
        let end = self
            .limits
            .end(now, expires)
            .into_iter()
            .chain(crowded)
            .min();
        self.open.enter(now, end)
    }
}

/// Runs `connection` to its end, and from when `close` says so to its graceful end.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    shut_down: impl FnOnce(Pin<&mut C>),
    close: &mut oneshot::Receiver<()>,
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        _ = close => {}
    }
    shut_down(connection.as_mut());
    connection.await
}

fn too_many_connections() -> Response<Body> {
    let message = "this server has as many connections as it may have; try again, or elsewhere";
    let mut response = answer(
        StatusCode::SERVICE_UNAVAILABLE,
        "too-many-connections",
        message,
    );
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

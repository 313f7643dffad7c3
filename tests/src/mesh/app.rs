//! The app behind an agent: tells what it was sent, and does what a test wants it to do.

use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, TRAILER},
};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use warifu::{
    Caller, CallerLayer,
    caller::{AppSocket, PeerCred, own_uid},
};

use super::until;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Bytes of a body that are kept; the rest is counted.
const KEPT: usize = 64 * 1024;

/// Requests that are kept, the last ones; a load sends more than a test can look at.
const REMEMBERED: usize = 1000;

/// A small HTTP/1.1 server.
///
/// - `* /echo`: the request's body and trailers back, as they come.
/// - `GET /bytes/N`: N bytes.
/// - everything else: JSON with `caller`, `method`, `target`, `headers`, `trailers` (lists of
///   name and value) and `bytes` (the body's length).
///
/// [`App::next`] replaces the next answer, [`App::hold`] makes answers wait.
#[derive(Debug)]
pub struct App {
    at: At,
    told: Arc<Told>,
    serving: AbortHandle,
}

/// A request as the app got it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub target: String,
    /// Every header line, before the caller layer took its own out.
    pub headers: HeaderMap,
    /// Who called, where the app has a caller layer and it admitted the request.
    pub caller: Option<Caller>,
    /// Why the caller layer refused, where it did.
    pub refused: Option<String>,
    /// The first bytes of the body, when it was read (never of `/echo`).
    pub body: Vec<u8>,
    /// Its trailers, when it was read.
    pub trailers: HeaderMap,
}

/// An answer in place of the usual one.
#[derive(Debug, Clone)]
pub struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    after: Duration,
}

/// Answers wait while this is held.
#[derive(Debug)]
#[must_use = "answers wait only while this is held"]
pub struct Held(Arc<Told>);

#[derive(Debug)]
enum At {
    Unix(PathBuf),
    Context {
        address: SocketAddr,
        key_file: PathBuf,
    },
    Plain(SocketAddr),
}

#[derive(Debug)]
enum Door {
    Unix(AppSocket),
    Tcp(TcpListener),
}

#[derive(Debug)]
struct Told {
    seen: Mutex<Log>,
    next: Mutex<VecDeque<Answer>>,
    held: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Log {
    /// How many there were in all.
    count: usize,
    last: VecDeque<Seen>,
    certificates: BTreeSet<String>,
}

impl App {
    pub(super) async fn unix(dir: &Path) -> Self {
        let dir = new_dir(dir);
        let socket = AppSocket::bind(dir.join("app.sock"), [own_uid().expect("our uid")]);
        let socket = socket.expect("the app's socket");
        let (at, layer) = (At::Unix(socket.path().to_owned()), socket.layer());
        Self::serve(at, Door::Unix(socket), Some(layer))
    }

    pub(super) async fn signed_context(dir: &Path) -> Self {
        let key_file = new_dir(dir).join("context.jwks");
        let layer = CallerLayer::signed_context(&key_file);
        let (listener, address) = listen().await;
        Self::serve(
            At::Context { address, key_file },
            Door::Tcp(listener),
            Some(layer),
        )
    }

    /// A server on TCP that knows nothing of agents.
    pub async fn plain() -> Self {
        let (listener, address) = listen().await;
        Self::serve(At::Plain(address), Door::Tcp(listener), None)
    }

    fn serve(at: At, door: Door, layer: Option<CallerLayer>) -> Self {
        let told = Arc::new(Told {
            seen: Mutex::default(),
            next: Mutex::default(),
            held: watch::Sender::new(false),
        });
        let shared = Arc::clone(&told);
        let serving = tokio::spawn(async move {
            // Ends with this task: an app that is gone has no connections.
            let mut connections = JoinSet::new();
            loop {
                let (layer, told) = (layer.clone(), Arc::clone(&shared));
                match &door {
                    Door::Unix(socket) => {
                        let (stream, peer) = socket.accept().await;
                        connections.spawn(connection(stream, Some(peer), layer, told))
                    }
                    Door::Tcp(listener) => {
                        let (stream, _) = listener.accept().await.expect("a connection");
                        connections.spawn(connection(stream, None, layer, told))
                    }
                };
                while connections.try_join_next().is_some() {}
            }
        });
        let serving = serving.abort_handle();
        Self { at, told, serving }
    }

    /// The next answer not yet replaced will be this one.
    pub fn next(&self, answer: Answer) {
        lock(&self.told.next).push_back(answer);
    }

    /// Makes every answer wait until what this returns is dropped.
    pub fn hold(&self) -> Held {
        self.told.held.send_replace(true);
        Held(Arc::clone(&self.told))
    }

    /// The requests so far, but no more than the last thousand.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.told.seen).last.iter().cloned().collect()
    }

    /// How many requests there were.
    pub fn count(&self) -> usize {
        lock(&self.told.seen).count
    }

    /// SHA-256 of every certificate a caller proved itself with.
    pub fn certificates(&self) -> BTreeSet<String> {
        lock(&self.told.seen).certificates.clone()
    }

    /// The last request.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the app was called")
    }

    /// Waits until the app has been sent `count` requests in all.
    pub async fn seen_count(&self, count: usize) {
        let seen = async || (self.count() >= count).then_some(());
        until(&format!("the app gets {count} requests"), seen).await;
    }

    /// Its address for `upstream:`, where it is on TCP.
    pub fn url(&self) -> String {
        match &self.at {
            At::Context { address, .. } | At::Plain(address) => format!("http://{address}"),
            At::Unix(path) => panic!("{} has no URL", path.display()),
        }
    }

    /// What an inbound listener says of it: `forward`, and `context` where it needs one.
    pub fn forward(&self) -> String {
        match &self.at {
            At::Unix(path) => format!("forward: \"unix:{}\"", path.display()),
            At::Plain(address) => format!("forward: \"http://{address}\""),
            At::Context { address, key_file } => format!(
                "forward: \"http://{address}\", context: {{key_file: \"{}\"}}",
                key_file.display()
            ),
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.send_replace(false);
    }
}

impl Answer {
    /// An answer without a body.
    pub fn status(status: u16) -> Self {
        Self {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            after: Duration::ZERO,
        }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("a header's value");
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Given after a while.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.after = wait;
        self
    }
}

async fn connection(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    peer: Option<PeerCred>,
    layer: Option<CallerLayer>,
    told: Arc<Told>,
) {
    let service = service_fn(|mut request: Request<Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let answer = answer(request, layer.clone(), Arc::clone(&told));
        async { Ok::<_, Infallible>(answer.await) }
    });
    // A connection that breaks is the other end's business.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    mut request: Request<Incoming>,
    layer: Option<CallerLayer>,
    told: Arc<Told>,
) -> Response<Body> {
    let headers = request.headers().clone();
    let admitted = layer.map_or(Ok(()), |layer| layer.admit(&mut request));
    let seen = Seen {
        method: request.method().clone(),
        target: request.uri().to_string(),
        headers,
        caller: Caller::from_extensions(request.extensions()).cloned(),
        refused: admitted.as_ref().err().map(ToString::to_string),
        body: Vec::new(),
        trailers: HeaderMap::new(),
    };
    let number = told.see(seen.clone());
    if let Err(refused) = admitted {
        return refused.response::<&str>().map(|body| whole(body.into()));
    }
    let mut held = told.held.subscribe();
    let _ = held.wait_for(|held| !held).await;
    let next = lock(&told.next).pop_front();
    if let Some(next) = next {
        tokio::time::sleep(next.after).await;
        let mut response = Response::new(whole(next.body));
        *response.status_mut() = next.status;
        *response.headers_mut() = next.headers;
        return response;
    }
    let path = request.uri().path();
    if path == "/echo" {
        let mut response = Response::new(request.into_body().boxed_unsync());
        // Without it HTTP/1.1 has no trailers.
        if let Some(trailer) = seen.headers.get(TRAILER) {
            response.headers_mut().insert(TRAILER, trailer.clone());
        }
        return response;
    }
    if let Some(count) = path.strip_prefix("/bytes/") {
        let body = Bytewise(count.parse().expect("a number of bytes"));
        return Response::new(body.boxed_unsync());
    }
    tell(request.into_body(), seen, number, &told).await
}

/// Reads the body, and tells all that was sent.
async fn tell(mut body: Incoming, mut seen: Seen, number: usize, told: &Told) -> Response<Body> {
    let mut length = 0;
    let (mut kept, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                length += data.len();
                let room = KEPT.saturating_sub(kept.len());
                kept.extend_from_slice(&data[..room.min(data.len())]);
            }
            Ok(Err(frame)) => trailers = frame.into_trailers().unwrap_or_default(),
            Err(why) => {
                let text = format!("the request's body broke off: {why}");
                let mut response = Response::new(whole(text.into()));
                *response.status_mut() = StatusCode::BAD_REQUEST;
                return response;
            }
        }
    }
    told.see_body(number, kept, trailers.clone());
    seen.trailers = trailers;
    let told = json!({
        "caller": seen.caller,
        "method": seen.method.as_str(),
        "target": seen.target,
        "headers": lines(&seen.headers),
        "trailers": lines(&seen.trailers),
        "bytes": length,
    });
    let mut response = Response::new(whole(told.to_string().into()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

impl Told {
    /// Its number.
    fn see(&self, seen: Seen) -> usize {
        let mut log = lock(&self.seen);
        let certificate = seen.caller.as_ref().and_then(|caller| caller.peer.as_ref());
        if let Some(peer) = certificate
            && !log.certificates.contains(&peer.cert_sha256)
        {
            log.certificates.insert(peer.cert_sha256.clone());
        }
        if log.last.len() == REMEMBERED {
            log.last.pop_front();
        }
        log.last.push_back(seen);
        log.count += 1;
        log.count - 1
    }

    fn see_body(&self, number: usize, body: Vec<u8>, trailers: HeaderMap) {
        let mut log = lock(&self.seen);
        let forgotten = log.count - log.last.len();
        let seen = number
            .checked_sub(forgotten)
            .and_then(|at| log.last.get_mut(at));
        if let Some(seen) = seen {
            (seen.body, seen.trailers) = (body, trailers);
        }
    }
}

fn lines(headers: &HeaderMap) -> Vec<[String; 2]> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        [
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        ]
    };
    headers.iter().map(line).collect()
}

fn whole(body: Bytes) -> Body {
    Full::new(body)
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// Bytes that are made as they are asked for.
struct Bytewise(usize);

impl hyper::body::Body for Bytewise {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        static CHUNK: [u8; 32 * 1024] = [b'w'; 32 * 1024];
        let size = CHUNK.len().min(self.0);
        self.0 -= size;
        let frame = || Ok(Frame::data(Bytes::from_static(&CHUNK[..size])));
        Poll::Ready((size > 0).then(frame))
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

fn new_dir(dir: &Path) -> &Path {
    fs::create_dir(dir).unwrap_or_else(|why| panic!("one app a name: {}: {why}", dir.display()));
    dir
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while it was locked")
}

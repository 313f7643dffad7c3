//! hyper on the app's side, with nothing but the hash that a signature needs: each body is held until it is
//! hashed, the hash goes along in a header, and nothing is signed. The floor for a proxy made of these
//! parts. This program starts itself again to be it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    process::Command,
    sync::Arc,
    task::{self, Poll},
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt;
use hyper::{
    Request,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::SendRequest,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

use super::signature::hex;
use crate::Result;

/// The argument that makes this program it.
pub(crate) const ARGUMENT: &str = "--internal-hashing-proxy";

/// Where the hash goes.
pub(super) const HASH: &str = "x-amz-content-sha256";

/// This program again.
pub(super) fn command(program: PathBuf, listen: SocketAddr, backend: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command
        .arg(ARGUMENT)
        .arg(listen.to_string())
        .arg(backend.to_string());
    command
}

/// Serves until it is killed.
pub(crate) fn run(listen: &str, backend: &str) -> Result<()> {
    let backend: SocketAddr = backend.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (connection, _) = listener.accept().await?;
            // A caller that breaks off ends this task; the floor keeps no account of it.
            tokio::spawn(async move { serve(connection, backend).await.ok() });
        }
    })
}

async fn serve(connection: TcpStream, backend: SocketAddr) -> Result<()> {
    connection.set_nodelay(true)?;
    let upstream = TcpStream::connect(backend).await?;
    upstream.set_nodelay(true)?;
    let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(upstream)).await?;
    tokio::spawn(driver);
    // One request at a time arrives on an HTTP/1.1 connection, so nobody ever waits for this lock.
    let sender: Arc<Mutex<SendRequest<Held>>> = Arc::new(Mutex::new(sender));
    let forward = service_fn(move |request: Request<Incoming>| {
        let sender = Arc::clone(&sender);
        async move {
            let (mut parts, mut body) = request.into_parts();
            let (mut hash, mut held) = (Context::new(&SHA256), VecDeque::new());
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                    hash.update(&data);
                    held.push_back(data);
                }
            }
            let hash = HeaderValue::try_from(hex(hash.finish().as_ref()));
            let hash = hash.map_err(io::Error::other)?;
            parts.headers.insert(HASH, hash);
            let request = Request::from_parts(parts, Held(held));
            let answer = sender.lock().await.send_request(request).await;
            answer.map_err(io::Error::other)
        }
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(connection), forward)
        .await?;
    Ok(())
}

/// A body's pieces, sent as they came.
struct Held(VecDeque<Bytes>);

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Frame::data).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

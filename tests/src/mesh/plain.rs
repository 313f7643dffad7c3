//! Asking over a unix socket, as curl does.

use std::path::Path;

use bytes::Bytes;
use http::{Method, Request, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::wait::DEADLINE;

/// One request over a connection of its own: status and text.
///
/// # Panics
/// When there is no answer.
pub async fn ask(socket: &Path, method: Method, path: &str) -> (u16, String) {
    let exchange = async {
        let stream = UnixStream::connect(socket).await?;
        let (mut send, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
                .await
                .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost");
        let request = request.body(Empty::new()).map_err(std::io::Error::other)?;
        let answer = send
            .send_request(request)
            .await
            .map_err(std::io::Error::other)?;
        let status = answer.status().as_u16();
        let body = answer
            .into_body()
            .collect()
            .await
            .map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>((status, text(&body.to_bytes())))
    };
    let answer = tokio::time::timeout(DEADLINE, exchange)
        .await
        .expect("an answer in time");
    answer.unwrap_or_else(|why| panic!("{path} at {}: {why}", socket.display()))
}

/// Bytes that are text.
///
/// # Panics
/// When they are not.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

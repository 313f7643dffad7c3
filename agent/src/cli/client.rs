//! Asks a running agent or authority of this machine, over its admin or probe address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use warifu_agent::config::value::Listen;

/// A process beside us answers at once, or is stuck.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A status page with thousands of routes is smaller.
const MAX_ANSWER: usize = 4 << 20;

/// Asks `GET path` of what listens on `listen`. The error says why there is no answer.
pub(super) fn get(listen: &Listen, path: &str) -> Result<(StatusCode, String), String> {
    get_with(listen, path, &HeaderMap::new())
}

/// As [`get`], with these headers.
pub(super) fn get_with(
    listen: &Listen,
    path: &str,
    headers: &HeaderMap,
) -> Result<(StatusCode, String), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("starting: {error}"))?;
    runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, ask(listen, path, headers))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
    })
}

async fn ask(
    listen: &Listen,
    path: &str,
    headers: &HeaderMap,
) -> Result<(StatusCode, String), String> {
    match listen {
        Listen::Unix(socket) => {
            let stream = UnixStream::connect(socket).await;
            exchange(
                stream.map_err(|error| error.to_string())?,
                "localhost",
                path,
                headers,
            )
            .await
        }
        Listen::Tcp(address) => {
            let address = reachable(*address);
            let stream = TcpStream::connect(address).await;
            let stream = stream.map_err(|error| error.to_string())?;
            exchange(stream, &address.to_string(), path, headers).await
        }
    }
}

async fn exchange<S>(
    stream: S,
    host: &str,
    path: &str,
    headers: &HeaderMap,
) -> Result<(StatusCode, String), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let mut request = Request::get(path);
    if let Some(all) = request.headers_mut() {
        all.extend(headers.clone());
    }
    let request = request
        .header(HOST, host)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    Ok((
        status,
        String::from_utf8_lossy(&body.to_bytes()).into_owned(),
    ))
}

/// What listens on every address is asked on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
    };

    use super::*;

    #[test]
    fn asks_over_a_unix_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream
                .write_all(b"HTTP/1.1 503 x\r\ncontent-length: 10\r\n\r\nnot ready\n")
                .unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let (status, body) = get(&Listen::Unix(path), "/readyz").unwrap();
        assert_eq!((status.as_u16(), body.as_str()), (503, "not ready\n"));
        assert!(
            server
                .join()
                .unwrap()
                .starts_with("GET /readyz HTTP/1.1\r\n")
        );
    }

    #[test]
    fn nobody_there_is_an_error() {
        assert!(get(&Listen::Unix("/nonexistent/x.sock".into()), "/readyz").is_err());
    }
}

//! The app behind every proxy: as cheap as can be, since it shares its core with the load.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{Result, client::parse_head};

/// Bytes in the body of an answer.
pub(crate) const BODY_BYTES: usize = 1_024;

/// What the load asks for: 1 KiB.
pub(crate) const PATH: &str = "/bench/1k";

/// Answers with the request's own head: the checks see what reached the app.
pub(crate) const ECHO_PATH: &str = "/bench/echo";

/// Serves on a free loopback port until the runtime ends.
pub(crate) async fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let answer = answer(&[b'x'; BODY_BYTES]);
        while let Ok((connection, _)) = listener.accept().await {
            let answer = answer.clone();
            // A proxy that closes its connection ends this task; it is no error.
            tokio::spawn(async move { serve(connection, &answer).await.ok() });
        }
    });
    Ok(address)
}

/// Requests one after the other; their bodies are read and thrown away.
async fn serve(mut connection: TcpStream, answer_1k: &[u8]) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(8 << 10);
    loop {
        let Some(head) = parse_head(&buffer)? else {
            if connection.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let whole = head.bytes + head.content_length.unwrap_or_default();
        let echo = head
            .start_line
            .contains(ECHO_PATH)
            .then(|| answer(buffer.get(..head.bytes).unwrap_or_default()));
        while buffer.len() < whole {
            if connection.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        connection
            .write_all(echo.as_deref().unwrap_or(answer_1k))
            .await?;
        buffer.drain(..whole);
    }
}

/// 200 with this body.
pub(crate) fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

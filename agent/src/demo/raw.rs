//! A request over a TLS connection of one's own: what somebody sends who does not go through an agent.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::EXCHANGE;

/// Sends `request` as it is and reads until the other side closes.
///
/// # Errors
/// Connecting, the handshake, or the exchange failed. A refused client certificate is an error here:
/// in TLS 1.3 the client learns of it when it first reads.
pub(super) async fn exchange(
    address: SocketAddr,
    mut config: ClientConfig,
    request: &str,
) -> io::Result<String> {
    // The request is text, so HTTP/1.1 is what the other side must speak.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let talk = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::from(address.ip());
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(EXCHANGE, talk).await?
}

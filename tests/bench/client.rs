//! A raw HTTP/1.1 client, plain or over mTLS. It does as little as it can: what it costs is taken from the
//! core that also runs the backend, and a full client would be the limit sooner.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{Result, certificates::Credential};

/// Connects to one proxy as one caller.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    /// None: the app beside its proxy.
    tls: Option<TlsConnector>,
}

/// A connection, one request at a time.
pub(crate) struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Client {
    /// A caller that presents `credential`, or no certificate.
    ///
    /// Every proxy gets the same offer and so negotiates the same: TLS 1.3, X25519 (the one group
    /// all of them have), AES-128-GCM, HTTP/1.1.
    pub(crate) fn new(address: SocketAddr, credential: Option<&Credential>) -> Result<Self> {
        let provider = Arc::new(CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            ..aws_lc_rs::default_provider()
        });
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
        let mut config = match credential {
            Some(own) => config.with_client_auth_cert(own.chain.clone(), own.key.clone_key())?,
            None => config.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            address,
            tls: Some(Arc::new(config).into()),
        })
    }

    /// An app that calls the proxy beside it.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// A new connection, with a full handshake.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        // Each source address has its own 28,000 ports, so that connections in TIME_WAIT run none
        // of them out; all of 127/8 is this machine.
        socket.bind(SocketAddr::new(next_source().into(), 0))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let name = ServerName::IpAddress(self.address.ip().into());
                Stream::Tls(Box::new(tls.connect(name, stream).await?))
            }
        };
        Ok(Connection {
            stream,
            buffer: Vec::with_capacity(8 << 10),
        })
    }
}

impl Connection {
    /// Sends a request and reads the answer away.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<()> {
        let (head, _) = self.round_trip(request).await?;
        if head != 200 {
            return Err(format!("the proxy answered {head}").into());
        }
        Ok(())
    }

    /// Sends a request and keeps the answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        let (status, body) = self.round_trip(request).await?;
        let body = self.buffer.get(body..).unwrap_or_default();
        Ok(Answer {
            status,
            body: String::from_utf8_lossy(body).into_owned(),
        })
    }

    /// Session tickets the proxy has sent on this connection.
    pub(crate) fn tickets(&self) -> u32 {
        match &self.stream {
            Stream::Plain(_) => 0,
            Stream::Tls(stream) => stream.get_ref().1.tls13_tickets_received(),
        }
    }

    /// Says goodbye (close_notify) and closes.
    pub(crate) async fn close(mut self) -> Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown().await?,
            Stream::Tls(stream) => stream.shutdown().await?,
        }
        Ok(())
    }

    /// Leaves the whole answer in `buffer`; returns its status and where its body starts.
    async fn round_trip(&mut self, request: &[u8]) -> Result<(u16, usize)> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(request).await?,
            Stream::Tls(stream) => {
                stream.write_all(request).await?;
                stream.flush().await?;
            }
        }
        self.buffer.clear();
        loop {
            if let Some(head) = parse_head(&self.buffer)? {
                let length = head
                    .content_length
                    .ok_or("an answer without content-length")?;
                if self.buffer.len() >= head.bytes + length {
                    let status = head
                        .start_line
                        .split(' ')
                        .nth(1)
                        .and_then(|s| s.parse().ok());
                    return Ok((status.ok_or("an answer without a status")?, head.bytes));
                }
            }
            let read = match &mut self.stream {
                Stream::Plain(stream) => stream.read_buf(&mut self.buffer).await?,
                Stream::Tls(stream) => stream.read_buf(&mut self.buffer).await?,
            };
            if read == 0 {
                return Err("the proxy closed the connection before answering".into());
            }
        }
    }
}

/// The text of a GET request.
pub(crate) fn request(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: payments\r\naccept: */*\r\n{headers}\r\n").into_bytes()
}

/// The bytes of a POST with this body.
pub(crate) fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: payments\r\naccept: */*\r\ncontent-type: application/octet-stream\r\n\
         content-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The head of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    /// The first line.
    pub(crate) start_line: &'a str,
    /// Its length with the empty line.
    pub(crate) bytes: usize,
    /// Of the body that follows.
    pub(crate) content_length: Option<usize>,
}

/// The head at the start of `buffer`, or `None` while it is incomplete.
pub(crate) fn parse_head(buffer: &[u8]) -> Result<Option<Head<'_>>> {
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = str::from_utf8(buffer.get(..end).unwrap_or_default())?;
    let (start_line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    let content_length = fields
        .split("\r\n")
        .filter_map(|field| field.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, value)| value.trim().parse())
        .transpose()?;
    Ok(Some(Head {
        start_line,
        bytes: end + 4,
        content_length,
    }))
}

fn next_source() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [.., last] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, 0, 1, last.clamp(1, 254))
}

/// Takes every server for the right one. The load's CPU is not measured, and verifying would only
/// make it the limit sooner; nothing is sent here that a wrong server could use.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_the_empty_line() {
        let message = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let head = parse_head(message).unwrap().unwrap();
        assert_eq!(head.start_line, "HTTP/1.1 200 OK");
        assert_eq!(head.content_length, Some(5));
        assert_eq!(message.len() - head.bytes, 5);
    }

    #[test]
    fn half_a_head_asks_for_more() {
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap(), None);
        assert_eq!(parse_head(b"").unwrap(), None);
    }

    #[test]
    fn a_length_that_is_no_number_is_an_error() {
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n").is_err());
    }
}

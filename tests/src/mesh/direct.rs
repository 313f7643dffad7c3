//! A connection to an inbound listener that says, byte for byte, what a test wants to say.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use warifu::{
    identity::Identity,
    tls::{self, Anchors, ExpectedPeer},
};

use super::{Agent, text, wait::DEADLINE};

/// HTTP/1.1 over (m)TLS. The server is verified as an agent would verify it.
#[derive(Debug)]
pub struct Direct {
    stream: TlsStream<TcpStream>,
    /// Read and not yet part of an answer.
    rest: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct RawAnswer {
    /// Its status.
    pub status: u16,
    /// Status line and header lines.
    pub head: String,
    /// The body, without its chunked coding.
    pub body: Vec<u8>,
}

impl Direct {
    /// Connects to the listener before `agent`'s app, presenting `identity`, or no certificate. A
    /// client whose certificate is refused learns it with its first answer (TLS 1.3).
    ///
    /// # Errors
    /// When the connection, or our half of the handshake, fails.
    pub async fn connect(agent: &Agent, identity: Option<&Identity>) -> io::Result<Self> {
        let bundle = &agent.identity().bundle;
        let id = agent.id.parse().expect("a SPIFFE ID");
        let config = match identity {
            Some(identity) => tls::client_config(identity, bundle, ExpectedPeer::Id(id)),
            None => {
                let roots = bundle.x509_authorities.clone();
                let anchors = Anchors {
                    roots,
                    ..Anchors::default()
                };
                tls::bootstrap_client_config(&anchors, &id)
            }
        };
        Self::connect_with(agent, config.map_err(io::Error::other)?).await
    }

    /// Connects with any configuration; HTTP/1.1 is negotiated.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(agent: &Agent, config: ClientConfig) -> io::Result<Self> {
        Self::connect_to(agent.inbound_address(), config).await
    }

    /// The same, to whatever listens at `address`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_to(address: SocketAddr, mut config: ClientConfig) -> io::Result<Self> {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tcp = TcpStream::connect(address).await?;
        // A first request would wait until the handshake's last bytes are acknowledged: 40 ms, where nothing answers them.
        tcp.set_nodelay(true)?;
        let name = ServerName::from(address.ip());
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await?;
        let rest = Vec::new();
        Ok(Self { stream, rest })
    }

    /// The certificates the server presented, leaf first.
    pub fn server_chain(&self) -> Vec<CertificateDer<'static>> {
        let (_, session) = self.stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        chain.iter().map(|cert| cert.clone().into_owned()).collect()
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// Reads one answer (not one to `HEAD`).
    ///
    /// # Errors
    /// When the connection ends before the answer does.
    pub async fn answer(&mut self) -> io::Result<RawAnswer> {
        timeout(DEADLINE, self.read_answer())
            .await
            .expect("an answer in time")
    }

    /// Sends a request, its lines ended by `\n` or `\r\n`, and reads the answer.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub async fn exchange(&mut self, request: &str) -> io::Result<RawAnswer> {
        let request = request.replace("\r\n", "\n").replace('\n', "\r\n");
        self.send(request).await?;
        self.answer().await
    }

    /// Waits until the server has closed the connection; what it sent before.
    pub async fn closed(&mut self) -> Vec<u8> {
        let mut last = std::mem::take(&mut self.rest);
        // Cut off or closed in order: closed.
        let _ = timeout(DEADLINE, self.stream.read_to_end(&mut last))
            .await
            .expect("an end in time");
        last
    }

    async fn read_answer(&mut self) -> io::Result<RawAnswer> {
        let head = text(&self.through(b"\r\n\r\n").await?);
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status in {head:?}")))?;
        let mut answer = RawAnswer {
            status,
            head,
            body: Vec::new(),
        };
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("content-length is a number");
            answer.body = self.exactly(length).await?;
        } else if answer.header("transfer-encoding").is_some() {
            loop {
                let line = text(&self.through(b"\r\n").await?);
                let size = usize::from_str_radix(line.trim(), 16).expect("the size of a chunk");
                if size == 0 {
                    while self.through(b"\r\n").await? != b"\r\n" {}
                    break;
                }
                answer.body.extend(self.exactly(size).await?);
                self.exactly(2).await?;
            }
        }
        Ok(answer)
    }

    async fn through(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self
                .rest
                .windows(end.len())
                .position(|window| window == end)
            {
                return self.exactly(at + end.len()).await;
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.rest.len() < length {
            self.more().await?;
        }
        let rest = self.rest.split_off(length);
        Ok(std::mem::replace(&mut self.rest, rest))
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.rest).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl RawAnswer {
    /// The value of a header line, the first of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        text(&self.body)
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {:?}", self.text()))
    }
}

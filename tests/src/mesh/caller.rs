//! A caller with TLS connections of its own, as any client that obeys the protocol has them.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{
    Method, Request, Response,
    header::{AUTHORIZATION, CONNECTION, HOST},
};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use warifu::tls::{self, ExpectedPeer};

use super::{Workload, load::Asks, wait::DEADLINE};

/// Keeps one connection, over which it asks one request at a time. It makes another where the server says that this one
/// ends, and asks again what was never sent: nothing else.
#[derive(Debug)]
pub struct Caller {
    who: Arc<Workload>,
    /// Replicas of one service, each as good as the other.
    places: Vec<SocketAddr>,
    /// Which of them has the connection, or is tried first.
    place: usize,
    server: String,
    http2: bool,
    bearer: Option<String>,
    connection: Option<Connection>,
    connections: usize,
}

/// What a [`Caller`] was told.
#[derive(Debug, Clone)]
pub struct Told {
    /// The status.
    pub status: u16,
    /// `x-warifu-reason`, where there is one.
    pub reason: String,
    /// The body, as text.
    pub body: String,
}

#[derive(Debug)]
enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Caller {
    /// Of `server` (a SPIFFE ID), which is at all of `places`; over HTTP/1.1.
    pub fn new(who: &Arc<Workload>, server: &str, places: &[SocketAddr]) -> Self {
        Self {
            who: Arc::clone(who),
            places: places.to_vec(),
            place: 0,
            server: server.to_owned(),
            http2: false,
            bearer: None,
            connection: None,
            connections: 0,
        }
    }

    /// Over HTTP/2 instead.
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// With a token.
    #[must_use]
    pub fn bearer(mut self, token: &str) -> Self {
        self.bearer = Some(format!("Bearer {token}"));
        self
    }

    /// Connections it has made so far.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// What became of a request that was sent, where that is no answer; or why nobody could be connected to.
    pub async fn ask(&mut self, method: Method, path: &str) -> Result<Told, String> {
        let asked = timeout(DEADLINE, self.ask_until_sent(&method, path)).await;
        asked.map_err(|_| "no answer in time".to_owned())?
    }

    async fn ask_until_sent(&mut self, method: &Method, path: &str) -> Result<Told, String> {
        loop {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            if connection.ready().await.is_err() {
                continue;
            }
            let request = self.request(method, path);
            let answer = match connection.send(request).await {
                Ok(answer) => answer,
                Err(mut lost) => {
                    let taken_back = lost.take_message().is_some();
                    let why = lost.into_error();
                    if taken_back || is_refused_by_goaway(&why) {
                        continue;
                    }
                    return Err(format!("{method} {path}: {why:?}"));
                }
            };
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|why| why.to_string())?;
            if head
                .headers
                .get(CONNECTION)
                .is_none_or(|said| said != "close")
            {
                self.connection = Some(connection);
            }
            let reason = head.headers.get("x-warifu-reason");
            let reason = reason.and_then(|reason| reason.to_str().ok());
            return Ok(Told {
                status: head.status.as_u16(),
                reason: reason.unwrap_or_default().to_owned(),
                body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            });
        }
    }

    fn request(&self, method: &Method, path: &str) -> Request<Full<Bytes>> {
        let body = match *method {
            Method::POST => Bytes::from_static(b"twelve euros"),
            _ => Bytes::new(),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        let uri = match self.http2 {
            true => format!("https://payments{path}"),
            false => path.to_owned(),
        };
        *request.uri_mut() = uri.parse().expect("a URI");
        let value = |text: &str| text.parse().expect("a header's value");
        if !self.http2 {
            request.headers_mut().insert(HOST, value("payments"));
        }
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(AUTHORIZATION, value(bearer));
        }
        request
    }

    /// To where it was connected before, else to the next one that is there.
    async fn connect(&mut self) -> Result<Connection, String> {
        let mut why = String::new();
        for _ in 0..self.places.len() {
            let place = self.places[self.place % self.places.len()];
            match self.connect_to(place).await {
                Ok(connection) => {
                    self.connections += 1;
                    return Ok(connection);
                }
                Err(error) => why = format!("{place}: {error}"),
            }
            self.place += 1;
        }
        Err(format!("nobody is there: {why}"))
    }

    async fn connect_to(&self, place: SocketAddr) -> io::Result<Connection> {
        let identity = self.who.identity();
        let server = ExpectedPeer::Id(self.server.parse().expect("a SPIFFE ID"));
        let config = tls::client_config(&identity, &identity.bundle, server);
        let mut config = config.map_err(io::Error::other)?;
        let alpn: &[u8] = if self.http2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![alpn.to_vec()];
        let tcp = TcpStream::connect(place).await?;
        let connector = TlsConnector::from(Arc::new(config));
        let tls = connector.connect(ServerName::from(place.ip()), tcp).await?;
        let io = TokioIo::new(tls);
        if self.http2 {
            let begun = http2::handshake(TokioExecutor::new(), io).await;
            let (sender, driver) = begun.map_err(io::Error::other)?;
            tokio::spawn(driver);
            return Ok(Connection::Http2(sender));
        }
        let begun = http1::handshake(io).await;
        let (sender, driver) = begun.map_err(io::Error::other)?;
        tokio::spawn(driver);
        Ok(Connection::Http1(sender))
    }
}

/// Whether GOAWAY said that the request came too late: whoever sent that has not looked at it (RFC 9113 §6.8).
fn is_refused_by_goaway(why: &hyper::Error) -> bool {
    let why = format!("{why:?}");
    why.contains("GoAway(") && why.contains("NO_ERROR, Remote")
}

impl Connection {
    async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

impl Asks for Caller {
    async fn ask(&mut self, post: bool) -> Result<(), String> {
        let method = if post { Method::POST } else { Method::GET };
        let told = Self::ask(self, method, "/charges").await?;
        match told.status {
            200 => Ok(()),
            status => Err(format!("{status} {}: {}", told.reason, told.body)),
        }
    }
}

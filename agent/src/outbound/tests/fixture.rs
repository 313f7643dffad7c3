//! An agent's outbound side with an app before it and upstreams behind it, all on loopback.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
};
use warifu::{
    Secret, SpiffeId, TrustDomain,
    identity::{TrustBundle, X509Svid},
};

use super::*;
use crate::{
    aws::{Payload, Presigned},
    config::{
        outbound::{Route as RouteConfig, RouteJwt, RouteMtls, RouteSigV4},
        value::Listen,
    },
    http::{
        pool::Upstream,
        server::{self, Drain, Limits, Listener, serve},
    },
    secrets::Secrets,
    token::{Mint, Minted, Minting, Wanted},
};

/// What has not happened by then does not happen: three times what a tunnel goes on for before it is asked again
/// whether it may.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);

pub(super) const ORDERS: &str = "spiffe://example.org/orders";
pub(super) const PAYMENTS: &str = "spiffe://example.org/payments";

// Routes.

pub(super) fn jwt(audience: &str) -> impl Fn(&mut RouteConfig) {
    let audience = audience.to_owned();
    move |route| {
        let audience = audience.clone();
        route.jwt = Some(RouteJwt { audience });
    }
}

pub(super) fn mtls(expect: &str) -> impl Fn(&mut RouteConfig) {
    let expect = SpiffeId::new(expect).unwrap();
    move |route| {
        let expect = expect.clone();
        route.mtls = Some(RouteMtls { expect });
    }
}

pub(super) fn sigv4(max_body: usize) -> impl Fn(&mut RouteConfig) {
    move |route| {
        route.sigv4 = Some(RouteSigV4 {
            max_body,
            ..RouteSigV4::new("execute-api")
        });
    }
}

// The agent.

pub(super) struct Agent {
    routes: Vec<RouteConfig>,
    tcp: Vec<config::outbound::TcpRoute>,
    identity: watch::Sender<Option<Arc<Identity>>>,
    revocations: identity::Revocations,
    pub(super) mint: Arc<Counting>,
    pub(super) signer: Arc<Stamp>,
}

/// An [`Agent`] that runs.
pub(super) struct Running {
    address: SocketAddr,
    client: Upstream,
    registry: Registry,
    _drain: Drain,
    identity: watch::Sender<Option<Arc<Identity>>>,
    pub(super) mint: Arc<Counting>,
    pub(super) signer: Arc<Stamp>,
}

impl Agent {
    pub(super) fn new() -> Self {
        Self {
            routes: Vec::new(),
            tcp: Vec::new(),
            identity: watch::Sender::new(None),
            revocations: identity::Revocations::default(),
            mint: Arc::default(),
            signer: Arc::default(),
        }
    }

    pub(super) fn identity(self, identity: Identity) -> Self {
        self.identity.send_replace(Some(Arc::new(identity)));
        self
    }

    pub(super) fn revocations(mut self, revocations: &identity::Revocations) -> Self {
        self.revocations = revocations.clone();
        self
    }

    pub(super) fn route(
        mut self,
        host: &str,
        upstream: &str,
        with: impl FnOnce(&mut RouteConfig),
    ) -> Self {
        let mut route = RouteConfig {
            host: host.to_owned(),
            upstream: upstream.parse().unwrap(),
            mtls: None,
            jwt: None,
            access_token: None,
            oauth: None,
            secret_header: None,
            cognito: None,
            aws_web_identity: None,
            sigv4: None,
            tls: None,
            proxy: None,
            protocol: Default::default(),
            timeouts: config::outbound::Timeouts {
                first_byte: Some(config::value::Span(Duration::from_secs(10))),
                ..Default::default()
            },
            retries: Default::default(),
        };
        with(&mut route);
        self.routes.push(route);
        self
    }

    pub(super) fn tcp(mut self, route: config::outbound::TcpRoute) -> Self {
        self.tcp.push(route);
        self
    }

    pub(super) fn rotate(&self, identity: Identity) {
        self.identity.send_replace(Some(Arc::new(identity)));
    }

    pub(super) fn build(&self) -> Result<(Arc<Outbound>, Registry), RouteError> {
        let mut registry = Registry::default();
        let signer: Arc<dyn Sign> = self.signer.clone();
        let signers = self.routes.iter().map(|r| (r.host.clone(), signer.clone()));
        let setup = Setup {
            config: &config::outbound::Outbound {
                listen: "127.0.0.1:0".parse().unwrap(),
                routes: self.routes.clone(),
                tcp: self.tcp.clone(),
            },
            identity: self.identity.subscribe(),
            revocations: self.revocations.clone(),
            tokens: &Tokens::new(Arc::new(Handle(self.mint.clone()))),
            secrets: &Secrets::new(None, Duration::from_secs(300)),
            signers: signers.collect(),
            web_identity: None,
            public_tls: public_tls().unwrap(),
            pool: &Pool::new(100),
        };
        let outbound = Outbound::new(setup, &mut registry)?;
        Ok((outbound, registry))
    }

    pub(super) async fn start(self) -> Running {
        self.start_speaking(false).await
    }

    /// With an app that speaks HTTP/2, as gRPC's do.
    pub(super) async fn start_with_http2(self) -> Running {
        self.start_speaking(true).await
    }

    async fn start_speaking(self, http2: bool) -> Running {
        let (outbound, mut registry) = self.build().unwrap();
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let &Listen::Tcp(address) = listener.address() else {
            unreachable!("it was bound to TCP");
        };
        let metrics = server::Metrics::new(&mut registry).listener("outbound");
        let (drain, draining) = server::drain();
        tokio::spawn(serve(
            listener,
            outbound,
            Limits::default(),
            metrics,
            draining,
        ));
        let destination = Destination {
            http2,
            ..Destination::new(Address::Socket(address), None)
        };
        Running {
            address,
            client: Pool::new(100).upstream(destination, Keep::APP),
            registry,
            _drain: drain,
            identity: self.identity,
            mint: self.mint,
            signer: self.signer,
        }
    }
}

impl Running {
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, SendError> {
        self.client.send(request, Duration::from_secs(10)).await
    }

    pub(super) async fn call(&self, request: Request<Body>) -> Answer {
        let (head, body) = self.send(request).await.unwrap().into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends these very bytes; the answer up to where it pauses.
    pub(super) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    pub(super) fn rotate(&self, identity: Identity) {
        self.identity.send_replace(Some(Arc::new(identity)));
    }

    pub(super) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(super) fn get(url: &str) -> Request<Body> {
    Request::get(url).body(Body::empty()).unwrap()
}

pub(super) fn post(url: &str, body: &'static str) -> Request<Body> {
    let request = Request::builder().method(Method::POST).uri(url);
    request
        .body(Bytes::from_static(body.as_bytes()).into())
        .unwrap()
}

/// Lets other tasks run until `done`.
pub(super) async fn until(mut done: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.expect("it never happened");
}

/// Mints `AUDIENCE.NUMBER`.
#[derive(Debug, Default)]
pub(super) struct Counting {
    pub(super) audiences: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Handle(Arc<Counting>);

impl Counting {
    pub(super) fn count(&self) -> usize {
        self.audiences.lock().unwrap().len()
    }
}

impl Mint for Handle {
    fn mint(&self, wanted: Wanted) -> Minting {
        let audience = wanted.audience().into_owned();
        let token = Secret::new(format!("{audience}.{}", self.0.count()));
        self.0.audiences.lock().unwrap().push(audience);
        let expires_at = SystemTime::now() + Duration::from_secs(300);
        Box::pin(async move {
            Ok(Minted {
                token,
                expires_at,
                scopes: Vec::new(),
            })
        })
    }
}

/// "Signs" with what it saw.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    count: AtomicUsize,
    hangs: AtomicBool,
    pub(super) headers: Mutex<HeaderMap>,
}

impl Stamp {
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Stamp {
    /// From now on it never comes to an end.
    pub(super) fn hang(&self) {
        self.hangs.store(true, Ordering::SeqCst);
    }
}

impl Sign for Stamp {
    fn sign<'a>(&'a self, parts: &'a mut Parts, payload: &'a Payload) -> Signing<'a, ()> {
        self.count.fetch_add(1, Ordering::SeqCst);
        *self.headers.lock().unwrap() = parts.headers.clone();
        let mut stamp = format!("signed {} {payload}", parts.uri);
        if parts.headers.remove(AUTHORIZATION).is_some() {
            stamp += ", again";
        }
        parts.headers.insert(AUTHORIZATION, stamp.parse().unwrap());
        let hangs = self.hangs.load(Ordering::SeqCst);
        Box::pin(async move {
            match hangs {
                true => std::future::pending().await,
                false => Ok(()),
            }
        })
    }

    fn presign<'a>(
        &'a self,
        parts: &'a mut Parts,
        _: &'a Payload,
        longest: Duration,
    ) -> Signing<'a, Presigned> {
        self.count.fetch_add(1, Ordering::SeqCst);
        parts.uri = format!("{}?signed", parts.uri).parse().unwrap();
        Box::pin(async move {
            Ok(Presigned {
                headers: vec![("x-amz-acl".to_owned(), "private".to_owned())],
                expires: std::time::UNIX_EPOCH + longest,
            })
        })
    }
}

// Upstreams.

pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
}

/// [`Peer::breaking_its_second_request`].
pub(super) struct Breaking {
    pub(super) address: SocketAddr,
    /// Of every request it saw.
    pub(super) authorizations: Arc<Mutex<Vec<String>>>,
}

/// A request as an upstream saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
    /// Who the TLS connection says is calling.
    pub(super) peer: Option<String>,
    /// The connection's number, from 0.
    pub(super) connection: usize,
}

type Respond = dyn Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync;

pub(super) fn ok(text: &'static str) -> Response<Full<Bytes>> {
    Response::new(Full::from(text))
}

pub(super) fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = ok("");
    *response.status_mut() = status;
    response
}

impl Peer {
    pub(super) async fn plain(
        respond: impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self::start(None, Arc::new(respond)).await
    }

    pub(super) async fn mtls(
        ca: &Ca,
        id: &str,
        respond: impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self::mtls_for(ca, ca, id, respond).await
    }

    /// Proves itself by `ca`, and believes callers that prove themselves by `callers`.
    pub(super) async fn mtls_for(
        ca: &Ca,
        callers: &Ca,
        id: &str,
        respond: impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let mut identity = ca.identity(id, 1);
        identity.bundle = callers.identity(id, 1).bundle;
        let config = warifu::tls::server_config(&identity, &[], &[ca.trust_domain()]).unwrap();
        Self::start(Some(Arc::new(config)), Arc::new(respond)).await
    }

    /// Over TLS, with no client certificate; answers everything.
    pub(super) async fn tls(config: rustls::ServerConfig) -> Self {
        Self::start(Some(Arc::new(config)), Arc::new(|_: &Seen| ok("ok"))).await
    }

    async fn start(tls: Option<Arc<rustls::ServerConfig>>, respond: Arc<Respond>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Self {
            address: listener.local_addr().unwrap(),
            tls: tls.is_some(),
            seen: Arc::default(),
        };
        let seen = peer.seen.clone();
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let server = Server {
                    seen: seen.clone(),
                    respond: respond.clone(),
                    connection: number,
                };
                number += 1;
                match tls.clone() {
                    None => drop(tokio::spawn(server.serve(stream, None))),
                    Some(tls) => drop(tokio::spawn(async move {
                        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
                        let Ok(stream) = acceptor.accept(stream).await else {
                            return;
                        };
                        let (_, session) = stream.get_ref();
                        let peer = session
                            .peer_certificates()
                            .map(|chain| warifu::tls::peer_id(&chain[0]).unwrap().to_string());
                        server.serve(stream, peer).await;
                    })),
                }
            }
        });
        peer
    }

    /// Sends the head and `first`; `second` when told.
    pub(super) async fn in_two_parts(
        first: &'static str,
        second: &'static str,
    ) -> (SocketAddr, oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (more, told) = oneshot::channel();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let length = first.len() + second.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{first}");
            stream.write_all(head.as_bytes()).await.unwrap();
            told.await.unwrap();
            stream.write_all(second.as_bytes()).await.unwrap();
        });
        (address, more)
    }

    /// Answers `ok`, but for the second request of its first connection, which it breaks off.
    pub(super) async fn breaking_its_second_request() -> Breaking {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let breaking = Breaking {
            address: listener.local_addr().unwrap(),
            authorizations: Arc::default(),
        };
        let authorizations = breaking.authorizations.clone();
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (authorizations, count) = (authorizations.clone(), AtomicUsize::new(0));
                let answer = service_fn(move |request: Request<Incoming>| {
                    let authorization = request.headers()[AUTHORIZATION].to_str().unwrap();
                    authorizations
                        .lock()
                        .unwrap()
                        .push(authorization.to_owned());
                    let breaks = connection == 0 && count.fetch_add(1, Ordering::SeqCst) == 1;
                    async move {
                        match breaks {
                            true => Err(std::io::Error::other("it breaks")),
                            false => Ok(ok("ok")),
                        }
                    }
                });
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
            }
        });
        breaking
    }

    /// Accepts, and says nothing.
    pub(super) async fn silent() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok(stream) = listener.accept().await {
                held.push(stream);
            }
        });
        address
    }

    pub(super) fn url(&self, base: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{base}", self.address)
    }

    pub(super) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(super) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }

    pub(super) fn only(&self) -> Seen {
        assert_eq!(self.count(), 1);
        self.last()
    }
}

struct Server {
    seen: Arc<Mutex<Vec<Seen>>>,
    respond: Arc<Respond>,
    connection: usize,
}

impl Server {
    async fn serve<T>(self, stream: T, peer: Option<String>)
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let h2 = peer.is_some(); // over TLS, as ALPN has it
        let this = Arc::new(self);
        let answer = service_fn(move |request: Request<Incoming>| {
            let (this, peer) = (this.clone(), peer.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?;
                let seen = Seen {
                    target: head.uri.to_string(),
                    headers: head.headers,
                    trailers: body.trailers().cloned().unwrap_or_default(),
                    body: body.to_bytes(),
                    peer,
                    connection: this.connection,
                };
                let response = (this.respond)(&seen);
                this.seen.lock().unwrap().push(seen);
                Ok::<_, hyper::Error>(response)
            }
        });
        let stream = TokioIo::new(stream);
        let _ = if h2 {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(stream, answer)
                .await
        } else {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(stream, answer)
                .await
        };
    }
}

// Identities.

pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    root: rustls_pki_types::CertificateDer<'static>,
}

impl Ca {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        Self { issuer, root }
    }

    pub(super) fn trust_domain(&self) -> TrustDomain {
        TrustDomain::new("example.org").unwrap()
    }

    pub(super) fn identity(&self, id: &str, generation: u64) -> Identity {
        self.leaf(id, generation, |_| {})
    }

    pub(super) fn expired(&self, id: &str, generation: u64) -> Identity {
        self.leaf(id, generation, |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        })
    }

    pub(super) fn identity_until(&self, id: &str, generation: u64, until: SystemTime) -> Identity {
        self.leaf(id, generation, |params| params.not_after = until.into())
    }

    fn leaf(
        &self,
        id: &str,
        generation: u64,
        with: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = CertificateParams::default();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        with(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = key.serialize_der().into();
        let bundle = TrustBundle {
            trust_domain: self.trust_domain(),
            x509_authorities: vec![self.root.clone()],
            jwt_authorities: Default::default(),
            sequence: 1,
            refresh_hint: Duration::from_secs(300),
        };
        Identity {
            svid: X509Svid::new(vec![leaf], key).unwrap(),
            bundle,
            further: Default::default(),
            federated: Default::default(),
            generation,
        }
    }
}

//! A listener with a caller in front and an app behind, on loopback.

use std::{
    cell::RefCell,
    net::SocketAddr,
    ops::Deref,
    time::{Duration, SystemTime},
};

use prometheus_client::registry::Registry;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, watch},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use warifu::{
    TrustDomain,
    identity::{Identity, TrustBundle, X509Svid},
    jwt::{KeySet, SigningKey, sign},
    tls,
};

use super::super::*;
use crate::{
    config::{
        inbound::{
            self as config, Accept, BoundCertificate, JwtAccept, JwtProfile, Rule, SubjectMatch,
        },
        outbound::Timeouts,
        value::{Forward, Span},
    },
    http::pool,
    http::server::Drain,
    telemetry::audit::Lines,
};

/// What has not happened by then does not happen: three times what a tunnel goes on for before it is asked again
/// whether it may.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);

pub(super) const PAYMENTS: &str = "spiffe://example.org/payments";
pub(super) const ORDERS: &str = "spiffe://example.org/orders";

/// A trust domain's authority.
pub(super) struct Ca {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    pub(super) jwt: SigningKey,
}

impl Ca {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            root,
            issuer: Issuer::new(params, key),
            jwt: SigningKey::generate(),
        }
    }

    pub(super) fn identity(&self, id: &str, generation: u64) -> Identity {
        self.identity_until(
            id,
            generation,
            SystemTime::now() + Duration::from_secs(3600),
        )
    }

    pub(super) fn identity_until(&self, id: &str, generation: u64, until: SystemTime) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.not_after = until.into();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let svid = X509Svid::new(vec![leaf], key).unwrap();
        Identity {
            bundle: self.bundle(svid.id().trust_domain().clone()),
            svid,
            further: Default::default(),
            federated: Default::default(),
            generation,
        }
    }

    pub(super) fn bundle(&self, trust_domain: TrustDomain) -> TrustBundle {
        TrustBundle {
            trust_domain,
            x509_authorities: vec![self.root.clone()],
            jwt_authorities: KeySet::new(vec![self.jwt.public().clone()]),
            sequence: 1,
            refresh_hint: Duration::from_secs(300),
        }
    }

    /// A JWT-SVID with further claims.
    pub(super) fn token(&self, subject: &str, audience: &str, claims: Value) -> String {
        let exp = SystemTime::now() + Duration::from_secs(300);
        let exp = exp
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut all = json!({"sub": subject, "aud": audience, "exp": exp});
        all.as_object_mut()
            .unwrap()
            .extend(claims.as_object().unwrap().clone());
        sign(&self.jwt, "JWT", &all)
    }
}

/// What an app does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum App {
    /// Answers this.
    Answers(&'static str),
    /// Never answers.
    Silent,
    /// Closes the connection.
    Closes,
    /// Is not there.
    Absent,
}

pub(super) const OK: App = App::Answers("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");

/// A listener, its app and its callers.
pub(super) struct Fixture {
    pub(super) ca: Ca,
    pub(super) handle: Handle,
    pub(super) audit: Lines,
    pub(super) drain: Drain,
    pub(super) identity: watch::Sender<Option<Arc<Identity>>>,
    pub(super) revocations: identity::Revocations,
    pub(super) registry: Registry,
    /// Every request the app got, as it came over the wire.
    pub(super) requests: mpsc::UnboundedReceiver<String>,
    config: RefCell<config::Inbound>,
    address: SocketAddr,
}

pub(super) fn config(forward: Forward) -> config::Inbound {
    config::Inbound {
        listen: Listen::Tcp(([127, 0, 0, 1], 0).into()),
        tls: None,
        permissive: None,
        forward: Some(forward),
        proxy_protocol: None,
        ext_authz: None,
        limits: Default::default(),
        app_port_check: true,
        app_protocol: Default::default(),
        timeouts: Timeouts {
            first_byte: Some(Span(Duration::from_millis(200))),
            ..Timeouts::default()
        },
        accept: vec![Accept::Mtls {
            trust_domains: vec![TrustDomain::new("example.org").unwrap()],
        }],
        allow: vec![allow(Some(ORDERS), None, "* /**")],
        deny: Vec::new(),
        rego: None,
        trusted_hops: 0,
        forward_claims: Default::default(),
        client_cert_headers: vec![config::ClientCertHeader::Xfcc],
        context: None,
        max_connection_age: Span(Duration::from_secs(3600)),
        max_connections: 100,
    }
}

pub(super) fn allow(peer: Option<&str>, scope: Option<&str>, to: &str) -> Rule {
    let subject = SubjectMatch {
        scope: scope.map(str::to_owned),
        ..SubjectMatch::default()
    };
    Rule {
        peer: peer.map(|id| id.parse().unwrap()),
        subject: scope.map(|_| subject),
        to: vec![to.parse().unwrap()],
        ..Rule::default()
    }
}

pub(super) fn accept_tokens(config: &mut config::Inbound) {
    config.accept.push(Accept::Jwt(JwtAccept {
        name: "jwt-svid".to_owned(),
        profile: JwtProfile::JwtSvid {
            audiences: vec!["payments".to_owned()],
            trust_domains: Vec::new(),
        },
        max_lifetime: None,
        bound_certificate: BoundCertificate::Checked,
    }));
}

impl Fixture {
    pub(super) async fn new() -> Self {
        Self::with(OK, |_| {}).await
    }

    pub(super) async fn with(app: App, change: impl FnOnce(&mut config::Inbound)) -> Self {
        Self::with_revocations(app, identity::Revocations::default(), change).await
    }

    /// Of requests that are allowed, one in so many has its line.
    pub(super) async fn sampled(
        allowed_one_in: NonZeroU32,
        change: impl FnOnce(&mut config::Inbound),
    ) -> Self {
        let revocations = identity::Revocations::default();
        Self::start(OK, revocations, allowed_one_in, change).await
    }

    pub(super) async fn with_revocations(
        app: App,
        revocations: identity::Revocations,
        change: impl FnOnce(&mut config::Inbound),
    ) -> Self {
        Self::start(app, revocations, NonZeroU32::MIN, change).await
    }

    pub(super) async fn start(
        app: App,
        revocations: identity::Revocations,
        allowed_one_in: NonZeroU32,
        change: impl FnOnce(&mut config::Inbound),
    ) -> Self {
        let (app, requests) = start_app(app).await;
        let mut config = config(Forward::Tcp(app));
        change(&mut config);
        let ca = Ca::new();
        let identity = watch::Sender::new(Some(Arc::new(ca.identity(PAYMENTS, 1))));
        let (audit, lines) = Audit::memory();
        let (drain, draining) = server::drain();
        let mut registry = Registry::default();
        let environment = Environment {
            identity: identity.subscribe(),
            revocations: revocations.clone(),
            issuers: Issuers::default(),
            secrets: Secrets::new(None, Duration::from_secs(300)),
            evaluations: Evaluations::default(),
            pool: Pool::new(pool::MAX_CONNECTIONS),
            audit,
            counts: None,
            metrics: Metrics::new(&mut registry),
            server_metrics: server::Metrics::new(&mut registry),
            draining,
        };
        let listener = Listener::bind(&config.listen).unwrap();
        let handle = start(&config, allowed_one_in, listener, &environment).unwrap();
        let Listen::Tcp(address) = *handle.address() else {
            panic!()
        };
        Self {
            ca,
            handle,
            audit: lines,
            drain,
            identity,
            revocations,
            registry,
            requests,
            config: RefCell::new(config),
            address,
        }
    }

    /// Has the listener serve by its configuration with a `change`, as a reload does.
    pub(super) async fn reload(&self, change: impl FnOnce(&mut config::Inbound)) {
        self.try_reload(change).await.unwrap();
    }

    pub(super) async fn try_reload(
        &self,
        change: impl FnOnce(&mut config::Inbound),
    ) -> Result<(), StartError> {
        let mut config = self.config.borrow().clone();
        change(&mut config);
        let made = self.handle.live().prepare(&config, NonZeroU32::MIN).await?;
        made.apply();
        self.config.replace(config);
        Ok(())
    }

    /// A connection of `id` that speaks HTTP/1.1.
    pub(super) async fn caller(&self, id: &str) -> Caller1 {
        Caller1(self.connect(self.client(id), b"http/1.1").await)
    }

    /// A connection without a client certificate.
    pub(super) async fn nobody(&self) -> Caller1 {
        let expected = PAYMENTS.parse().unwrap();
        let anchors = tls::Anchors {
            roots: vec![self.ca.root.clone()],
            ..Default::default()
        };
        let client = tls::bootstrap_client_config(&anchors, &expected).unwrap();
        Caller1(self.connect(client, b"http/1.1").await)
    }

    pub(super) fn client(&self, id: &str) -> ClientConfig {
        let identity = self.ca.identity(id, 1);
        let expected = tls::ExpectedPeer::Id(PAYMENTS.parse().unwrap());
        tls::client_config(&identity, &identity.bundle, expected).unwrap()
    }

    pub(super) async fn connect(&self, client: ClientConfig, alpn: &[u8]) -> TlsStream<TcpStream> {
        self.try_connect(client, alpn).await.unwrap()
    }

    pub(super) async fn try_connect(
        &self,
        mut client: ClientConfig,
        alpn: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        client.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let name = "localhost".try_into().unwrap();
        TlsConnector::from(Arc::new(client))
            .connect(name, stream)
            .await
    }

    /// The next request that reached the app: its lines, in lower case, and its body.
    pub(super) async fn seen(&mut self) -> Message {
        let request = tokio::time::timeout(DEADLINE, self.requests.recv()).await;
        Message::new(request.expect("a request reaches the app").unwrap())
    }

    /// Whether nothing (more) reached the app.
    pub(super) fn nothing_seen(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }

    /// The last line of the audit log.
    pub(super) fn audited(&self) -> Value {
        self.audit.all().pop().unwrap()
    }
}

/// A head and a body.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) first: String,
    /// Sorted; names in lower case.
    pub(super) headers: Vec<String>,
    pub(super) body: String,
}

impl Message {
    fn new(text: String) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.split("\r\n").map(str::to_owned);
        let first = lines.next().unwrap();
        let mut headers: Vec<_> = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap();
                format!("{}: {}", name.to_ascii_lowercase(), value.trim())
            })
            .collect();
        headers.sort();
        Self {
            first,
            headers,
            body: body.to_owned(),
        }
    }

    /// The values of `name`.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        let prefix = format!("{name}: ");
        self.headers
            .iter()
            .filter_map(|line| line.strip_prefix(&prefix))
            .collect()
    }

    /// The status of a response.
    pub(super) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Deref for Message {
    type Target = str;

    fn deref(&self) -> &str {
        &self.body
    }
}

/// A caller that writes what it likes.
pub(super) struct Caller1(TlsStream<TcpStream>);

impl Caller1 {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self(stream)
    }

    /// One response to one request.
    pub(super) async fn ask(&mut self, request: &str) -> Message {
        self.send(request).await;
        self.response().await.unwrap()
    }

    pub(super) async fn get(&mut self, path: &str) -> Message {
        self.get_with(path, "").await
    }

    pub(super) async fn get_with(&mut self, path: &str, headers: &str) -> Message {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nhost: payments\r\n{headers}\r\n"
        ))
        .await
    }

    pub(super) async fn send(&mut self, text: impl AsRef<[u8]>) {
        // It may have been closed already.
        let _ = self.0.write_all(text.as_ref()).await;
        let _ = self.0.flush().await;
    }

    /// `None` where the connection ends instead.
    pub(super) async fn response(&mut self) -> Option<Message> {
        let response = tokio::time::timeout(DEADLINE, read_message(&mut self.0)).await;
        response.expect("a response, or the end").map(Message::new)
    }
}

pub(super) async fn start_app(app: App) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (sender, requests) = mpsc::unbounded_channel();
    if app == App::Absent {
        // Bound and not listening: no one else gets the port, and connections are refused.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(socket);
        });
        return (address, requests);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                while let Some(request) = read_message(&mut stream).await {
                    let _ = sender.send(request);
                    match app {
                        App::Answers(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                        App::Silent => std::future::pending().await,
                        App::Closes | App::Absent => return,
                    }
                }
            });
        }
    });
    (address, requests)
}

/// One message off the wire, chunks and trailers as they came; `None` at the end.
async fn read_message(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    let ended = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let head = head.to_ascii_lowercase();
        let ended = if head.contains("transfer-encoding: chunked") {
            let end = body
                .strip_prefix("0\r\n")
                .or(body.split_once("\r\n0\r\n").map(|it| it.1));
            end.is_some_and(|trailers| trailers == "\r\n" || trailers.ends_with("\r\n\r\n"))
        } else {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            body.len() >= length.map_or(0, |length| length.parse().unwrap())
        };
        ended.then_some(())
    };
    while ended(&text).is_none() {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) => text.extend_from_slice(&byte),
            _ => return None,
        }
    }
    Some(String::from_utf8(text).unwrap())
}

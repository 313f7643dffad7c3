//! The API on a real socket, over an identity that the test publishes, and a client that adds nothing to what it
//! is told to send.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::{net::UnixStream, sync::watch, task::JoinHandle};
use tonic::body::Body;
use warifu::{
    Secret,
    identity::{FurtherSvid, Identity, TrustBundle, X509Svid},
    jwt::{KeySet, SigningKey, sign},
};

use super::super::{Api, Metrics, serve};
use crate::{
    config::{local::Clients, value::Listen},
    http::server::{self, Drain, Listener},
    identity,
    local::{
        asker::Door,
        calls::{MAX_STREAMS, Places},
        grpc::Services,
        proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient,
        sds,
    },
    token::{Mint, MintError, Minted, Minting, Objection, Tokens, Wanted},
};

pub(super) type Client = SpiffeWorkloadApiClient<Transport>;

pub(super) const ID: &str = "spiffe://example.org/orders";

/// Issues identities.
pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    pub(super) jwt: SigningKey,
}

impl Ca {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            root,
            jwt: SigningKey::generate(),
        }
    }

    pub(super) fn bundle(&self, trust_domain: &str) -> TrustBundle {
        TrustBundle {
            trust_domain: trust_domain.parse().unwrap(),
            x509_authorities: vec![self.root.clone()],
            jwt_authorities: KeySet::new(vec![self.jwt.public().clone()]),
            sequence: 1,
            refresh_hint: Duration::from_secs(300),
        }
    }

    fn svid(&self, id: &str) -> X509Svid {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        X509Svid::new(vec![leaf], key.serialize_der().into()).unwrap()
    }

    pub(super) fn identity(&self, generation: u64, federated: &[TrustBundle]) -> Identity {
        Identity {
            svid: self.svid(ID),
            bundle: self.bundle("example.org"),
            further: Default::default(),
            federated: federated.into(),
            generation,
        }
    }

    /// With further identities, and their hints.
    pub(super) fn several(&self, generation: u64, further: &[(&str, Option<&str>)]) -> Identity {
        let further = further.iter().map(|(id, hint)| FurtherSvid {
            svid: self.svid(id),
            hint: hint.map(str::to_owned),
        });
        Identity {
            further: further.collect(),
            ..self.identity(generation, &[])
        }
    }

    /// The same as a snapshot of another generation.
    pub(super) fn again(&self, identity: &Identity, generation: u64) -> Identity {
        Identity {
            svid: identity.svid.clone(),
            bundle: identity.bundle.clone(),
            further: Arc::clone(&identity.further),
            federated: Arc::clone(&identity.federated),
            generation,
        }
    }

    pub(super) fn token(&self, subject: &str, audiences: &[String], life: Duration) -> String {
        self.token_until(subject, audiences, SystemTime::now() + life)
    }

    pub(super) fn token_until(
        &self,
        subject: &str,
        audiences: &[String],
        end: SystemTime,
    ) -> String {
        let exp = end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let claims = serde_json::json!({
            "sub": subject, "aud": audiences, "exp": exp.as_secs(), "further": {"of": [1, true, null, "text"]},
        });
        sign(&self.jwt, "JWT", &claims)
    }
}

/// What the authority says to those who want a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authority {
    Grants,
    Refuses,
    IsAway,
}

/// Mints with the key of a [`Ca`].
pub(super) struct Minter {
    ca: Arc<Ca>,
    pub(super) authority: Mutex<Authority>,
    pub(super) mints: AtomicUsize,
    /// SPIFFE IDs that get no token.
    pub(super) refused: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Minter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Minter")
    }
}

#[derive(Debug)]
struct Handle(Arc<Minter>);

impl Mint for Handle {
    fn mint(&self, wanted: Wanted) -> Minting {
        let minter = Arc::clone(&self.0);
        minter.mints.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let audience = wanted.audience().into_owned();
            let Wanted::JwtSvid { audiences, of } = wanted else {
                panic!("{wanted:?}")
            };
            let life = Duration::from_secs(300);
            let subject = of.map_or_else(|| ID.to_owned(), |of| of.to_string());
            if minter.refused.lock().unwrap().contains(&subject) {
                return Err(MintError::Refused {
                    audience,
                    to: Objection::Audience,
                    why: "add it to `audiences` of rules[0]".to_owned(),
                });
            }
            match *minter.authority.lock().unwrap() {
                Authority::Grants => Ok(Minted {
                    token: Secret::new(minter.ca.token(&subject, &audiences, life)),
                    expires_at: SystemTime::now() + life,
                    scopes: Vec::new(),
                }),
                Authority::Refuses => Err(MintError::Refused {
                    audience,
                    to: Objection::Audience,
                    why: "add it to `audiences` of rules[0]".to_owned(),
                }),
                Authority::IsAway => Err(MintError::Unavailable {
                    audience,
                    why: "the authority is away".to_owned(),
                }),
            }
        })
    }
}

/// The API, served.
pub(super) struct World {
    pub(super) metrics: Metrics,
    registry: Registry,
    pub(super) ca: Arc<Ca>,
    pub(super) identity: watch::Sender<Option<Arc<Identity>>>,
    pub(super) renewal: watch::Sender<identity::Status>,
    pub(super) minter: Arc<Minter>,
    pub(super) drain: Drain,
    pub(super) serving: JoinHandle<usize>,
    pub(super) address: Listen,
    _directory: TempDir,
}

impl World {
    /// Starting: there is no identity yet.
    pub(super) fn new() -> Self {
        Self::with(&Clients::default())
    }

    pub(super) fn with(clients: &Clients) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listen = Listen::Unix(directory.path().join("workload.sock"));
        Self::at(&listen, clients, directory)
    }

    pub(super) fn at(listen: &Listen, clients: &Clients, directory: TempDir) -> Self {
        Self::made(listen, clients, directory, Places::new(MAX_STREAMS))
    }

    /// With an identity, and places for `most` streams.
    pub(super) fn with_places(most: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listen = Listen::Unix(directory.path().join("workload.sock"));
        let world = Self::made(&listen, &Clients::default(), directory, Places::new(most));
        world.issue(1);
        world
    }

    fn made(listen: &Listen, clients: &Clients, directory: TempDir, places: Places) -> Self {
        let ca = Arc::new(Ca::new());
        let minter = Arc::new(Minter {
            ca: Arc::clone(&ca),
            authority: Mutex::new(Authority::Grants),
            mints: AtomicUsize::new(0),
            refused: Mutex::default(),
        });
        let tokens = Tokens::new(Arc::new(Handle(Arc::clone(&minter))));
        let (identity, current) = watch::channel(None);
        let (renewal, status) = watch::channel(identity::Status::default());
        let (drain, draining) = server::drain();
        let listener = Listener::bind_shared(listen).unwrap();
        let address = listener.address().clone();
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let of_sds = sds::Metrics::new(&mut registry);
        let api = Api::new(
            current.clone(),
            status.clone(),
            tokens.requested(),
            "internal".to_owned(),
            (places.clone(), metrics.clone()),
        );
        let secrets = (places, of_sds);
        let secrets = sds::service(current.clone(), status, draining.clone(), secrets);
        let services = Services::new(draining).with(api).with(secrets);
        let door = Door::new(clients);
        let of_server = server::Metrics::new(&mut Registry::default()).listener("workload-api");
        Self {
            metrics,
            registry,
            ca,
            identity,
            renewal,
            minter,
            drain,
            serving: serve(listener, door, services, current, of_server),
            address,
            _directory: directory,
        }
    }

    /// The value of a metric.
    pub(super) fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// Publishes a new identity of this generation.
    pub(super) fn issue(&self, generation: u64) -> Arc<Identity> {
        let identity = Arc::new(self.ca.identity(generation, &[]));
        self.identity.send_replace(Some(Arc::clone(&identity)));
        identity
    }

    /// The last attempt to obtain an identity failed.
    pub(super) fn fail(&self, refused: bool, why: &str) {
        self.renewal.send_modify(|status| {
            status.refused = refused;
            status.last_error = Some(why.to_owned());
        });
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Transport {
        match &self.address {
            Listen::Unix(path) => Transport::over(UnixStream::connect(path).await.unwrap()).await,
            Listen::Tcp(address) => {
                let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                Transport::over(stream).await.naming(&address.to_string())
            }
        }
    }

    /// A client, on a connection of its own.
    pub(super) async fn client(&self) -> SpiffeWorkloadApiClient<Transport> {
        SpiffeWorkloadApiClient::new(self.connect().await)
    }
}

/// HTTP/2 over one connection.
#[derive(Debug, Clone)]
pub(super) struct Transport(http2::SendRequest<Body>, String);

impl Transport {
    pub(super) async fn over(
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self(sender, "localhost".to_owned())
    }

    /// With another `:authority`.
    pub(super) fn naming(mut self, authority: &str) -> Self {
        self.1 = authority.to_owned();
        self
    }
}

impl tower_service::Service<Request<Body>> for Transport {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let uri = format!("http://{}{}", self.1, request.uri().path());
        *request.uri_mut() = uri.parse().unwrap();
        Box::pin(self.0.send_request(request))
    }
}

/// `message` with the header every client sends.
pub(super) fn with_header<M>(message: M) -> tonic::Request<M> {
    let mut request = tonic::Request::new(message);
    let value = "true".parse().unwrap();
    request.metadata_mut().insert("workload.spiffe.io", value);
    request
}

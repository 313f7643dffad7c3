//! Against a service as tonic generates it, over a unix socket.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use prometheus_client::registry::Registry;
use rcgen::{CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use tonic::codegen::tokio_stream::{self, Stream};

use super::*;
use crate::{
    config::{local::Clients, value::Listen},
    http::server::{self, Drain, Limits, Listener},
    local::{
        asker::Door,
        grpc::Services,
        proto::workload::{
            JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidResponse,
            ValidateJwtsvidRequest, ValidateJwtsvidResponse, X509BundlesRequest,
            X509BundlesResponse,
            spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer},
        },
        server::Server,
    },
};

const ORDERS: &str = "spiffe://example.org/orders";
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers `Unavailable` as often as it is told, then what it has, or a refusal.
struct Fake {
    not_yet: AtomicUsize,
    refuses: bool,
    answer: X509svidResponse,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Fake {
    fn new(answer: X509svidResponse) -> Self {
        Self {
            not_yet: AtomicUsize::new(0),
            refuses: false,
            answer,
        }
    }

    fn check<T>(&self, request: &tonic::Request<T>) -> Result<(), Status> {
        if request.metadata().get(HEADER).is_none_or(|it| it != "true") {
            return Err(Status::invalid_argument(
                "security header missing from request",
            ));
        }
        if self.refuses {
            return Err(Status::permission_denied("no identity issued"));
        }
        let left = self
            .not_yet
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        match left {
            Ok(_) => Err(Status::unavailable("no identity yet")),
            Err(_) => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Fake {
    type FetchX509SVIDStream = Streamed<X509svidResponse>;
    type FetchX509BundlesStream = Streamed<X509BundlesResponse>;
    type FetchJWTBundlesStream = Streamed<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: tonic::Request<X509svidRequest>,
    ) -> Result<tonic::Response<Self::FetchX509SVIDStream>, Status> {
        self.check(&request)?;
        let answer = Ok(self.answer.clone());
        Ok(tonic::Response::new(Box::pin(tokio_stream::once(answer))))
    }

    async fn fetch_jwtsvid(
        &self,
        request: tonic::Request<JwtsvidRequest>,
    ) -> Result<tonic::Response<JwtsvidResponse>, Status> {
        self.check(&request)?;
        let svid = Jwtsvid {
            spiffe_id: ORDERS.to_owned(),
            svid: format!("token for {}", request.get_ref().audience.join(" ")),
            hint: String::new(),
        };
        Ok(tonic::Response::new(JwtsvidResponse { svids: vec![svid] }))
    }

    async fn fetch_x509_bundles(
        &self,
        _: tonic::Request<X509BundlesRequest>,
    ) -> Result<tonic::Response<Self::FetchX509BundlesStream>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn fetch_jwt_bundles(
        &self,
        _: tonic::Request<JwtBundlesRequest>,
    ) -> Result<tonic::Response<Self::FetchJWTBundlesStream>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn validate_jwtsvid(
        &self,
        _: tonic::Request<ValidateJwtsvidRequest>,
    ) -> Result<tonic::Response<ValidateJwtsvidResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    _drain: Drain,
}

impl Fixture {
    fn endpoint_in(dir: &tempfile::TempDir) -> Endpoint {
        Endpoint::Unix(dir.path().join("api.sock"))
    }

    fn endpoint(&self) -> Endpoint {
        Self::endpoint_in(&self.dir)
    }

    fn serve(fake: Fake) -> Self {
        Self::serve_in(tempfile::tempdir().unwrap(), fake)
    }

    fn serve_in(dir: tempfile::TempDir, fake: Fake) -> Self {
        let listener = Listener::bind(&Listen::Unix(dir.path().join("api.sock"))).unwrap();
        let (drain, draining) = server::drain();
        let services = Services::new(draining.clone()).with(SpiffeWorkloadApiServer::new(fake));
        let metrics = server::Metrics::new(&mut Registry::default()).listener("workload-api");
        let door = Door::new(&Clients::default());
        let server = Server::new(door, Arc::new(services));
        tokio::spawn(server::serve(
            listener,
            server,
            Limits::default(),
            metrics,
            draining,
        ));
        Self { dir, _drain: drain }
    }
}

/// An answer with an X.509-SVID, and the key in it.
fn svid(id: &str) -> (X509svid, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let leaf = params.self_signed(&key).unwrap().der().to_vec();
    let svid = X509svid {
        spiffe_id: id.to_owned(),
        x509_svid: leaf.clone().into(),
        x509_svid_key: key.serialize_der().into(),
        // Two roots, one after the other.
        bundle: [leaf.clone(), leaf].concat().into(),
        hint: String::new(),
    };
    (svid, key.serialize_der())
}

fn of_first(answer: X509svidResponse) -> Result<Issued, String> {
    chosen(answer, None).and_then(issued)
}

fn answer() -> (X509svidResponse, Vec<u8>) {
    let (svid, key) = svid(ORDERS);
    let answer = X509svidResponse {
        svids: vec![svid],
        ..Default::default()
    };
    (answer, key)
}

#[test]
fn an_endpoint_is_spelt_as_the_specification_says() {
    let spelt = |text: &str| text.parse::<Endpoint>().unwrap().to_string();
    assert_eq!(spelt("unix:/run/x.sock"), "unix:/run/x.sock");
    assert_eq!(spelt("unix:///run/x.sock"), "unix:/run/x.sock");
    assert_eq!(spelt("tcp://127.0.0.1:8000"), "tcp://127.0.0.1:8000");
    for wrong in [
        "",
        "/run/x.sock",
        "unix:x.sock",
        "unix://host/x",
        "tcp://name:1",
        "tcp://[::1]",
    ] {
        assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn an_svid_is_fetched_as_files_hold_it() {
    let (answer, _) = answer();
    let fixture = Fixture::serve(Fake::new(answer));
    let issued = fetch_x509(&fixture.endpoint(), None, PATIENCE)
        .await
        .unwrap();
    assert_eq!(issued.id.to_string(), ORDERS);
    let blocks = |pem: &str, label: &str| pem.matches(&format!("-----BEGIN {label}-----")).count();
    assert_eq!(blocks(&issued.content.certificate, "CERTIFICATE"), 1);
    assert_eq!(blocks(issued.content.key.expose(), "PRIVATE KEY"), 1);
    assert_eq!(blocks(&issued.content.bundle, "CERTIFICATE"), 2);
    let token = fetch_jwt(&fixture.endpoint(), "payments", None, PATIENCE).await;
    assert_eq!(token.unwrap().expose(), "token for payments");
}

#[tokio::test]
async fn of_several_identities_the_one_that_is_asked_for_is_fetched_or_none() {
    const REPORTS: &str = "spiffe://example.org/reports";
    let (mut answer, _) = answer();
    let reports = X509svid {
        bundle: answer.svids[0].bundle.clone(),
        ..svid(REPORTS).0
    };
    answer.svids.push(reports);
    let fixture = Fixture::serve(Fake::new(answer));
    let endpoint = fixture.endpoint();
    for id in [ORDERS, REPORTS] {
        let asked = id.parse().unwrap();
        let issued = fetch_x509(&endpoint, Some(&asked), PATIENCE).await.unwrap();
        assert_eq!(issued.id, asked);
    }
    let other = "spiffe://example.org/other".parse().unwrap();
    let refused = fetch_x509(&endpoint, Some(&other), PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(refused, ClientError::Refused { .. }), "{refused}");
    let why = format!("this workload is not {other}; it is {ORDERS} and {REPORTS}");
    assert!(refused.to_string().ends_with(&why), "{refused}");
}

#[tokio::test]
async fn an_agent_that_starts_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Fixture::endpoint_in(&dir);
    let fetching = tokio::spawn(async move { fetch_x509(&endpoint, None, PATIENCE).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (answer, _) = answer();
    let fake = Fake {
        not_yet: AtomicUsize::new(2),
        ..Fake::new(answer)
    };
    let _fixture = Fixture::serve_in(dir, fake);
    assert!(fetching.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_refusal_is_told_at_once_and_what_may_pass_when_patience_ends() {
    let (answer, _) = answer();
    let refusing = Fixture::serve(Fake {
        refuses: true,
        ..Fake::new(answer.clone())
    });
    let began = Instant::now();
    let refused = fetch_x509(&refusing.endpoint(), None, PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(refused, ClientError::Refused { .. }), "{refused}");
    assert!(refused.to_string().ends_with("refused: no identity issued"));
    assert!(began.elapsed() < PATIENCE / 2);

    let starting = Fixture::serve(Fake {
        not_yet: AtomicUsize::new(usize::MAX),
        ..Fake::new(answer)
    });
    let short = Duration::from_millis(500);
    let late = fetch_jwt(&starting.endpoint(), "payments", None, short).await;
    let late = late.unwrap_err();
    assert!(matches!(late, ClientError::Unavailable { .. }), "{late}");
    assert!(late.to_string().ends_with("no identity yet"), "{late}");

    let nowhere: Endpoint = "unix:/nonexistent/api.sock".parse().unwrap();
    let nobody = fetch_x509(&nowhere, None, short).await.unwrap_err();
    assert!(matches!(nobody, ClientError::Connect { .. }), "{nobody}");
}

#[tokio::test]
async fn who_accepts_and_says_nothing_is_not_waited_for_beyond_patience() {
    let dir = tempfile::tempdir().unwrap();
    let _silent = tokio::net::UnixListener::bind(dir.path().join("api.sock")).unwrap();
    let began = Instant::now();
    let endpoint = Fixture::endpoint_in(&dir);
    let late = fetch_x509(&endpoint, None, Duration::from_millis(500)).await;
    assert!(
        matches!(late, Err(ClientError::Unavailable { .. })),
        "{late:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn s17_what_is_no_svid_is_an_error_and_s12_says_nothing_of_the_key() {
    let (good, key) = answer();
    let wrong = |change: fn(&mut X509svid)| {
        let mut answer = good.clone();
        change(&mut answer.svids[0]);
        of_first(answer).unwrap_err()
    };
    assert!(of_first(X509svidResponse::default()).is_err());
    for why in [
        wrong(|svid| svid.x509_svid = vec![0x30, 0x82].into()),
        wrong(|svid| svid.bundle = vec![7; 9].into()),
        wrong(|svid| svid.x509_svid_key = vec![1, 2, 3].into()),
        wrong(|svid| svid.spiffe_id = "spiffe://example.org/payments".to_owned()),
    ] {
        assert!(!why.is_empty());
    }
    let shown = format!("{:?}", of_first(good.clone()).unwrap());
    let bytes = format!("{:?}", &key[40..48]);
    assert!(
        !shown.contains("PRIVATE KEY") && !shown.contains(&bytes),
        "{shown}"
    );
}

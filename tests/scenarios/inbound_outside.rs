//! A listener for callers from outside the mesh: certificates of the Web PKI (here of a private CA) by the name that is
//! asked for, and an X.509-SVID for whoever has one.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer as Ca, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use warifu::tls::{self, ExpectedPeer};
use warifu_tests::{
    listener::TestCa,
    mesh::{Agent, App, Direct, Mesh, until},
    oidc::{Algorithm, Issuer, claims},
    peers,
    ports::free_port,
};

/// The CA of the certificates that the listener presents.
struct WebCa {
    ca: Ca<'static, KeyPair>,
    pem: String,
    root: rustls_pki_types::CertificateDer<'static>,
}

impl WebCa {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "private CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self {
            pem: root.pem(),
            root: root.der().clone(),
            ca: Ca::new(params, key),
        }
    }

    /// Puts a certificate for these names, and its key, into `dir`; their part of the configuration.
    fn write(&self, dir: &Path, file: &str, names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names).unwrap();
        let leaf = leaf.signed_by(&key, &self.ca).unwrap();
        let (chain, secret) = (
            dir.join(format!("{file}.pem")),
            dir.join(format!("{file}.key")),
        );
        fs::write(&secret, key.serialize_pem()).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&chain, leaf.pem()).unwrap();
        let (chain, secret) = (chain.display(), secret.display());
        format!("{{certificate_file: \"{chain}\", key_file: \"{secret}\"}}")
    }

    /// A client that trusts this CA, and presents nothing.
    fn client(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

struct World {
    agent: Agent,
    address: SocketAddr,
    app: App,
    web: WebCa,
    issuer: Issuer,
    dir: PathBuf,
    mesh: Mesh,
}

impl World {
    async fn start() -> Self {
        let mesh = Mesh::start().await;
        let (web, issuer, address) = (WebCa::new(), Issuer::start().await, free_port());
        let app = mesh.plain_app().await;
        let dir = mesh.dir().join("web");
        fs::create_dir(&dir).unwrap();
        let pay = web.write(&dir, "pay", &["pay.example", "127.0.0.1"]);
        let shop = web.write(&dir, "shop", &["*.shop.example"]);
        let listener = format!(
            "{{listen: \"{address}\", tls: {{certificates: [{pay}, {shop}], client_cert: optional}}, \
             forward: \"{}\", accept: [{{mtls: {{trust_domains: [example.org]}}}}, {{jwt: {{profile: oidc, \
             issuer: \"{}\", audiences: [payments], algorithms: [RS256]}}}}], \
             allow: [{{subject: {{scope: charges.read}}, to: [\"GET /charges\"]}}, \
             {{peer: \"spiffe://example.org/orders\", to: [\"GET /charges\"]}}]}}",
            app.url(),
            issuer.url()
        );
        let agent = mesh.agent("payments").inbound(&listener).start().await;
        Self {
            agent,
            address,
            app,
            web,
            issuer,
            dir,
            mesh,
        }
    }

    fn token(&self) -> String {
        let claims = claims(
            &self.issuer,
            "u",
            "payments",
            json!({"scope": "charges.read"}),
        );
        self.issuer.sign(Algorithm::Rs256, &claims)
    }

    /// curl asks by this name: its exit code, and the status.
    fn curl(&self, name: &str, token: Option<&str>, more: &[&str]) -> (i32, String) {
        let ca = self.dir.join("ca.pem");
        fs::write(&ca, &self.web.pem).unwrap();
        let port = self.address.port();
        let mut curl = Command::new(peers::installed("curl").unwrap());
        curl.args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--max-time",
            "20",
            "--cacert",
        ]);
        curl.arg(ca)
            .arg("--resolve")
            .arg(format!("{name}:{port}:127.0.0.1"));
        curl.args(more)
            .arg(format!("https://{name}:{port}/charges"));
        if let Some(token) = token {
            curl.arg("-H").arg(format!("authorization: Bearer {token}"));
        }
        let output = curl.output().unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap_or(-1), status)
    }

    async fn connect(&self, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("pay.example").unwrap();
        let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
        connecting.await.unwrap()
    }
}

const GET: &str = "GET /charges HTTP/1.1\nhost: pay.example\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_calls_by_the_names_of_the_certificates_over_tls_1_2_and_1_3_with_a_token() {
    let world = World::start().await;
    let token = world.token();
    tokio::task::block_in_place(|| {
        for name in ["pay.example", "a.shop.example"] {
            for more in [&[][..], &["--tls-max", "1.2"], &["--tlsv1.3", "--http1.1"]] {
                let answer = world.curl(name, Some(&token), more);
                assert_eq!(answer, (0, "200".to_owned()), "{name} {more:?}");
            }
            assert_eq!(world.curl(name, None, &[]), (0, "401".to_owned()));
        }
        // The first certificate is for those who ask by other names, and says whose it is.
        for other in ["a.b.shop.example", "shop.example", "other.example"] {
            let (code, _) = world.curl(other, Some(&token), &[]);
            assert_eq!(code, 60, "{other}: it must not verify");
        }
        let old = world.curl("pay.example", Some(&token), &["--tls-max", "1.1"]);
        assert_ne!(old.0, 0);
    });
    let seen = world.app.last();
    assert!(!seen.headers.contains_key("authorization"));
    assert!(!seen.headers.contains_key("x-forwarded-client-cert"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s02_a_certificate_is_optional_there_and_one_that_is_presented_is_an_x509_svid_of_the_mesh()
{
    let world = World::start().await;
    let ask = async |config: ClientConfig, line: &str| {
        let mut direct = Direct::connect_to(world.address, config).await?;
        direct.exchange(&format!("{GET}{line}\n")).await
    };
    let plain = || world.web.client(&[&TLS13]);
    assert_eq!(ask(plain(), "").await.unwrap().status, 401);
    let bearer = format!("authorization: Bearer {}\n", world.token());
    assert_eq!(ask(plain(), &bearer).await.unwrap().status, 200);

    let orders = world.mesh.workload("orders").await;
    let identity = orders.identity();
    let anyone = ExpectedPeer::Member("example.org".parse().unwrap());
    let presents = tls::client_config(&identity, &identity.bundle, anyone).unwrap();
    let mut of_mesh = plain();
    of_mesh.client_auth_cert_resolver = presents.client_auth_cert_resolver;
    assert_eq!(ask(of_mesh.clone(), "").await.unwrap().status, 200);
    let xfcc = world.app.last().headers["x-forwarded-client-cert"].clone();
    let xfcc = xfcc.to_str().unwrap();
    assert!(xfcc.ends_with("URI=spiffe://example.org/orders"), "{xfcc}");
    // A bad token is refused beside it, too.
    let bad = "authorization: Bearer nonsense\n";
    assert_eq!(ask(of_mesh, bad).await.unwrap().status, 401);

    // The same name by somebody else, and a certificate that names no workload: neither gets as far as a request,
    // whatever it has beside it.
    let impostor = TestCa::new();
    for leaf in [impostor.leaf(|_| {}), impostor.self_signed(), {
        impostor.leaf(|params| params.subject_alt_names.clear())
    }] {
        let mut presents = plain();
        presents.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(leaf.certified()));
        assert!(ask(presents, &bearer).await.is_err());
    }
    let why = world.agent.audit_line("the refused handshake", |line| {
        line["event"] == "inbound-connection" && line["result"] == "refused"
    });
    assert!(why.await["detail"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s01_no_session_is_resumed_there_neither() {
    let world = World::start().await;
    for version in [&TLS12, &TLS13] {
        // It would: rustls' clients keep sessions by default.
        let config = Arc::new(world.web.client(&[version]));
        for _ in 0..3 {
            let stream = world.connect(&config).await;
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::Full), "{version:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_certificates_are_presented_while_old_connections_go_on() {
    let world = World::start().await;
    let line = format!("{GET}authorization: Bearer {}\n\n", world.token());
    let mut old = Direct::connect_to(world.address, world.web.client(&[&TLS13]))
        .await
        .unwrap();
    assert_eq!(old.exchange(&line).await.unwrap().status, 200);
    let before = old.server_chain();
    // Half of it: a key that is another's. What was there stays.
    world
        .web
        .write(&world.dir, "pay", &["pay.example", "127.0.0.1"]);
    let chain = world.dir.join("pay.pem");
    let renewed = fs::read(&chain).unwrap();
    fs::write(&chain, "half of a certificate").unwrap();
    let mut direct = Direct::connect_to(world.address, world.web.client(&[&TLS13]))
        .await
        .unwrap();
    assert_eq!(direct.exchange(&line).await.unwrap().status, 200);
    fs::write(&chain, renewed).unwrap();
    until("the new certificate is presented", async || {
        let mut new = Direct::connect_to(world.address, world.web.client(&[&TLS13]))
            .await
            .unwrap();
        assert_eq!(new.exchange(&line).await.unwrap().status, 200);
        (new.server_chain() != before).then_some(())
    })
    .await;
    assert_eq!(old.exchange(&line).await.unwrap().status, 200);
    let metric = format!(
        "warifu_inbound_certificate_not_after_seconds{{listen=\"{}\"}}",
        world.address
    );
    assert!(world.agent.metric(&metric).await > 1.7e9);
}

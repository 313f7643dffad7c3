//! nginx (Debian's) calls an inbound listener with the files that its agent keeps.

use std::{
    collections::BTreeSet, ffi::OsStr, fs, net::SocketAddr, path::Path, sync::Arc, time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::net::TcpStream;
use warifu_tests::{
    mesh::{Agent, App, Mesh, until},
    peers::{self, Tied},
    ports::free_port,
};

/// nginx knows its upstreams by DNS names, which a rule has to give them.
const RULES: &str = r#"
- {attestor: bootstrap, match: {service: "*"}, id: "/{service}", dns: ["{service}.internal"], ttl: TTL}
"#;

const FRONT: &str =
    r#"[{peer: "spiffe://example.org/front", to: ["GET /charges/*", "POST /charges"]}]"#;

/// nginx, with the identity *front*, before *payments*' agent.
struct World {
    nginx: SocketAddr,
    /// Where nginx expects somebody else than there is.
    elsewhere: SocketAddr,
    files: String,
    app: App,
    payments: Agent,
    _front: Agent,
    _nginx: Tied,
    _mesh: Mesh,
}

impl World {
    async fn open(ttl: Duration) -> Self {
        let program = peers::installed("nginx").unwrap();
        let mesh = Mesh::with(|authority| authority.rules(RULES).ttl(ttl)).await;
        let app = mesh.plain_app().await;
        let payments = mesh.agent("payments").app(&app).allow(FRONT).start().await;
        let dir = mesh.dir().join("nginx");
        fs::create_dir(&dir).unwrap();
        let dir = dir.to_str().unwrap().to_owned();
        let front = mesh.agent("front").more(&format!(
            "local: {{files: [{{directory: {dir}, after: {{signal: {{pid_file: {dir}/nginx.pid}}}}}}]}}"
        ));
        let front = front.start().await;
        let written = async || fs::metadata(format!("{dir}/svid.pem")).ok();
        until("the files are there", written).await;

        let (nginx, elsewhere) = (free_port(), free_port());
        let conf = configuration(&dir, payments.inbound_address(), [nginx, elsewhere]);
        let file = format!("{dir}/nginx.conf");
        fs::write(&file, conf).unwrap();
        let args = ["-p", &dir, "-c", &file].map(OsStr::new);
        let process = Tied::run("nginx", &program, &args, &[]).unwrap();
        let connects = async || TcpStream::connect(nginx).await.ok();
        until("nginx listens", connects).await;
        Self {
            nginx,
            elsewhere,
            files: dir,
            app,
            payments,
            _front: front,
            _nginx: process,
            _mesh: mesh,
        }
    }

    /// SHA-256 of the certificate that nginx is to present.
    fn certificate(&self) -> String {
        let path = Path::new(&self.files).join("svid.pem");
        let leaf = CertificateDer::from_pem_file(path).unwrap();
        let hash = digest(&SHA256, &leaf);
        hash.as_ref().iter().map(|it| format!("{it:02x}")).collect()
    }

    /// `x-forwarded-client-cert` of the last request, the one there is.
    fn told(&self) -> String {
        let headers = self.app.last().headers;
        let told: Vec<_> = headers.get_all("x-forwarded-client-cert").iter().collect();
        let [told] = told[..] else { panic!("{told:?}") };
        told.to_str().unwrap().to_owned()
    }
}

/// What the guide has people write; `elsewhere` expects another name.
fn configuration(dir: &str, payments: SocketAddr, [ours, elsewhere]: [SocketAddr; 2]) -> String {
    // A kept connection is verified once: each name needs an upstream of its own.
    let server = |listen: SocketAddr, name: &str| {
        format!(
            "
  upstream {name} {{ server {payments}; keepalive 8; }}
  server {{
    listen {listen};
    location / {{
      proxy_pass https://{name};
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_ssl_protocols TLSv1.3;
      proxy_ssl_certificate {dir}/svid.pem; proxy_ssl_certificate_key {dir}/svid-key.pem;
      proxy_ssl_trusted_certificate {dir}/bundle.pem; proxy_ssl_verify on; proxy_ssl_verify_depth 3;
      proxy_ssl_name {name}.internal;
    }}
  }}"
        )
    };
    format!(
        "daemon off; pid {dir}/nginx.pid; error_log stderr; worker_processes 1;
events {{}}
http {{
  access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;{}{}
}}",
        server(ours, "payments"),
        server(elsewhere, "billing"),
    )
}

async fn ask(nginx: SocketAddr, method: Method, path: &str) -> Response<Bytes> {
    let stream = TcpStream::connect(nginx).await.unwrap();
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut send, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let forged = "By=spiffe://example.org/payments;URI=spiffe://example.org/admin";
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "front")
        .header("x-forwarded-client-cert", forged)
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap();
    let (parts, body) = send.send_request(request).await.unwrap().into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_calls_over_a_kept_connection_and_the_app_learns_its_name() {
    let world = World::open(Duration::from_secs(3600)).await;
    let expected = format!(
        "By=spiffe://example.org/payments;Hash={};URI=spiffe://example.org/front",
        world.certificate()
    );
    for number in 0..20 {
        let path = format!("/charges/{number}");
        let answer = ask(world.nginx, Method::GET, &path).await;
        assert_eq!(answer.status(), 200, "{:?}", answer.body());
        assert_eq!(
            (world.app.last().target, world.told()),
            (path, expected.clone())
        );
    }
    assert_eq!(
        ask(world.nginx, Method::POST, "/charges").await.status(),
        200
    );
    assert_eq!(
        (world.app.last().body, world.told()),
        (b"{}".to_vec(), expected)
    );

    // What no rule allows is refused over the same connection, which stays up.
    for (method, path) in [(Method::GET, "/admin"), (Method::DELETE, "/charges/1")] {
        let answer = ask(world.nginx, method, path).await;
        assert_eq!(answer.status(), 403, "{path}");
        assert_eq!(answer.headers()["x-warifu-reason"], "denied", "{path}");
    }
    // What nginx passes on as it came reads in two ways.
    let answer = ask(world.nginx, Method::GET, "/charges/%2e%2e/admin").await;
    assert_eq!(answer.status(), 400);
    assert_eq!(
        ask(world.nginx, Method::GET, "/charges/21").await.status(),
        200
    );
    assert_eq!(world.app.count(), 22);
    let accepted = "warifu_server_accepted_total{listener=\"inbound\"}";
    assert_eq!(world.payments.metric(accepted).await, 1.0);

    // Whom nginx does not expect hears nothing of it.
    let answer = ask(world.elsewhere, Method::GET, "/charges/1").await;
    assert_eq!(answer.status(), 502);
    assert_eq!(world.app.count(), 22);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_of_nginx_fails_while_both_certificates_rotate() {
    let world = Arc::new(World::open(Duration::from_secs(6)).await);
    let (mut hashes, mut failures, mut asked) = (BTreeSet::new(), Vec::new(), 0);
    until("nginx presented four certificates", async || {
        asked += 1;
        let answer = ask(world.nginx, Method::GET, "/charges/1").await;
        match answer.status().as_u16() {
            200 => {
                hashes.insert(world.told());
            }
            _ => failures.push(answer),
        }
        (hashes.len() >= 4).then_some(())
    })
    .await;
    assert!(failures.is_empty(), "of {asked}: {failures:?}");
    assert!(asked > 50, "only {asked} requests");
    assert!(
        hashes
            .iter()
            .all(|it| it.ends_with(";URI=spiffe://example.org/front")),
        "{hashes:?}"
    );
}

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use warifu::tls::{self, Anchors};

use super::*;
use crate::{
    attest::{Client, ClientError, bearer},
    authority::{
        admin::{
            Act, Bound, ExplainAnswer, ExplainRequest, JoinTokenAnswer, JoinTokenRequest, client,
        },
        rules::Outcome,
    },
};

/// One HTTP/1.1 request, as `curl` would send it.
async fn curl(running: &Running, request: Request<Full<Bytes>>) -> Response<Bytes> {
    curl_at(running, running.authority.address(), request).await
}

async fn curl_at(
    running: &Running,
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Response<Bytes> {
    let tls = connect(running, address).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
        .await
        .unwrap();
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

async fn connect(running: &Running, address: SocketAddr) -> TlsStream<TcpStream> {
    let anchors = Anchors {
        spki_sha256: running.authority.root_pins().iter().map(|p| p.0).collect(),
        roots: vec![],
    };
    let mut config = tls::bootstrap_client_config(&anchors, &id("/warifu/authority")).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap()
}

/// Another front door of the same authority, without its limits or its clock.
fn serve(issuing: Arc<Issuing>, max_in_flight: usize) -> SocketAddr {
    let listener = Listener::bind(&Listen::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
    let Listen::Tcp(address) = *listener.address() else {
        panic!("a TCP address");
    };
    let metrics = server::Metrics::new(&mut metrics::registry()).listener("test");
    let (_, draining) = server::drain();
    let door = Arc::new(api::FrontDoor::new(issuing, max_in_flight));
    // Ends with the test's runtime.
    tokio::spawn(server::serve(
        listener,
        door,
        Limits::default(),
        metrics,
        draining,
    ));
    address
}

fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "authority")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

fn error(response: &Response<Bytes>) -> wire::ErrorBody {
    serde_json::from_slice(response.body()).unwrap()
}

fn csr() -> Vec<u8> {
    Agent::new().csr()
}

async fn attest(
    client: &Client,
    token: &Secret<String>,
) -> Result<crate::attest::Credentials, ClientError> {
    let evidence = Evidence::JoinToken {
        token: token.clone(),
    };
    client
        .attest(&bearer(evidence), None, &csr(), &SigningKey::generate())
        .await
}

#[tokio::test]
async fn an_agent_attests_renews_and_mints_over_one_connection() {
    let running = Running::start(|_| {}).await;
    assert!(running.readiness.missing().is_empty());
    let client = Client::new(&td(), &running.as_seen()).unwrap();
    let key = SigningKey::generate();
    let evidence = Evidence::JoinToken {
        token: running.token("orders").await,
    };
    let granted = client.attest(&bearer(evidence), None, &csr(), &key).await;
    let granted = granted.unwrap();
    assert_eq!(granted.bundle.x509_authorities.len(), 1);
    client.trust(&granted.bundle);
    let renewed = client.renew(&granted.record, &csr(), &key).await.unwrap();
    let jwt = client
        .jwt_svid(&renewed.record, &["payments".to_owned()], None, &key)
        .await
        .unwrap();
    assert!(jwt.expires_at > SystemTime::now());
    let (bundle, etag) = client.bundle(None).await.unwrap().unwrap();
    assert_eq!(bundle.to_json(), granted.bundle.to_json());
    assert!(client.bundle(etag.as_ref()).await.unwrap().is_none(), "304");
    assert!(client.skew().is_none());
    running.authority.shutdown(HOUR).await;
}

#[tokio::test]
async fn s19_an_agent_talks_only_to_the_authority_its_pins_name() {
    let running = Running::start(|_| {}).await;
    let mut seen = running.as_seen();
    seen.root_spki_sha256 = vec![SpkiPin([7; 32])];
    let client = Client::new(&td(), &seen).unwrap();
    let refused = attest(&client, &running.token("orders").await)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ClientError::NotTheAuthority { .. }),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("root_spki_sha256"),
        "{refused}"
    );

    let other = TrustDomain::new("example.com").unwrap();
    let client = Client::new(&other, &running.as_seen()).unwrap();
    let refused = client.bundle(None).await.unwrap_err();
    assert!(
        matches!(refused, ClientError::NotTheAuthority { .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn an_agent_follows_the_authority_to_a_new_root_by_the_bundle_alone() {
    let dir = tempfile::tempdir().unwrap();
    let earlier = SystemTime::now() - HOUR * 2;
    let mut world = World::at(&config(dir.path()), earlier).await.unwrap();
    let pins = world.issuing.live.load().root_pins();
    world.issuing.rotate(world.now).await.unwrap();
    world.later(HOUR * 2).await;
    let live = world.issuing.live.load_full();
    let seen = AuthorityRef {
        url: HttpsOrigin {
            host: "127.0.0.1".into(),
            port: serve(Arc::new(world.issuing), api::MAX_IN_FLIGHT).port(),
        },
        root_spki_sha256: pins.into_iter().map(|(_, pin)| SpkiPin(pin)).collect(),
        bundle: None,
    };
    // With the old root's pin alone it is a stranger …
    let client = Client::new(&td(), &seen).unwrap();
    let refused = client.bundle(None).await.unwrap_err();
    assert!(
        matches!(refused, ClientError::NotTheAuthority { .. }),
        "{refused}"
    );
    // … and known to an agent that has the bundle from before.
    client.trust(&live.bundle);
    client.bundle(None).await.unwrap();
}

#[tokio::test]
async fn s19_a_workload_cannot_pass_for_the_authority() {
    use warifu::identity::X509Svid;
    let running = Running::start(|_| {}).await;
    let client = Client::new(&td(), &running.as_seen()).unwrap();
    let agent = Agent::new();
    let evidence = Evidence::JoinToken {
        token: running.token("orders").await,
    };
    let granted = client
        .attest(&bearer(evidence), None, &agent.csr(), &agent.renewal)
        .await
        .unwrap();
    let svid = X509Svid::new(granted.chain, agent.leaf.serialize_der().into()).unwrap();
    let roots = &granted.bundle.x509_authorities;
    let config = tls::server_config_without_client_auth(&svid, roots).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let _ = tokio_rustls::TlsAcceptor::from(Arc::new(config))
            .accept(tcp)
            .await;
    });
    let mut seen = running.as_seen();
    seen.url.port = port;
    let refused = Client::new(&td(), &seen)
        .unwrap()
        .bundle(None)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ClientError::NotTheAuthority { .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn an_authority_that_is_away_is_unreachable_and_a_refusal_is_decided() {
    let running = Running::start(|_| {}).await;
    let client = Client::new(&td(), &running.as_seen()).unwrap();
    let refused = attest(&client, &Secret::new("wjt_no".into()))
        .await
        .unwrap_err();
    assert_eq!(
        refused.refusal(),
        Some(ErrorCode::InvalidEvidence),
        "{refused}"
    );
    running.authority.shutdown(Duration::ZERO).await;
    let away = attest(&client, &Secret::new("wjt_no".into()))
        .await
        .unwrap_err();
    assert!(matches!(away, ClientError::Unreachable { .. }), "{away}");
}

#[tokio::test]
async fn what_is_no_request_of_the_api_is_answered_with_what_it_expects() {
    let running = Running::start(|_| {}).await;
    let big = vec![b' '; wire::MAX_REQUEST + 1];
    for (request, status, says) in [
        (request(Method::GET, "/", ""), 404, "\"/\""),
        (request(Method::GET, wire::ATTEST, ""), 405, "POST only"),
        (request(Method::POST, wire::BUNDLE, ""), 405, "GET only"),
        (request(Method::POST, wire::ATTEST, "{"), 400, "the body"),
        (request(Method::POST, wire::RENEW, "{}"), 400, "challenge"),
        (request(Method::POST, wire::JWT_SVID, "[]"), 400, "the body"),
        (request(Method::POST, wire::ATTEST, big), 413, "65536"),
    ] {
        let path = request.uri().to_string();
        let response = curl(&running, request).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert!(
            error(&response).message.contains(says),
            "{path}: {:?}",
            error(&response)
        );
    }
    let mut form = request(Method::POST, wire::ATTEST, "a=b");
    form.headers_mut()
        .insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    let response = curl(&running, form).await;
    assert!(error(&response).message.contains("application/json"));
}

#[tokio::test]
async fn the_bundle_is_json_with_an_etag_and_a_challenge_needs_no_body() {
    let running = Running::start(|_| {}).await;
    let response = curl(&running, request(Method::GET, wire::BUNDLE, "")).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let etag = response.headers()[header::ETAG].clone();
    let bundle: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(bundle["spiffe_refresh_hint"], 300);
    assert_eq!(bundle["keys"].as_array().unwrap().len(), 2);
    let mut again = request(Method::GET, wire::BUNDLE, "");
    again.headers_mut().insert(header::IF_NONE_MATCH, etag);
    assert_eq!(
        curl(&running, again).await.status(),
        StatusCode::NOT_MODIFIED
    );

    let bare = Request::post(wire::CHALLENGE)
        .header(header::HOST, "authority")
        .body(Full::default())
        .unwrap();
    let response = curl(&running, bare).await;
    let challenge: wire::Challenge = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(challenge.expires_in, 60);
}

#[tokio::test]
async fn s14_over_the_limit_requests_are_answered_503_with_retry_after() {
    let running = Running::start(|_| {}).await;
    let address = serve(Arc::clone(&running.authority.issuing), 0);
    let response = curl_at(
        &running,
        address,
        request(Method::POST, wire::CHALLENGE, ""),
    )
    .await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    let mut seen = running.as_seen();
    seen.url.port = address.port();
    let client = Client::new(&td(), &seen).unwrap();
    let away = client.bundle(None).await.unwrap_err();
    assert_eq!(away.retry_after(), Some(Duration::from_secs(1)), "{away}");
}

#[tokio::test]
async fn s14_a_body_that_does_not_come_takes_no_ones_place() {
    let running = Running::start(|_| {}).await;
    let address = serve(Arc::clone(&running.authority.issuing), 1);
    let mut slow = connect(&running, address).await;
    let head = "POST /v1/renew HTTP/1.1\r\nhost: authority\r\ncontent-type: application/json\r\n\
                content-length: 10\r\nexpect: 100-continue\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    // Its body is waited for; someone else is answered.
    let request = request(Method::POST, wire::CHALLENGE, "");
    let response = curl_at(&running, address, request).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_clock_ten_minutes_behind_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let ahead = SystemTime::now() + MINUTE * 10;
    let world = World::at(&config(dir.path()), ahead).await.unwrap();
    let pins = world.issuing.live.load().root_pins();
    let seen = AuthorityRef {
        url: HttpsOrigin {
            host: "127.0.0.1".into(),
            port: serve(Arc::new(world.issuing), api::MAX_IN_FLIGHT).port(),
        },
        root_spki_sha256: pins.into_iter().map(|(_, pin)| SpkiPin(pin)).collect(),
        bundle: None,
    };
    let refused = Client::new(&td(), &seen)
        .unwrap()
        .bundle(None)
        .await
        .unwrap_err();
    assert!(matches!(refused, ClientError::Clock { .. }), "{refused}");
    let told = refused.to_string();
    for part in [
        "is not valid yet",
        "at least 9m behind the authority's",
        "correct this machine's clock",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_a_clear_error() {
    let running = Running::start(|_| {}).await;
    let mut second = running.config.clone();
    second.listen = running.authority.address();
    second.admin = Listen::Unix(running.dir.path().join("other.sock"));
    let refused = started(&second).await.err().unwrap();
    assert!(refused.to_string().contains("in use"), "{refused}");
}

#[tokio::test]
async fn administration_makes_join_tokens_explains_rotates_and_tells_status() {
    let running = Running::start(|_| {}).await;
    let Listen::Unix(socket) = running.authority.admin() else {
        panic!("a unix socket");
    };
    let ask = |attestor: &str, service: &str| JoinTokenRequest {
        attestor: attestor.into(),
        facts: facts(service),
        ttl: 60,
    };
    let make =
        async |request| client::ask::<JoinTokenAnswer>(socket, &Act::JoinToken(request)).await;
    let made = make(ask("join", "orders")).await.unwrap();
    assert_eq!(
        made.spiffe_id.as_deref(),
        Some("spiffe://example.org/orders")
    );
    let agent = Client::new(&td(), &running.as_seen()).unwrap();
    attest(&agent, &made.token).await.unwrap();
    let made = make(ask("join", "a b")).await.unwrap();
    assert!(made.warning.unwrap().contains("cannot be filled in"));
    let refused = make(ask("nobody", "x")).await.unwrap_err();
    assert!(refused.to_string().contains("nobody"), "{refused}");

    let asked = ExplainRequest {
        attestor: Some("join".into()),
        facts: facts("orders"),
        evidence: None,
    };
    let explained: ExplainAnswer = client::ask(socket, &Act::Explain(asked)).await.unwrap();
    assert_eq!(
        explained.rules[0].outcome,
        Outcome::Grants("spiffe://example.org/orders".into())
    );
    let granted = explained.granted.unwrap();
    assert_eq!((granted.rule, granted.ttl), (0, 3600));
    assert_eq!(granted.dns, ["orders.internal"]);

    let status: Status = client::ask(socket, &Act::Status).await.unwrap();
    assert_eq!((status.roots.len(), status.rotations.len()), (1, 0));
    let status: Status = client::ask(socket, &Act::Rotate).await.unwrap();
    let phases: Vec<_> = status
        .roots
        .iter()
        .map(|root| root.phase.as_str())
        .collect();
    assert_eq!(phases, ["current", "next"]);
    assert_eq!(
        running.authority.root_pins().len(),
        2,
        "the next root can be pinned already"
    );
    let refused = client::ask::<Status>(socket, &Act::Rotate)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("under way"), "{refused}");
}

#[tokio::test]
async fn every_act_of_administration_is_in_the_audit_log_before_its_answer() {
    let running = Running::start(|_| {}).await;
    let Listen::Unix(socket) = running.authority.admin() else {
        panic!("a unix socket");
    };
    let ask = async |act: Act| {
        let answer = client::ask::<serde_json::Value>(socket, &act).await;
        (answer, running.lines.all().pop().unwrap())
    };
    let uid = rustix::process::geteuid().as_raw();
    let (made, line) = ask(Act::JoinToken(JoinTokenRequest {
        attestor: "join".into(),
        facts: facts("orders"),
        ttl: 60,
    }))
    .await;
    let token = made.unwrap()["token"].as_str().unwrap().to_owned();
    assert_eq!(line["event"], "join-token");
    assert_eq!(line["decision"], "done");
    assert_eq!(line["by"], serde_json::json!({"uid": uid}));
    assert_eq!(line["act"]["facts"]["service"], "orders");
    assert_eq!(line["result"]["spiffe_id"], "spiffe://example.org/orders");
    assert!(!line.to_string().contains(&token), "S12");

    let change = Change {
        kind: crate::revocation::Kind::Lineage,
        value: "l1".into(),
        reason: Some("stolen".into()),
        seconds: None,
        undo: false,
    };
    let (changed, line) = ask(Act::Revoke(change.clone())).await;
    assert_eq!(
        (&line["event"], &line["decision"]),
        (&"revoke".into(), &"done".into())
    );
    assert_eq!(line["act"]["value"], "l1");
    assert_eq!(line["act"]["reason"], "stolen");
    assert_eq!(line["result"]["number"], changed.unwrap()["number"]);
    let undo = Change {
        undo: true,
        reason: None,
        ..change
    };
    let (_, line) = ask(Act::Revoke(undo.clone())).await;
    assert_eq!(
        (&line["event"], &line["decision"]),
        (&"unrevoke".into(), &"done".into())
    );
    let (refused, line) = ask(Act::Revoke(undo)).await;
    assert!(refused.is_err());
    assert_eq!(
        (&line["event"], &line["decision"]),
        (&"unrevoke".into(), &"refused".into())
    );
    assert_eq!(line["refused"]["code"], "bad_request");
    for (act, event) in [
        (Act::Revocations, "revocations"),
        (Act::Status, "status"),
        (Act::Rotate, "rotate"),
    ] {
        let (_, line) = ask(act).await;
        assert_eq!(
            (&line["event"], &line["by"]["uid"]),
            (&event.into(), &uid.into())
        );
    }
    let token = Secret::new(token);
    let (explained, line) = ask(Act::Explain(ExplainRequest {
        evidence: Some(Evidence::JoinToken {
            token: token.clone(),
        }),
        ..ExplainRequest::default()
    }))
    .await;
    let explained: ExplainAnswer = serde_json::from_value(explained.unwrap()).unwrap();
    assert_eq!(explained.attestor.as_deref(), Some("join"));
    assert_eq!(explained.bound, Some(Bound::Nothing));
    assert_eq!(line["act"], serde_json::json!({"evidence": "join-token"}));
    assert!(!line.to_string().contains(token.expose()), "S12");
    // Looked at, and not spent.
    let agent = Client::new(&td(), &running.as_seen()).unwrap();
    attest(&agent, &token).await.unwrap();
}

#[tokio::test]
async fn s20_the_admin_socket_is_its_users_own() {
    use std::os::unix::fs::MetadataExt;
    let running = Running::start(|_| {}).await;
    let Listen::Unix(socket) = running.authority.admin() else {
        panic!("a unix socket");
    };
    assert_eq!(std::fs::metadata(socket).unwrap().mode() & 0o777, 0o600);
    let service = admin::Administration(Arc::clone(&running.authority.issuing));
    let us = rustix::process::geteuid().as_raw();
    for (uid, welcome) in [
        (Some(us), true),
        (Some(0), true),
        (Some(us + 1), false),
        (None, false),
    ] {
        let connection = server::Connection {
            remote: server::Remote::Unix(uid.map(|uid| server::Process { uid, gid: uid })),
            peer_chain: vec![],
            tls: None,
            local: None,
        };
        let opened = server::Service::open(&service, connection);
        assert_eq!(opened.is_ok(), welcome, "{uid:?}");
    }
    let mut config = running.config.clone();
    config.admin = Listen::Tcp(([127, 0, 0, 1], 0).into());
    let refused = started(&config).await.err().unwrap();
    assert!(refused.to_string().contains("unix:"), "{refused}");
}

#[test]
fn s14_no_connection_keeps_its_place_for_ever() {
    let age = front_door_limits().max_age.unwrap_or(Duration::MAX);
    assert!(age <= 5 * MINUTE, "{age:?}");
}

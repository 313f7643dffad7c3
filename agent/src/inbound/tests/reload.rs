//! A listener's configuration, changed while connections, requests and streams of before go on.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use warifu::TrustDomain;

use super::*;
use crate::config::{
    inbound::{
        Accept, ClientCert, ClientCertHeader, Context, Inbound, InboundTls, Permissive, Presents,
        Rego,
    },
    value::{Moment, Span},
};

const ELSEWHERE: App = App::Answers("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother");
const ENDLESS: App =
    App::Answers("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\npiece\r\n");
const OTHERS: &str = "spiffe://example.org/others";

fn accept_certificates_of(name: &str) -> Vec<Accept> {
    vec![Accept::Mtls {
        trust_domains: vec![TrustDomain::new(name).unwrap()],
    }]
}

fn client_cert(asked: ClientCert) -> impl Fn(&mut Inbound) {
    move |config| {
        config.tls = Some(InboundTls {
            presents: Presents::Svid,
            client_cert: Some(asked),
        });
    }
}

fn reason(answer: &fixture::Message) -> (u16, String) {
    let reason = answer.all("x-warifu-reason").concat();
    (answer.status(), reason)
}

#[tokio::test]
async fn the_app_is_elsewhere_from_the_next_request_on_and_what_is_under_way_ends_where_it_began() {
    let before = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = before.local_addr().unwrap();
    let fixture = Fixture::with(App::Absent, |config| {
        config.forward = Some(Forward::Tcp(address));
        config.timeouts.first_byte = Some(Span(Duration::ZERO));
    })
    .await;
    let (mut under_way, mut next) = (fixture.caller(ORDERS).await, fixture.caller(ORDERS).await);
    under_way
        .send("GET /a HTTP/1.1\r\nhost: payments\r\n\r\n")
        .await;
    let (mut app, _) = before.accept().await.unwrap();
    let mut first = [0; 4];
    app.read_exact(&mut first).await.unwrap();

    let (elsewhere, _requests) = fixture::start_app(ELSEWHERE).await;
    let moves = |config: &mut Inbound| config.forward = Some(Forward::Tcp(elsewhere));
    fixture.reload(moves).await;
    assert_eq!(&*next.get("/a").await, "other");
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    app.write_all(answer).await.unwrap();
    assert_eq!(&*under_way.response().await.unwrap(), "ok");
    assert_eq!(&*under_way.get("/a").await, "other");
}

#[tokio::test]
async fn s02_a_certificate_that_is_accepted_no_more_is_refused_on_its_open_connection_and_on_new_ones()
 {
    let mut fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    assert_eq!(orders.get("/a").await.status(), 200);
    fixture.seen().await;
    fixture
        .reload(|config| config.accept = accept_certificates_of("partner.example"))
        .await;
    let answer = orders.get("/a").await;
    assert_eq!(reason(&answer), (403, "peer-not-accepted".to_owned()));
    let mut new = fixture.caller(ORDERS).await;
    new.send("GET /a HTTP/1.1\r\nhost: payments\r\n\r\n").await;
    assert!(new.response().await.is_none(), "the handshake went well");
    assert!(fixture.nothing_seen());
    fixture
        .reload(|config| config.accept = accept_certificates_of("example.org"))
        .await;
    assert_eq!(fixture.caller(ORDERS).await.get("/a").await.status(), 200);
}

#[tokio::test]
async fn s02_where_a_certificate_is_required_now_who_presented_none_is_refused() {
    let fixture = Fixture::with(OK, |config| {
        accept_tokens(config);
        client_cert(ClientCert::Optional)(config);
        config.allow = vec![allow(None, Some("charges.read"), "* /**")];
    })
    .await;
    let token = fixture
        .ca
        .token(ORDERS, "payments", json!({"scope": "charges.read"}));
    let bearer = format!("authorization: Bearer {token}\r\n");
    let (mut nobody, mut orders) = (fixture.nobody().await, fixture.caller(ORDERS).await);
    assert_eq!(nobody.get_with("/a", &bearer).await.status(), 200);
    assert_eq!(orders.get_with("/a", &bearer).await.status(), 200);
    fixture.reload(client_cert(ClientCert::Required)).await;
    let answer = nobody.get_with("/a", &bearer).await;
    assert_eq!(reason(&answer), (403, "peer-not-accepted".to_owned()));
    assert_eq!(orders.get_with("/a", &bearer).await.status(), 200);
}

#[tokio::test]
async fn s09_an_open_stream_ends_when_what_proved_its_caller_is_accepted_no_more() {
    let mut fixture = Fixture::with(ENDLESS, accept_tokens).await;
    let mut orders = fixture.caller(ORDERS).await;
    let mut others = fixture.caller(ORDERS).await;
    let token = fixture.ca.token(ORDERS, "payments", json!({}));
    orders
        .send(format!(
            "GET /a HTTP/1.1\r\nhost: payments\r\nauthorization: Bearer {token}\r\n\r\n"
        ))
        .await;
    others
        .send("GET /b HTTP/1.1\r\nhost: payments\r\n\r\n")
        .await;
    for _ in 0..2 {
        fixture.seen().await;
    }
    fixture
        .reload(|config| config.accept = accept_certificates_of("example.org"))
        .await;
    assert!(orders.response().await.is_none());
    // Whom the certificate proves goes on.
    let more = tokio::time::timeout(Duration::from_secs(1), others.response()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn s16_permissive_mode_comes_and_goes_with_the_file() {
    let mut fixture = Fixture::new().await;
    let mut others = fixture.caller(OTHERS).await;
    assert_eq!(others.get("/a").await.status(), 403);
    assert!(fixture.nothing_seen());
    let until = SystemTime::now() + Duration::from_secs(60);
    let permissive = Permissive {
        until: Moment(until),
    };
    fixture
        .reload(|config| config.permissive = Some(permissive))
        .await;
    assert_eq!(others.get("/a").await.status(), 200);
    assert!(fixture.seen().await.all("x-warifu-caller").is_empty());
    fixture.reload(|config| config.permissive = None).await;
    assert_eq!(others.get("/a").await.status(), 403);
    assert!(fixture.nothing_seen());
}

#[tokio::test]
async fn new_connections_are_told_by_the_headers_asked_for_now_and_open_ones_as_before() {
    let mut fixture = Fixture::new().await;
    let mut open = fixture.caller(ORDERS).await;
    assert_eq!(open.get("/a").await.status(), 200);
    fixture.seen().await;
    fixture
        .reload(|config| config.client_cert_headers = vec![ClientCertHeader::ClientCert])
        .await;
    let mut new = fixture.caller(ORDERS).await;
    for (caller, told) in [(&mut open, [1, 0]), (&mut new, [0, 1])] {
        assert_eq!(caller.get("/a").await.status(), 200);
        let seen = fixture.seen().await;
        let names = ["x-forwarded-client-cert", "client-cert"];
        assert_eq!(names.map(|name| seen.all(name).len()), told);
    }
}

#[tokio::test]
async fn what_cant_be_had_changes_nothing_else_either() {
    let fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    let missing = PathBuf::from("/nonexistent/context.jwks");
    let refused = fixture.try_reload(|config| {
        config.allow.clear();
        config.context = Some(Context {
            key_file: missing.clone(),
        });
    });
    let why = refused.await.unwrap_err().to_string();
    assert!(why.contains("/nonexistent/context.jwks"), "{why}");
    assert_eq!(orders.get("/a").await.status(), 200);
}

#[tokio::test]
async fn s13_a_key_file_of_apps_is_left_as_it_is_by_a_change_that_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let key_file = directory.path().join("context.jwks");
    std::fs::write(&key_file, "another listener's").unwrap();
    let fixture = Fixture::new().await;
    let refused = fixture.try_reload(|config| {
        config.context = Some(Context {
            key_file: key_file.clone(),
        });
        config.rego = Some(Rego {
            files: vec!["/nonexistent/policy.rego".into()],
            query: "data.warifu.allow".to_owned(),
            timeout: Span(Duration::from_millis(200)),
        });
    });
    refused.await.unwrap_err();
    let left = std::fs::read_to_string(&key_file).unwrap();
    assert_eq!(left, "another listener's");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

//! Over real sockets: what a caller writes, what the app reads.

use std::time::{Duration, SystemTime};

use fixture::{App, Fixture, OK, ORDERS, PAYMENTS, accept_tokens, allow};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use super::*;
use crate::{config::value::Forward, http::server::Service};

mod bodies;
mod federated;
mod fixture;
mod framing;
mod limits;
mod opaque;
mod permissive;
mod proofs;
mod recorded;
#[cfg(feature = "rego")]
mod rego;
mod reload;
mod revoked;
mod times;
mod tokens;
mod told;
mod websocket;

/// It is moved several times on its way into its task: with room for a TLS handshake in it, it once was 33 KiB.
#[test]
fn what_carries_a_request_is_cheap_to_move() {
    fn size_of_made<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }
    let size = size_of_made(<forward::Front as Service>::call);
    assert!(size <= 16 * 1024, "{size} bytes");
}

#[tokio::test]
async fn a_caller_that_a_rule_allows_reaches_the_app_which_learns_who_it_is() {
    let mut fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    let answer = orders.get_with("/charges/1?a=b", "accept: */*\r\n").await;
    assert_eq!((answer.status(), &*answer), (200, "ok"));

    let seen = fixture.seen().await;
    assert_eq!(seen.first, "GET /charges/1?a=b HTTP/1.1");
    let [xfcc] = seen.all("x-forwarded-client-cert")[..] else {
        panic!("{seen:?}")
    };
    let (start, rest) = xfcc.split_once(";Hash=").unwrap();
    let (hash, end) = rest.split_once(';').unwrap();
    assert_eq!(
        (start, hash.len(), end),
        (
            "By=spiffe://example.org/payments",
            64,
            "URI=spiffe://example.org/orders"
        )
    );
    let [told] = seen.all("x-warifu-caller")[..] else {
        panic!("{seen:?}")
    };
    let told = warifu::caller::decode(&told.parse().unwrap()).unwrap();
    assert_eq!(told.peer_id().unwrap().to_string(), ORDERS);
    assert_eq!(told.peer.unwrap().cert_sha256, hash);
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("host"), ["payments"]);
    assert_eq!(seen.headers.len(), 6, "{:?}", seen.headers);

    let line = fixture.audited();
    assert_eq!(
        json!([
            line["event"],
            line["peer"],
            line["method"],
            line["path"],
            line["result"],
            line["rule"],
            line["status"]
        ]),
        json!([
            "inbound",
            ORDERS,
            "GET",
            "/charges/1",
            "allowed",
            "allow[0]",
            200
        ])
    );
    assert!(
        line["duration_us"].is_u64() && line["remote"].as_str().unwrap().starts_with("127.0.0.1:")
    );
    assert!(
        !line.to_string().contains("a=b"),
        "a query may hold what is nobody's business"
    );
}

#[tokio::test]
async fn s03_what_the_network_says_of_identity_does_not_reach_the_app() {
    let mut fixture = Fixture::with(OK, |config| {
        config
            .forward_claims
            .insert("sub".into(), HeaderName::from_static("x-user-id"));
    })
    .await;
    let mut orders = fixture.caller(ORDERS).await;
    let forged = "X-Forwarded-Client-Cert: By=forged\r\nx-forwarded-client-cert: URI=forged\r\n\
        x_forwarded_client_cert: forged\r\nX_Forwarded-Client_Cert: forged\r\n\
        x-warifu-caller: forged\r\nx_warifu_caller: forged\r\nx-warifu-context: forged\r\n\
        x-user-id: forged\r\nX_User_Id: forged\r\nclient-cert: forged\r\nclient_cert: forged\r\n\
        x-http-method-override: forged\r\nx-original-url: /forged\r\nx-rewrite-url: /forged\r\n\
        forwarded: for=forged\r\nx-forwarded-host: forged\r\nx_forwarded_for: forged\r\n\
        x-forwarded-for: 10.9.8.7\r\nx-forwarded-proto: http\r\nx-kept: yes\r\n";
    assert_eq!(orders.get_with("/a", forged).await.status(), 200);
    let seen = fixture.seen().await;
    assert!(
        !seen.headers.iter().any(|line| line.contains("forged")),
        "{seen:?}"
    );
    assert_eq!(seen.all("x-forwarded-client-cert").len(), 1);
    assert_eq!(seen.all("x-warifu-caller").len(), 1);
    assert_eq!(seen.all("x-forwarded-for"), ["10.9.8.7, 127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-kept"), ["yes"]);
}

#[tokio::test]
async fn s03_a_connection_header_takes_away_its_own_and_never_ours() {
    let mut fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    let lines = "connection: x-one\r\nConnection: x-two, x-forwarded-client-cert\r\n\
        connection: X-Warifu-Caller, x-forwarded-for, x-forwarded-proto, host\r\n\
        x-one: 1\r\nx-two: 2\r\nx-three: 3\r\nkeep-alive: 5\r\nproxy-authorization: x\r\nte: gzip\r\n";
    assert_eq!(orders.get_with("/a", lines).await.status(), 200);
    let seen = fixture.seen().await;
    let names: Vec<_> = seen
        .headers
        .iter()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "host",
            "x-forwarded-client-cert",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-three",
            "x-warifu-caller"
        ]
    );
}

#[tokio::test]
async fn s03_the_app_cannot_answer_as_an_agent() {
    let answer = "HTTP/1.1 200 OK\r\nx-warifu-reason: denied\r\nX_Warifu_Reason: denied\r\n\
        connection: x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\nx-kept: 1\r\ncontent-length: 0\r\n\r\n";
    let fixture = Fixture::with(App::Answers(answer), |_| {}).await;
    let answer = fixture.caller(ORDERS).await.get("/a").await;
    let names: Vec<_> = answer
        .headers
        .iter()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(names, ["content-length", "date", "x-kept"]);
}

#[tokio::test]
async fn s11_what_is_matched_is_what_is_forwarded() {
    let mut fixture = Fixture::with(OK, |config| {
        config.allow = vec![allow(Some(ORDERS), None, "GET /charges/*")];
    })
    .await;
    let mut orders = fixture.caller(ORDERS).await;
    for (asked, forwarded) in [
        ("/charges/1", "/charges/1"),
        ("/%63harges/%31?q=%2e%2f;", "/charges/1?q=%2e%2f;"),
        ("/charges/%e3%81%82", "/charges/%E3%81%82"),
        ("http://payments/%63harges/1?q", "/charges/1?q"),
        ("http://PAYMENTS/charges/1", "/charges/1"),
    ] {
        assert_eq!(orders.get(asked).await.status(), 200, "{asked}");
        assert_eq!(
            fixture.seen().await.first,
            format!("GET {forwarded} HTTP/1.1")
        );
        let path = forwarded.split('?').next().unwrap();
        assert_eq!(fixture.audited()["path"], path);
    }
    for asked in [
        "/charges/../admin",
        "/charges/%2e%2e/admin",
        "/charges//1",
        "//charges/1",
        "/charges/1;admin",
        "/charges/a%2f..%2fadmin",
        "/charges/a%5cadmin",
        "/charges/%00",
        "/charges/%zz",
        "*",
    ] {
        let answer = orders.get(asked).await;
        assert_eq!(
            (answer.status(), answer.all("x-warifu-reason")),
            (400, vec!["bad-path"]),
            "{asked}"
        );
        assert_eq!(fixture.audited()["reason"], "bad-path");
    }
    for asked in [
        "/charges",
        "/charges/",
        "/charges/1/",
        "/Charges/1",
        "/",
        "/charges/1/2",
    ] {
        assert_eq!(orders.get(asked).await.status(), 403, "{asked}");
    }
    assert!(fixture.nothing_seen());
}

#[tokio::test]
async fn s16_what_no_rule_allows_is_403_and_says_so() {
    let mut fixture = Fixture::with(OK, |config| {
        config.allow = vec![allow(Some(ORDERS), None, "GET /charges")];
    })
    .await;
    let mut orders = fixture.caller(ORDERS).await;
    let mut stranger = fixture.caller("spiffe://example.org/stranger").await;
    for (answer, detail) in [
        (orders.get("/admin").await, "no_rule_for_request"),
        (stranger.get("/charges").await, "no_rule_for_caller"),
    ] {
        assert_eq!(
            (answer.status(), answer.all("x-warifu-reason")),
            (403, vec!["denied"])
        );
        assert!(answer.contains("no rule allows this caller"), "{answer:?}");
        let line = fixture
            .audit
            .all()
            .into_iter()
            .find(|line| line["detail"] == detail)
            .unwrap();
        assert_eq!(line["result"], "denied");
        assert_eq!(line["status"], 403);
    }
    // On the connections that are open already, too.
    fixture.reload(|config| config.allow.clear()).await;
    assert_eq!(orders.get("/charges").await.status(), 403);
    let rules = [allow(Some("spiffe://example.org/*"), None, "GET /charges")];
    fixture.reload(|config| config.allow = rules.into()).await;
    assert_eq!(stranger.get("/charges").await.status(), 200);
    assert_eq!(fixture.seen().await.first, "GET /charges HTTP/1.1");
    assert!(fixture.nothing_seen());
}

#[tokio::test]
async fn a_caller_without_an_identity_is_refused_in_the_handshake_and_audited() {
    let fixture = Fixture::new().await;
    let mut nobody = fixture.nobody().await;
    nobody
        .send("GET / HTTP/1.1\r\nhost: payments\r\n\r\n")
        .await;
    assert!(nobody.response().await.is_none());
    while fixture.audit.all().is_empty() {
        tokio::task::yield_now().await;
    }
    let line = fixture.audited();
    assert_eq!(
        (line["event"].as_str(), line["result"].as_str()),
        (Some("inbound-connection"), Some("refused"))
    );
    assert!(
        line["detail"]
            .as_str()
            .unwrap()
            .contains("handshake failed"),
        "{line}"
    );
}

#[tokio::test]
async fn s13_an_expired_identity_is_not_served() {
    let fixture = Fixture::new().await;
    let expired = fixture.ca.identity_until(PAYMENTS, 2, SystemTime::now());
    for (identity, why) in [
        (None, "has no identity yet"),
        (Some(expired), "has expired"),
    ] {
        fixture.identity.send(identity.map(Arc::new)).unwrap();
        assert!(
            fixture
                .try_connect(fixture.client(ORDERS), b"http/1.1")
                .await
                .is_err()
        );
        while fixture.audit.all().is_empty() {
            tokio::task::yield_now().await;
        }
        let line = fixture.audited();
        assert!(line["detail"].as_str().unwrap().ends_with(why), "{line}");
    }
}

#[tokio::test]
async fn a_renewed_identity_serves_the_next_connection() {
    let fixture = Fixture::new().await;
    let mut before = fixture.caller(ORDERS).await;
    for generation in 2..4 {
        let renewed = Arc::new(fixture.ca.identity(PAYMENTS, generation));
        fixture.identity.send(Some(Arc::clone(&renewed))).unwrap();
        let stream = fixture.connect(fixture.client(ORDERS), b"http/1.1").await;
        let presented = stream.get_ref().1.peer_certificates().unwrap();
        assert_eq!(presented, renewed.svid.chain());
    }
    assert_eq!(before.get("/a").await.status(), 200);
}

#[tokio::test]
async fn an_app_that_does_not_answer_is_502_or_504() {
    for (app, status, reason) in [
        (App::Absent, 502, "app-unreachable"),
        (App::Closes, 502, "app-broke-off"),
        (App::Silent, 504, "app-timed-out"),
    ] {
        let fixture = Fixture::with(app, |_| {}).await;
        let answer = fixture.caller(ORDERS).await.get("/a").await;
        assert_eq!(
            (answer.status(), answer.all("x-warifu-reason")),
            (status, vec![reason])
        );
        assert!(
            !answer.contains("127.0.0.1"),
            "the caller learns nothing of our insides: {answer:?}"
        );
        let line = fixture.audited();
        assert_eq!(line["result"], "failed");
        assert!(
            line["detail"].as_str().unwrap().contains("127.0.0.1"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_request_whose_caller_goes_away_is_audited_as_cancelled() {
    let mut fixture = Fixture::with(App::Silent, |_| {}).await;
    let mut orders = fixture.caller(ORDERS).await;
    orders
        .send("GET /a HTTP/1.1\r\nhost: payments\r\n\r\n")
        .await;
    fixture.seen().await;
    drop(orders);
    while fixture.audit.all().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let line = fixture.audited();
    assert_eq!(
        (line["result"].as_str(), line["rule"].as_str()),
        (Some("cancelled"), Some("allow[0]"))
    );
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &fixture.registry).unwrap();
    assert!(text.contains("inbound_cancelled_total 1"), "{text}");
}

#[tokio::test]
async fn the_signed_context_is_for_this_request() {
    let directory = tempfile::tempdir().unwrap();
    let key_file = directory.path().join("context.jwks");
    let mut fixture = Fixture::with(OK, |config| {
        config.context = Some(crate::config::inbound::Context {
            key_file: key_file.clone(),
        });
    })
    .await;
    let mut orders = fixture.caller(ORDERS).await;
    orders
        .get_with("/%61?q=1", "x-warifu-context: forged\r\n")
        .await;
    let seen = fixture.seen().await;
    let [token] = seen.all("x-warifu-context")[..] else {
        panic!("{seen:?}")
    };
    let keys = std::fs::read(&key_file).unwrap();
    let keys = warifu::jwt::KeySet::from_jwks(&keys, "sig").unwrap();
    let verify = |target| context::verify(token, &keys, &Method::GET, target, SystemTime::now());
    assert_eq!(
        verify("/a?q=1").unwrap().peer_id().unwrap().to_string(),
        ORDERS
    );
    assert!(verify("/b?q=1").is_err());
}

#[tokio::test]
async fn an_unwritable_key_file_is_an_error_that_says_what_to_do() {
    let fixture = Fixture::new().await;
    let mut config = fixture::config(Forward::Unix("/nonexistent".into()));
    config.context = Some(crate::config::inbound::Context {
        key_file: "/nonexistent/context.jwks".into(),
    });
    let listener = Listener::bind(&config.listen).unwrap();
    let (_, draining) = server::drain();
    let environment = Environment {
        identity: fixture.identity.subscribe(),
        revocations: fixture.revocations.clone(),
        issuers: Issuers::default(),
        secrets: Secrets::new(None, Duration::from_secs(300)),
        evaluations: Evaluations::default(),
        pool: Pool::new(1),
        audit: Audit::discard(),
        counts: None,
        metrics: Metrics::new(&mut Default::default()),
        server_metrics: server::Metrics::default(),
        draining,
    };
    let error = start(&config, NonZeroU32::MIN, listener, &environment)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nonexistent/context.jwks") && error.contains("must exist"),
        "{error}"
    );
}

#[tokio::test]
async fn http_2_is_served_like_http_1() {
    let mut fixture = Fixture::new().await;
    let stream = fixture.connect(fixture.client(ORDERS), b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driving = tokio::spawn(connection);
    let request = Request::post("https://payments/%63harges?q=1")
        .header("x_forwarded_client_cert", "forged")
        .body(Full::new(bytes::Bytes::from_static(b"body")))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "ok"
    );
    let seen = fixture.seen().await;
    assert_eq!(
        (&*seen.first, &*seen),
        ("POST /charges?q=1 HTTP/1.1", "body")
    );
    assert_eq!(seen.all("host"), ["payments"]);
    assert_eq!(seen.all("x-forwarded-client-cert").len(), 1);
    assert!(seen.all("x_forwarded_client_cert").is_empty());

    let contradiction = Request::get("https://payments/a")
        .header("host", "elsewhere")
        .body(Full::default())
        .unwrap();
    let response = sender.send_request(contradiction).await.unwrap();
    assert_eq!(response.status(), 400);
    driving.abort();
}

#[tokio::test]
async fn s04_a_length_that_is_said_twice_is_refused() {
    let mut fixture = Fixture::new().await;
    let stream = fixture.connect(fixture.client(ORDERS), b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driving = tokio::spawn(connection);
    let request = Request::post("https://payments/a")
        .header("content-length", "4")
        .header("content-length", "04")
        .body(Full::new(bytes::Bytes::from_static(b"body")))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["x-warifu-reason"], "two-lengths");
    assert!(fixture.nothing_seen());
    driving.abort();
}

#[tokio::test]
async fn a_drain_ends_with_the_request_that_is_under_way() {
    let fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    assert_eq!(orders.get("/a").await.status(), 200);
    fixture.drain.start(Duration::from_secs(20));
    let answer = orders.get("/a").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(fixture.handle.drained().await, 0);
}

//! What is revoked is refused on connections that were up before, too.

use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use warifu::jwt::Algorithm;

use super::*;
use crate::{
    config::inbound::{Accept, BoundCertificate, Issuer, JwtAccept, JwtProfile},
    revocation::{Kind, Published},
};

const ISSUER: &str = "https://idp.example";
const MINUTE: Duration = Duration::from_secs(60);

impl Fixture {
    /// From now on nothing of this SPIFFE ID is good.
    pub(super) fn revoke(&self, id: &str) {
        self.learn(1, &[(Kind::SpiffeId, id)]);
    }

    /// From now on this list is in force.
    fn learn(&self, number: u64, entries: &[(Kind, &str)]) {
        let entries = entries.iter();
        let now = SystemTime::now();
        let published = Published {
            number,
            as_of: now,
            entries: entries
                .map(|(kind, value)| (*kind, (*value).to_owned()))
                .collect(),
        };
        self.revocations.learn(&published, now);
    }
}

#[tokio::test]
async fn a_peer_that_is_revoked_meanwhile_is_refused_on_its_live_connection_which_ends() {
    let mut fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    assert_eq!(orders.get("/charges/1").await.status(), 200);
    fixture.seen().await;

    // A list that has others on it changes nothing.
    fixture.learn(1, &[(Kind::SpiffeId, "spiffe://example.org/others")]);
    assert_eq!(orders.get("/charges/1").await.status(), 200);
    fixture.seen().await;

    fixture.learn(2, &[(Kind::SpiffeId, ORDERS)]);
    let refused = orders.get("/charges/1").await;
    assert_eq!(refused.status(), 403);
    assert_eq!(refused.all("x-warifu-reason"), ["revoked"]);
    assert_eq!(refused.all("connection"), ["close"]);
    assert!(
        orders.response().await.is_none(),
        "the connection is closed"
    );
    assert!(fixture.nothing_seen());
    let line = fixture.audited();
    assert_eq!(
        json!([
            line["peer"],
            line["result"],
            line["reason"],
            line["detail"],
            line["status"]
        ]),
        json!([
            ORDERS,
            "denied",
            "revoked",
            "the certificate is revoked by spiffe-id",
            403
        ])
    );

    // A new connection fares no better, until it is taken back.
    let mut again = fixture.caller(ORDERS).await;
    assert_eq!(again.get("/charges/1").await.status(), 403);
    fixture.learn(3, &[]);
    let mut again = fixture.caller(ORDERS).await;
    assert_eq!(again.get("/charges/1").await.status(), 200);
}

#[tokio::test]
async fn a_revoked_peer_hears_of_it_first_whatever_its_token_is_worth() {
    let fixture = Fixture::with(OK, accept_tokens).await;
    fixture.learn(1, &[(Kind::SpiffeId, ORDERS)]);
    let mut orders = fixture.caller(ORDERS).await;
    let refused = orders
        .get_with("/charges/1", "authorization: Bearer x.y.z\r\n")
        .await;
    assert_eq!(
        (refused.status(), refused.all("x-warifu-reason")),
        (403, vec!["revoked"])
    );
}

#[tokio::test]
async fn a_token_that_is_revoked_meanwhile_is_401_though_it_was_remembered_and_another_is_not() {
    let mut fixture = Fixture::with(OK, accept_tokens).await;
    let token = |claims| {
        let token = fixture.ca.token(ORDERS, "payments", claims);
        format!("authorization: Bearer {token}\r\n")
    };
    let mut values = vec![
        (
            Kind::TokenId,
            "t1",
            json!({"jti": "t1", "scope": "charges.read"}),
        ),
        (Kind::Lineage, "l1", json!({"warifu_lineage": "l1"})),
        (Kind::Role, "00ff", json!({"warifu_role": "00ff"})),
    ];
    let kid = fixture.ca.jwt.public().kid().to_owned();
    values.push((Kind::IssuerKey, &kid, json!({"jti": "t4"})));
    let other = token(json!({"jti": "other", "warifu_lineage": "other"}));
    let cases: Vec<_> = values
        .into_iter()
        .map(|(kind, value, claims)| (kind, value, token(claims)))
        .collect();
    let mut orders = fixture.caller(ORDERS).await;
    for (number, (kind, value, token)) in (1..).zip(&cases) {
        fixture.learn(number * 2 - 1, &[]);
        for _ in 0..2 {
            assert_eq!(orders.get_with("/charges/1", token).await.status(), 200);
            fixture.seen().await;
        }
        fixture.learn(number * 2, &[(*kind, *value)]);
        let refused = orders.get_with("/charges/1", token).await;
        assert_eq!(
            (refused.status(), refused.all("x-warifu-reason")),
            (401, vec!["revoked"]),
            "{kind}"
        );
        assert_eq!(
            refused.all("www-authenticate"),
            ["Bearer error=\"invalid_token\""]
        );
        assert!(fixture.nothing_seen());
        // The connection may carry others' tokens, too: it stays.
        let expected = if *kind == Kind::IssuerKey { 401 } else { 200 };
        assert_eq!(
            orders.get_with("/charges/1", &other).await.status(),
            expected,
            "{kind}"
        );
        if expected == 200 {
            fixture.seen().await;
        }
    }
}

#[tokio::test]
async fn a_list_that_is_too_old_is_503_where_the_configuration_says_refuse() {
    let revocations = identity::Revocations::refusing_after(MINUTE);
    let fixture = Fixture::with_revocations(OK, revocations, |_| {}).await;
    let mut orders = fixture.caller(ORDERS).await;
    let refused = orders.get("/charges/1").await;
    assert_eq!(
        (refused.status(), refused.all("x-warifu-reason")),
        (503, vec!["revocations-stale"])
    );
    assert_eq!(refused.all("retry-after"), ["1"]);
    assert_eq!(fixture.audited()["detail"], "no list yet");
    fixture.learn(0, &[]);
    assert_eq!(orders.get("/charges/1").await.status(), 200);
}

#[tokio::test]
async fn an_http2_connection_of_a_revoked_peer_ends_after_its_answer() {
    let fixture = Fixture::new().await;
    let stream = fixture.connect(fixture.client(ORDERS), b"h2").await;
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = || {
        Request::get("https://payments/charges/1")
            .body(Full::new(bytes::Bytes::new()))
            .unwrap()
    };
    assert_eq!(sender.send_request(request()).await.unwrap().status(), 200);
    fixture.learn(1, &[(Kind::SpiffeId, ORDERS)]);
    let refused = sender.send_request(request()).await.unwrap();
    assert_eq!(refused.status(), 403);
    drop(refused);
    let ended = tokio::time::timeout(Duration::from_secs(10), connection).await;
    ended.expect("GOAWAY, and the end").unwrap().unwrap();
}

/// An answer that began, and goes on for as long as anyone listens.
pub(super) const ENDLESS: App =
    App::Answers("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");

pub(super) type Sender<B> = hyper::client::conn::http2::SendRequest<B>;

/// A connection of *orders* that speaks HTTP/2.
pub(super) async fn http2<B>(fixture: &Fixture) -> Sender<B>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let stream = fixture.connect(fixture.client(ORDERS), b"h2").await;
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// A stream that began with an answer, and stays open.
pub(super) async fn stream(sender: &mut Sender<Full<bytes::Bytes>>) -> Incoming {
    let request = Request::get("https://payments/charges/watch");
    let request = request.body(Full::new(bytes::Bytes::new())).unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
    body
}

pub(super) async fn breaks_off(mut body: Incoming) {
    let next = tokio::time::timeout(fixture::DEADLINE, body.frame()).await;
    let next = next.expect("the stream ends");
    assert!(matches!(next, Some(Err(_))), "{next:?}");
}

#[tokio::test]
async fn an_open_stream_ends_when_its_caller_is_revoked_and_counts() {
    let mut fixture = Fixture::with(ENDLESS, |_| {}).await;
    let mut orders = http2(&fixture).await;
    let (one, other) = (stream(&mut orders).await, stream(&mut orders).await);
    let mut over_http1 = fixture.caller(ORDERS).await;
    over_http1
        .send("GET /charges/watch HTTP/1.1\r\nhost: payments\r\n\r\n")
        .await;
    for _ in 0..3 {
        fixture.seen().await;
    }
    fixture.learn(1, &[(Kind::SpiffeId, ORDERS)]);
    breaks_off(one).await;
    breaks_off(other).await;
    assert!(over_http1.response().await.is_none());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &fixture.registry).unwrap();
    assert!(text.contains("inbound_withdrawn_total 3\n"), "{text}");
}

#[tokio::test]
async fn an_open_stream_ends_when_no_rule_allows_it_any_more_and_lives_on_while_one_does() {
    let fixture = Fixture::with(ENDLESS, |_| {}).await;
    let mut orders = http2(&fixture).await;
    let mut body = stream(&mut orders).await;
    fixture.learn(1, &[(Kind::SpiffeId, "spiffe://example.org/others")]);
    let fewer = vec![allow(Some(ORDERS), None, "GET /charges/*")];
    fixture.reload(|config| config.allow = fewer).await;
    // Past the next time it is asked.
    let asked = crate::http::still::CHECK_EVERY + Duration::from_secs(1);
    let next = tokio::time::timeout(asked, body.frame()).await;
    assert!(next.is_err(), "{next:?}");
    fixture.reload(|config| config.allow.clear()).await;
    breaks_off(body).await;
}

#[tokio::test]
async fn an_upload_without_an_end_is_refused_when_its_caller_is_revoked() {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = app.local_addr().unwrap();
    let fixture = Fixture::with(App::Absent, |config| {
        config.forward = Some(Forward::Tcp(address));
        config.timeouts.first_byte = Some(crate::config::value::Span(Duration::ZERO));
    })
    .await;
    let mut orders = http2(&fixture).await;
    let (more, body) = pieces();
    let request = Request::post("https://payments/charges")
        .body(body)
        .unwrap();
    let answer = tokio::spawn(orders.send_request(request));
    more.send("piece").unwrap();
    let reached = tokio::time::timeout(fixture::DEADLINE, app.accept()).await;
    let (mut stream, _) = reached.expect("the app is reached").unwrap();
    stream.readable().await.unwrap();
    fixture.learn(1, &[(Kind::SpiffeId, ORDERS)]);
    let answer = tokio::time::timeout(fixture::DEADLINE, answer).await;
    let answer = answer.expect("an answer").unwrap().unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.headers()["x-warifu-reason"], "revoked");
    // The app is told as well: its connection ends before the request does.
    let mut rest = Vec::new();
    let read = tokio::time::timeout(fixture::DEADLINE, stream.read_to_end(&mut rest)).await;
    let _ = read.expect("the end");
    assert!(!rest.ends_with(b"0\r\n\r\n"));
}

/// A body that is as long as its sender is there.
struct Pieces(tokio::sync::mpsc::UnboundedReceiver<&'static str>);

fn pieces() -> (tokio::sync::mpsc::UnboundedSender<&'static str>, Pieces) {
    let (more, pieces) = tokio::sync::mpsc::unbounded_channel();
    (more, Pieces(pieces))
}

impl http_body::Body for Pieces {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        let piece = self.0.poll_recv(cx);
        piece.map(|piece| piece.map(|text| Ok(http_body::Frame::data(text.into()))))
    }
}

#[tokio::test]
async fn a_stream_ends_where_new_rules_look_at_headers_that_nobody_kept() {
    let fixture = Fixture::with(ENDLESS, |_| {}).await;
    let mut orders = http2(&fixture).await;
    let open = stream(&mut orders).await;
    // It denies nobody that says nothing of it; but what the request said is not known any more.
    let mut deny = allow(Some(ORDERS), None, "* /**");
    deny.headers = [("x-tenant".parse().unwrap(), vec!["acme".to_owned()])].into();
    fixture.reload(|config| config.deny.push(deny)).await;
    breaks_off(open).await;
    // From now on they are kept.
    let mut still_open = stream(&mut orders).await;
    let next = tokio::time::timeout(2 * crate::http::still::CHECK_EVERY, still_open.frame());
    assert!(next.await.is_err());
}

#[tokio::test]
async fn s09_a_caller_that_is_revoked_while_keys_are_fetched_for_its_token_is_refused() {
    let issuer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let keys_at = format!("http://{}/keys", issuer.local_addr().unwrap());
    let mut fixture = Fixture::with(OK, |config| {
        config.accept.push(Accept::Jwt(JwtAccept {
            name: "idp".to_owned(),
            profile: JwtProfile::Oidc {
                issuer: Issuer {
                    url: ISSUER.to_owned(),
                    jwks_uri: Some(serde_json::from_value(json!(keys_at)).unwrap()),
                    ca_bundle: None,
                },
                audiences: vec!["payments".to_owned()],
                algorithms: vec![Algorithm::ES256],
            },
            max_lifetime: None,
            bound_certificate: BoundCertificate::Checked,
        }));
    })
    .await;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let claims = json!({"iss": ISSUER, "iat": since.unwrap().as_secs()});
    let token = fixture.ca.token("someone", "payments", claims);
    let mut orders = fixture.caller(ORDERS).await;
    let asked =
        format!("GET /a HTTP/1.1\r\nhost: payments\r\nauthorization: Bearer {token}\r\n\r\n");
    orders.send(&asked).await;
    let (mut fetching, _) = issuer.accept().await.unwrap();
    fixture.revoke(ORDERS);
    let keys = json!({"keys": [fixture.ca.jwt.public().to_json("sig")]}).to_string();
    let length = keys.len();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{keys}");
    fetching.write_all(answer.as_bytes()).await.unwrap();
    let refused = orders.response().await.unwrap();
    assert_eq!(
        (refused.status(), refused.all("x-warifu-reason")),
        (403, vec!["revoked"])
    );
    assert!(fixture.nothing_seen());

    // The token is good: it is taken once the caller is.
    fixture.learn(2, &[]);
    let answer = fixture.caller(ORDERS).await.ask(&asked).await;
    assert_eq!(answer.status(), 200);
}

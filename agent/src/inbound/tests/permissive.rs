//! Permissive mode: what would be refused is let pass until its moment, written down, and told to nobody as anyone's.

use super::{
    revoked::{ENDLESS, breaks_off, http2, stream},
    websocket::{AGREED, BYTES, HANDSHAKE},
    *,
};
use crate::{
    config::{inbound::Permissive, value::Moment},
    http::still::CHECK_EVERY,
    inbound::refusal::Refusal,
};

const HOUR: Duration = Duration::from_secs(3600);

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

/// *orders* may ask for one thing; for so long nobody is refused the rest.
pub(super) fn permissive(config: &mut crate::config::inbound::Inbound, ahead: Duration) {
    accept_tokens(config);
    config.allow = vec![allow(Some(ORDERS), None, "GET /charges")];
    ends_in(config, ahead);
    config
        .forward_claims
        .insert("sub".into(), HeaderName::from_static("x-user-id"));
}

fn ends_in(config: &mut crate::config::inbound::Inbound, ahead: Duration) {
    let until = Moment(SystemTime::now() + ahead);
    config.permissive = Some(Permissive { until });
}

const FORGED: &str = "x-warifu-caller: forged\r\nx-warifu-context: forged\r\nx-user-id: forged\r\n\
                      x-forwarded-client-cert: forged\r\n";

#[tokio::test]
async fn s16_permissive_mode_lets_pass_what_it_would_refuse_says_so_and_forwards_no_identity() {
    let mut fixture = Fixture::with(OK, |config| permissive(config, HOUR)).await;
    let mut orders = fixture.caller(ORDERS).await;
    let good = fixture.ca.token(ORDERS, "payments", json!({}));
    for (path, line, reason) in [
        ("/refunds", String::new(), "denied"),
        ("/refunds", bearer(&good), "denied"),
        ("/charges", bearer("nonsense"), "invalid-token"),
        (
            "/charges",
            "authorization: Basic dTpw\r\n".to_owned(),
            "invalid-token",
        ),
    ] {
        let lines = format!("{line}{FORGED}");
        assert_eq!(orders.get_with(path, &lines).await.status(), 200);
        let seen = fixture.seen().await;
        for ours in [
            "x-warifu-caller",
            "x-warifu-context",
            "x-user-id",
            "x-forwarded-client-cert",
        ] {
            assert!(seen.all(ours).is_empty(), "{seen:?}");
        }
        // As if we were not there.
        let authorization = line.trim_end().strip_prefix("authorization: ");
        assert_eq!(seen.all("authorization"), authorization.as_slice());
        let audited = fixture.audited();
        assert_eq!(
            json!([audited["result"], audited["reason"], audited["status"]]),
            json!(["let-pass", reason, 200])
        );
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &fixture.registry).unwrap();
    assert!(
        text.contains(r#"inbound_let_pass_total{reason="denied"} 2"#),
        "{text}"
    );
    // Whom it knows it tells of, and what is no question of who calls is refused.
    assert_eq!(orders.get_with("/charges", FORGED).await.status(), 200);
    assert_eq!(fixture.seen().await.all("x-warifu-caller").len(), 1);
    assert_eq!(fixture.audited()["result"], "allowed");
    assert_eq!(orders.get("/a/%2e%2e/b").await.status(), 400);
}

#[tokio::test]
async fn s16_permissive_mode_ends_at_its_moment_without_a_restart() {
    let fixture = Fixture::with(OK, |config| permissive(config, HOUR)).await;
    let terms = fixture.handle.inbound.terms();
    let until = terms.permissive_until().unwrap();
    let just_before = until - Duration::from_nanos(1);
    assert!(terms.lets_pass(&Refusal::Unauthenticated, just_before));
    assert!(!terms.lets_pass(&Refusal::Unauthenticated, until));
    // What it says of the moment is asked with every request.
    let fixture = Fixture::with(OK, |config| permissive(config, Duration::ZERO)).await;
    let mut orders = fixture.caller(ORDERS).await;
    assert_eq!(orders.get("/refunds").await.status(), 403);
}

/// What was opened as nobody's, over a stream and over a WebSocket.
struct Open {
    stream: hyper::body::Incoming,
    _orders: revoked::Sender<Full<bytes::Bytes>>,
    streams: Fixture,
    socket: fixture::Caller1,
    sockets: Fixture,
}

impl Open {
    async fn new() -> Self {
        let streams = Fixture::with(ENDLESS, |config| permissive(config, HOUR)).await;
        let mut orders = http2(&streams).await;
        let stream = stream(&mut orders).await;
        assert_eq!(open_audited(&streams), "let-pass");
        let sockets = Fixture::with(AGREED, |config| permissive(config, HOUR)).await;
        let mut socket = sockets.caller(ORDERS).await;
        assert_eq!(socket.ask(HANDSHAKE).await.status(), 101);
        assert_eq!(open_audited(&sockets), "let-pass");
        Self {
            stream,
            _orders: orders,
            streams,
            socket,
            sockets,
        }
    }

    async fn both_end(mut self) {
        breaks_off(self.stream).await;
        assert!(self.socket.response().await.is_none());
    }
}

fn open_audited(fixture: &Fixture) -> serde_json::Value {
    fixture.audited()["result"].clone()
}

#[tokio::test]
async fn s16_what_was_opened_as_nobodys_goes_on_and_ends_when_permissive_mode_does() {
    let mut open = Open::new().await;
    let asked = CHECK_EVERY + Duration::from_secs(1);
    let next = tokio::time::timeout(asked, open.stream.frame()).await;
    assert!(next.is_err(), "{next:?}");
    assert_eq!(open.socket.ask(BYTES).await.status(), 101);
    for fixture in [&open.streams, &open.sockets] {
        fixture
            .reload(|config| ends_in(config, Duration::ZERO))
            .await;
    }
    open.both_end().await;
}

#[tokio::test]
async fn s16_what_was_opened_as_nobodys_ends_when_its_callers_certificate_is_revoked() {
    let open = Open::new().await;
    for fixture in [&open.streams, &open.sockets] {
        fixture.revoke(ORDERS);
    }
    open.both_end().await;
}

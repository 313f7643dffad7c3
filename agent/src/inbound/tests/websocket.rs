//! WebSockets of callers: let in as any request is, and for as long as it would be.

use super::*;

pub(super) const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nhost: payments\r\nconnection: Upgrade, x-forwarded-client-cert\r\n\
     upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
     x-warifu-caller: forged\r\n\r\n";

pub(super) const AGREED: App = App::Answers(
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
     sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nx-warifu-reason: forged\r\n\r\n",
);

/// What only looks like a request: inside a tunnel nobody looks.
pub(super) const BYTES: &str =
    "SMUGGLED //../%2f HTTP/1.1\r\nconnection: x-bytes\r\nx-bytes: 1\r\n\r\n";

#[tokio::test]
async fn s04_a_websocket_is_authenticated_and_authorised_then_carried_until_a_rule_changes() {
    let mut fixture = Fixture::with(AGREED, |_| {}).await;
    let refused = fixture.caller(PAYMENTS).await.ask(HANDSHAKE).await;
    assert_eq!(refused.status(), 403);
    assert!(fixture.nothing_seen());

    let mut orders = fixture.caller(ORDERS).await;
    let answer = orders.ask(HANDSHAKE).await;
    assert_eq!(answer.status(), 101, "{}", answer.first);
    assert_eq!(answer.all("connection"), ["upgrade"]);
    assert_eq!(answer.all("upgrade"), ["websocket"]);
    assert!(answer.all("x-warifu-reason").is_empty());
    let seen = fixture.seen().await;
    assert_eq!(seen.first, "GET /chat HTTP/1.1");
    assert_eq!(seen.all("upgrade"), ["websocket"]);
    assert_eq!(seen.all("connection"), ["upgrade"]);
    assert!(seen.all("x-forwarded-client-cert")[0].contains(ORDERS));
    assert_ne!(seen.all("x-warifu-caller"), ["forged"]);

    for _ in 0..2 {
        let echoed = orders.ask(BYTES).await;
        assert_eq!(echoed.all("x-warifu-reason"), ["forged"]);
        let seen = fixture.seen().await;
        assert_eq!(seen.first, "SMUGGLED //../%2f HTTP/1.1");
        assert_eq!(seen.all("x-bytes"), ["1"]);
    }
    let allowed = fixture.audited();
    assert_eq!(
        (&allowed["path"], &allowed["status"]),
        (&json!("/chat"), &json!(101))
    );

    fixture.reload(|config| config.allow.clear()).await;
    assert!(orders.response().await.is_none());
}

#[tokio::test]
async fn a_websocket_takes_a_connection_s_place_and_is_closed_when_a_drain_ends() {
    let fixture = Fixture::with(AGREED, |config| config.max_connections = 1).await;
    let mut orders = fixture.caller(ORDERS).await;
    assert_eq!(orders.ask(HANDSHAKE).await.status(), 101);
    let crowded = fixture.caller(ORDERS).await.ask(HANDSHAKE).await;
    assert_eq!(crowded.status(), 503);

    fixture.drain.start(Duration::from_millis(500));
    // It lives on while others go.
    assert_eq!(orders.ask(BYTES).await.status(), 101);
    assert_eq!(fixture.handle.drained().await, 1);
    assert!(orders.response().await.is_none());
}

#[tokio::test]
async fn s04_an_app_that_agrees_to_something_else_is_502() {
    const OTHER: App = App::Answers(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
    );
    let fixture = Fixture::with(OTHER, |_| {}).await;
    let answer = fixture.caller(ORDERS).await.ask(HANDSHAKE).await;
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.all("x-warifu-reason"), ["app-switched-wrongly"]);
    // What no one asked for is none either.
    let fixture = Fixture::with(AGREED, |_| {}).await;
    let answer = fixture.caller(ORDERS).await.get("/chat").await;
    assert_eq!(answer.status(), 502);
}

//! How long the app may take.

use super::*;
use crate::config::{outbound::Timeouts, value::Span};

const HALF: App = App::Answers("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst");

/// Longer than anything here takes that has a limit.
const LONG: Duration = Duration::from_secs(2);

fn within(first_byte: Duration, whole: Option<Duration>) -> impl FnOnce(&mut config::Inbound) {
    move |config| {
        config.timeouts = Timeouts {
            first_byte: Some(Span(first_byte)),
            whole: whole.map(Span),
            ..Timeouts::default()
        }
    }
}

#[tokio::test]
async fn the_first_byte_of_an_answer_is_waited_for_as_long_as_configured_and_with_0s_for_ever() {
    let limit = Duration::from_millis(50);
    let fixture = Fixture::with(App::Silent, within(limit, None)).await;
    let answer = fixture.caller(ORDERS).await.get("/a").await;
    assert_eq!(
        (answer.status(), answer.all("x-warifu-reason")),
        (504, vec!["app-timed-out"])
    );
    let detail = fixture.audited()["detail"].to_string();
    assert!(detail.contains("50ms"), "{detail}");

    let fixture = Fixture::with(App::Silent, within(Duration::ZERO, None)).await;
    let mut orders = fixture.caller(ORDERS).await;
    let answer = tokio::time::timeout(LONG, orders.get("/a")).await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn the_whole_of_an_answer_is_limited_before_it_begins_and_in_its_midst() {
    let limit = Duration::from_millis(100);
    let fixture = Fixture::with(App::Silent, within(Duration::ZERO, Some(limit))).await;
    let answer = fixture.caller(ORDERS).await.get("/a").await;
    assert_eq!(
        (answer.status(), answer.all("x-warifu-reason")),
        (504, vec!["app-timed-out"])
    );
    let detail = fixture.audited()["detail"].to_string();
    assert!(detail.contains("timeouts.whole"), "{detail}");

    let fixture = Fixture::with(HALF, within(Duration::ZERO, Some(limit))).await;
    let mut orders = fixture.caller(ORDERS).await;
    orders
        .send("GET /a HTTP/1.1\r\nhost: payments\r\n\r\n")
        .await;
    // It is not passed off as whole: the connection ends in its midst.
    assert!(orders.response().await.is_none());
}

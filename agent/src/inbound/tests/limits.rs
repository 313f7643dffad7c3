//! How much is served, and of what the audit log tells.

use std::num::NonZeroUsize;

use super::*;
use crate::config::{
    inbound::{Limits, PerCaller, Rate},
    value::Span,
};

const BILLING: &str = "spiffe://example.org/billing";

fn per_caller(limits: PerCaller) -> impl FnOnce(&mut config::Inbound) {
    move |config| {
        config.limits.per_caller = limits;
        config.allow.push(allow(Some(BILLING), None, "* /**"));
    }
}

fn two() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(1)
}

#[tokio::test]
async fn s14_a_caller_that_asks_too_often_is_told_to_wait_and_others_are_not() {
    let rate = Rate {
        requests: two(),
        every: Span(Duration::from_secs(3600)),
        burst: None,
    };
    let limits = PerCaller {
        rate: Some(rate),
        concurrency: None,
    };
    let fixture = Fixture::with(OK, per_caller(limits)).await;
    let mut orders = fixture.caller(ORDERS).await;
    for _ in 0..2 {
        assert_eq!(orders.get("/a").await.status(), 200);
    }
    // Another connection is no other caller.
    let mut again = fixture.caller(ORDERS).await;
    for caller in [&mut orders, &mut again] {
        let refused = caller.get("/a").await;
        let reason = refused.all("x-warifu-reason");
        assert_eq!((refused.status(), reason), (429, vec!["too-many-requests"]));
        let wait: u64 = refused.all("retry-after")[0].parse().unwrap();
        assert!((1700..=1800).contains(&wait), "{wait}");
    }
    let line = fixture.audited();
    assert_eq!(
        (&line["result"], &line["status"]),
        (&json!("refused"), &json!(429))
    );
    assert!(line["detail"].to_string().contains("its rate"), "{line}");
    let mut billing = fixture.caller(BILLING).await;
    assert_eq!(billing.get("/a").await.status(), 200);
}

#[tokio::test]
async fn s14_a_caller_has_as_many_requests_under_way_as_it_may_and_gets_its_places_back() {
    let limits = PerCaller {
        rate: None,
        concurrency: Some(NonZeroUsize::MIN),
    };
    let mut fixture = Fixture::with(App::Silent, per_caller(limits)).await;
    let mut first = fixture.caller(ORDERS).await;
    first
        .send("GET /a HTTP/1.1\r\nhost: payments\r\n\r\n")
        .await;
    fixture.seen().await;
    let refused = fixture.caller(ORDERS).await.get("/b").await;
    assert_eq!(
        (refused.status(), refused.all("retry-after")),
        (429, vec!["1"])
    );
    // Who goes away leaves its place.
    drop(first);
    let mut next = fixture.caller(ORDERS).await;
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            next.send("GET /c HTTP/1.1\r\nhost: payments\r\n\r\n").await;
            tokio::select! {
                _ = fixture.seen() => return,
                refused = next.response() => assert_eq!(refused.unwrap().status(), 429),
            }
        }
    });
    waited.await.unwrap();
}

#[tokio::test]
async fn s14_a_listener_has_so_many_requests_under_way_and_answers_503_beyond() {
    let limits = |config: &mut config::Inbound| {
        config.limits = Limits {
            concurrency: Some(NonZeroUsize::MIN),
            ..Limits::default()
        };
        config.allow.push(allow(Some(BILLING), None, "* /**"));
    };
    let mut fixture = Fixture::with(App::Silent, limits).await;
    let mut first = fixture.caller(ORDERS).await;
    first
        .send("GET /a HTTP/1.1\r\nhost: payments\r\n\r\n")
        .await;
    fixture.seen().await;
    let refused = fixture.caller(BILLING).await.get("/b").await;
    let reason = refused.all("x-warifu-reason");
    assert_eq!((refused.status(), reason), (503, vec!["crowded"]));
    assert_eq!(refused.all("retry-after"), ["1"]);
}

#[tokio::test]
async fn of_allowed_requests_as_many_lines_are_written_as_asked_and_of_refused_ones_all() {
    let fixture = Fixture::sampled(NonZeroU32::MIN.saturating_add(2), |_| {}).await;
    let mut orders = fixture.caller(ORDERS).await;
    for _ in 0..7 {
        assert_eq!(orders.get("/a").await.status(), 200);
        assert_eq!(orders.get_with("/a", "host: two\r\n").await.status(), 400);
        orders = fixture.caller(ORDERS).await;
    }
    let lines = fixture.audit.all();
    let of = |result: &str| lines.iter().filter(|line| line["result"] == result).count();
    // The first, the fourth and the seventh.
    assert_eq!((of("allowed"), of("refused")), (3, 7), "{lines:#?}");
    for line in lines {
        let one_in = (line["result"] == "allowed").then_some(3);
        assert_eq!(
            line.get("one_in").and_then(serde_json::Value::as_u64),
            one_in
        );
    }
}

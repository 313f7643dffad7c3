//! What is changed between the agent and the service, the service refuses.

use bytes::Bytes;
use http::{Request, header::HOST};
use serde_json::json;
use warifu_tests::aws::{API_ACTION, Account};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_changed_on_its_way_is_refused_by_the_service() {
    let account = Account::open().await;
    let role = account.role("caller", json!({}), API_ACTION).await;
    let route = format!("role: \"{role}\", signed_headers: [x-tenant]");
    let agent = account.agent(&[account.api_route("api", &route)]);
    let request = || {
        Request::post("/charges?to=alice")
            .header(HOST, "api")
            .header("content-type", "application/json")
            .header("x-tenant", "blue")
            .body(Bytes::from(r#"{"amount": 1}"#))
            .unwrap()
    };
    agent.send(request()).await.is_of_the_service(200);
    let changes = [
        (r#""amount": 1"#, r#""amount": 9"#),
        ("/charges", "/refunds"),
        ("to=alice", "to=mallo"),
        ("x-tenant: blue", "x-tenant: pink"),
        (
            "content-type: application/json",
            "content-type: application/jsox",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=ASIA",
            "AWS4-HMAC-SHA256 Credential=ASIB",
        ),
    ];
    for (n, (this, that)) in changes.into_iter().enumerate() {
        account.wire.swap(this, that);
        let answer = agent.send(request()).await;
        assert_eq!(account.wire.swapped(), n + 1, "{this} was not sent");
        answer.is_of_the_service(403);
    }
}

//! Routes with `access_token`: the authority's access tokens (RFC 9068) go with what the app sends, one for many
//! requests, and for no other audience or scope than the route names.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use warifu_tests::mesh::{Answer, Mesh, Seen, until};

async fn mesh() -> Mesh {
    Mesh::with(|authority| {
        let authority = authority.jwt_ttl(Duration::from_secs(300));
        authority.more("tokens: {access_token: {issuer: \"https://tokens.example.org\"}}")
    })
    .await
}

/// Header and claims of the token that a request came with.
fn token(seen: &Seen) -> [Value; 2] {
    let mut lines = seen.headers.get_all("authorization").iter();
    let line = lines.next().expect("a token").to_str().unwrap();
    assert!(lines.next().is_none());
    let token = line.strip_prefix("Bearer ").expect("a bearer token");
    let mut parts = token.split('.');
    [(); 2].map(|()| {
        let part = URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
        serde_json::from_slice(&part).unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_a_request_goes_with_an_access_token_of_the_routes_audience_and_scopes_and_no_other() {
    let mesh = mesh().await;
    let app = mesh.plain_app().await;
    let route = |more: &str| format!("{{host: ledger, upstream: \"{}\", {more}}}", app.url());
    let agent = mesh
        .agent("orders")
        .route(&route(
            "access_token: {audience: ledger, scopes: [charges.read]}",
        ))
        .route(&format!(
            "{{host: greedy, upstream: \"{}\", access_token: {{audience: ledger, scopes: [charges.delete]}}}}",
            app.url()
        ))
        .start()
        .await;
    let client = agent.client();
    for _ in 0..20 {
        let request = client
            .get("http://ledger/charges")
            .header("authorization", "Bearer mine");
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let [header, claims] = token(&app.last());
    assert_eq!(header["typ"], "at+jwt");
    assert_eq!(claims["aud"], "ledger");
    assert_eq!(claims["scope"], "charges.read");
    assert_eq!(claims["iss"], "https://tokens.example.org");
    assert_eq!(claims["sub"], "spiffe://example.org/orders");
    let minted = mesh.authority.audit("access-token").into_iter();
    let minted = minted.filter(|line| line["audiences"] == json!(["ledger"]));
    assert_eq!(minted.count(), 1);

    let refused = client.get("http://greedy/charges").send().await.unwrap();
    assert_eq!(refused.status(), 403);
    assert_eq!(refused.headers()["x-warifu-reason"], "token-refused");
    assert_eq!(app.count(), 20);
    let status = agent.status().await;
    let tokens = status["tokens"].as_array().unwrap();
    let ledger = tokens
        .iter()
        .find(|it| it["scopes"] == json!(["charges.read"]));
    assert_eq!(ledger.unwrap()["kind"], "access-token");
    assert_eq!(status["routes"][0]["attaches"], "access_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_token_that_the_upstream_refuses_is_replaced_once_where_the_request_can_be_sent_again()
 {
    let mesh = mesh().await;
    let app = mesh.plain_app().await;
    let agent = mesh
        .agent("orders")
        .route(&format!(
            "{{host: ledger, upstream: \"{}\", access_token: {{audience: ledger}}}}",
            app.url()
        ))
        .start()
        .await;
    let client = agent.client();
    until("there is a token", async || {
        let answer = client.get("http://ledger/").send().await.unwrap();
        (answer.status() == 200).then_some(())
    })
    .await;
    let before = app.count();
    app.next(Answer::status(401));
    let answer = client.get("http://ledger/").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let seen = app.seen();
    assert_eq!(seen.len(), before + 2);
    let ids: Vec<Value> = seen[before..]
        .iter()
        .map(|it| token(it)[1]["jti"].clone())
        .collect();
    assert_ne!(ids[0], ids[1]);
}

//! Service A calls service B; neither holds a credential, and B knows who called.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use warifu::Client;
use warifu_tests::mesh::{MTLS_AND_JWT, Mesh, ORDERS, Shop, streamed};

/// More than any buffer on the way.
const LARGE: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_learns_who_called_over_its_unix_socket() {
    let shop = Shop::open_with_jwt().await;
    learns_who_called(shop.orders.client()).await;
    learns_who_called(shop.orders.client().http2()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_learns_who_called_over_tcp_by_a_signed_context() {
    let mesh = Mesh::start().await;
    let app = mesh.app_over_tcp("payments").await;
    let payments = mesh.agent("payments").app(&app);
    let payments = payments.accept(MTLS_AND_JWT).allow(ORDERS).start().await;
    let orders = mesh
        .agent("orders")
        .outbound_over_tcp()
        .route_to("payments", &payments, "jwt: {audience: payments}")
        .start()
        .await;
    learns_who_called(orders.client()).await;
    learns_who_called(orders.client().http2()).await;
}

async fn learns_who_called(client: Client) {
    let answer = client
        .post("http://payments/charges?page=2")
        .body("twelve euros");
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let told: Value = answer.json().await.unwrap();
    let caller = &told["caller"];
    assert_eq!(caller["peer"]["spiffe_id"], "spiffe://example.org/orders");
    assert_eq!(caller["subject"]["subject"], "spiffe://example.org/orders");
    assert_eq!(caller["subject"]["proof"], "jwt-svid");
    assert_eq!(caller["subject"]["scopes"], json!(["charges.read"]));
    let asked = [&told["method"], &told["target"], &told["bytes"]];
    assert_eq!(
        asked,
        [&json!("POST"), &json!("/charges?page=2"), &json!(12)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_and_trailers_stream_both_ways() {
    let shop = Shop::open().await;
    for client in [shop.orders.client(), shop.orders.client().http2()] {
        let (send, body) = streamed();
        let request = Request::post("http://payments/echo")
            .header("te", "trailers")
            .header("trailer", "x-checksum");
        let answer = client.request(request.body(body).unwrap());
        // The head of the answer comes while we have not sent a byte, the first piece comes back
        // before there is a second.
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut answer = answer.into_http().into_body();
        send.data("first").await;
        let first = answer.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "first");

        let sending = tokio::spawn(async move {
            let piece = Bytes::from(vec![b'x'; 64 << 10]);
            for _ in 0..LARGE / piece.len() {
                send.data(piece.clone()).await;
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", "42".parse().unwrap());
            send.trailers(trailers).await;
        });
        let (mut received, mut trailers) = (0, HeaderMap::new());
        while let Some(frame) = answer.frame().await {
            match frame.unwrap().into_data() {
                Ok(data) => received += data.len(),
                Err(frame) => trailers = frame.into_trailers().unwrap(),
            }
        }
        sending.await.unwrap();
        assert_eq!(received, LARGE);
        assert_eq!(trailers["x-checksum"], "42");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_does_not_read_holds_the_sender_up_and_fills_no_memory() {
    let shop = Shop::open().await;
    for client in [shop.orders.client(), shop.orders.client().http2()] {
        let held = shop.app.hold();
        let (send, body) = streamed();
        let request = Request::post("http://payments/charges").body(body).unwrap();
        let answer = tokio::spawn(async move { client.request(request).await });
        let piece = Bytes::from(vec![b'x'; 64 << 10]);
        let mut sent = 0;
        // Nobody reads, so the way fills up; what it took then is what is buffered on it.
        let stalled = Duration::from_secs(1);
        while tokio::time::timeout(stalled, send.data(piece.clone()))
            .await
            .is_ok()
        {
            sent += piece.len();
            assert!(
                sent < LARGE / 4,
                "{sent} bytes are buffered for an app that does not read"
            );
        }
        drop(held);
        drop(send);
        let told: Value = answer.await.unwrap().unwrap().json().await.unwrap();
        assert_eq!(told["bytes"], sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_arrives_whole() {
    let shop = Shop::open().await;
    for client in [shop.orders.client(), shop.orders.client().http2()] {
        let url = format!("http://payments/bytes/{LARGE}");
        let answer = client.get(&url).send().await.unwrap();
        let mut body = answer.into_http().into_body();
        let mut received = 0;
        while let Some(frame) = body.frame().await {
            received += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(received, LARGE);
    }
}

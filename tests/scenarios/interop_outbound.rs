//! The outbound listener, called by programs that know nothing of agents.

use serde_json::Value;
#[cfg(feature = "peers-system")]
use warifu_tests::peers::Ended;
use warifu_tests::{
    mesh::{Agent, Mesh, ORDERS, Shop},
    peers,
};

/// As [`Shop::open`], but the app connects over TCP.
async fn shop_over_tcp() -> Shop {
    let mesh = Mesh::start().await;
    let app = mesh.app("payments").await;
    let payments = mesh.agent("payments").app(&app).allow(ORDERS);
    let payments = payments.start().await;
    let orders = mesh.agent("orders").route_to("payments", &payments, "");
    let orders = orders.outbound_over_tcp().start().await;
    Shop {
        orders,
        payments,
        app,
        mesh,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_calls_a_service_by_host_header_and_as_http_proxy() {
    let shop = shop_over_tcp().await;
    for how in ["host", "proxy"] {
        for answer in python(how, &shop.orders, "http://payments/charges").await {
            assert_told(&answer);
        }
        for answer in python(how, &shop.orders, "http://elsewhere/charges").await {
            assert_eq!(answer["status"], 403, "{answer}");
            assert_eq!(answer["reason"], "no-route", "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s04_a_client_that_wants_a_tunnel_through_its_proxy_gets_none() {
    let shop = shop_over_tcp().await;
    let answers = python("tunnel", &shop.orders, "https://payments/charges").await;
    let refused = answers[0]["refused"].as_str().unwrap();
    assert!(refused.contains("405"), "{refused}");
    assert!(shop.app.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_calls_a_service_over_the_unix_socket() {
    let shop = Shop::open().await;
    assert_told(&python("unix", &shop.orders, "http://payments/charges").await[0]);
}

#[cfg(feature = "peers-system")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_calls_a_service_over_the_unix_socket() {
    let shop = Shop::open().await;
    let socket = shop.orders.outbound_address().trim_start_matches("unix:");
    let ended = curl(&["--unix-socket", socket, "http://payments/charges"]).await;
    assert_body(&ended.stdout);
}

#[cfg(feature = "peers-system")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_calls_a_service_as_http_proxy_if_target_and_host_agree() {
    let shop = shop_over_tcp().await;
    let proxy = format!("http://{}", shop.orders.outbound_address());
    let ended = curl(&["--proxy", &proxy, "http://payments/charges"]).await;
    assert_body(&ended.stdout);

    let lie = ["--proxy", &proxy, "-H", "host: elsewhere"];
    let ended = curl(&[&lie[..], &["-i", "http://payments/charges"]].concat()).await;
    assert!(ended.stdout.starts_with("HTTP/1.1 400 "), "{ended:?}");
    assert!(ended.stdout.contains("bad-host"), "{ended:?}");
    assert_eq!(shop.app.seen().len(), 1);
}

#[cfg(feature = "peers-system")]
async fn curl(args: &[&str]) -> Ended {
    let curl = peers::installed("curl").unwrap();
    let args = [&["--silent", "--show-error", "--max-time", "30"], args].concat();
    let ended = peers::run("curl", &curl, &args, "").await.unwrap();
    assert!(ended.success, "{ended:?}");
    ended
}

async fn python(how: &str, orders: &Agent, url: &str) -> Vec<Value> {
    let address = orders.outbound_address().trim_start_matches("unix:");
    let args = [how, address, url];
    let ended = peers::run_python("plain_client.py", &args).await;
    ended.unwrap().json().as_array().unwrap().clone()
}

fn assert_told(answer: &Value) {
    assert_eq!(answer["status"], 200, "{answer}");
    assert_body(answer["body"].as_str().unwrap());
}

/// The app tells what it was sent: by whom, and for what.
fn assert_body(body: &str) {
    let told: Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        told["caller"]["peer"]["spiffe_id"],
        "spiffe://example.org/orders"
    );
    assert_eq!(told["target"], "/charges");
}

//! An agent that is told to end finishes what it began.

use std::time::Duration;

use http::Method;
use tokio::net::TcpStream;
use warifu_tests::mesh::{Load, Shop, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_under_way_finish_and_the_listener_is_closed() {
    const UNDER_WAY: usize = 8;
    let mut shop = Shop::open().await;
    let held = shop.app.hold();
    let calls: Vec<_> = (0..UNDER_WAY)
        .map(|number| {
            let client = shop.orders.client();
            let client = if number % 2 == 0 {
                client
            } else {
                client.http2()
            };
            tokio::spawn(async move { client.get("http://payments/charges").send().await })
        })
        .collect();
    shop.app.seen_count(UNDER_WAY).await;

    let draining = shop.payments.draining();
    let address = shop.payments.inbound_address();
    let closed = async || TcpStream::connect(address).await.is_err().then_some(());
    until("the listener is closed", closed).await;
    // Whoever balances load is told, and told why, before and until the end.
    let (status, text) = shop.payments.probe("/readyz").await;
    assert_eq!(
        (status, text.as_str()),
        (503, "not ready\nnot-draining: draining\n")
    );
    assert_eq!(shop.payments.probe("/healthz").await.0, 200);
    assert!(!draining.is_finished());

    drop(held);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(draining.await.unwrap(), 0, "connections were cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_accepted_request_fails() {
    let mut shop = Shop::open().await;
    let load = Load::start(16, "http://payments/charges", || shop.orders.client());
    load.answers(500).await;
    assert_eq!(shop.payments.drain().await, 0, "connections were cut");
    let report = load.stop().await;
    // What came after the end found nobody, and was told so; nothing that was accepted was lost.
    let lost: Vec<_> = report
        .failures
        .iter()
        .filter(|why| !why.contains("Connection refused"))
        .collect();
    assert!(lost.is_empty(), "{lost:#?}");
    assert_eq!(shop.app.count(), report.answered);
    let allowed = shop
        .payments
        .audit()
        .into_iter()
        .filter(|line| line["result"] == "allowed");
    assert_eq!(allowed.count(), report.answered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_the_agent_of_the_caller_drains_without_a_loss_too() {
    let mut shop = Shop::open().await;
    let mut http2 = false;
    let load = Load::start(16, "http://payments/charges", || {
        http2 = !http2;
        let client = shop.orders.client();
        if http2 { client.http2() } else { client }
    });
    load.answers(500).await;
    assert_eq!(shop.orders.drain().await, 0, "connections were cut");
    let report = load.stop().await;
    let lost = report
        .failures
        .iter()
        .filter(|why| !why.contains("cannot reach the agent"));
    let lost: Vec<_> = lost.collect();
    assert!(lost.is_empty(), "{lost:#?}");
    assert_eq!(shop.app.count(), report.answered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_socket_starts_a_drain() {
    let mut shop = Shop::open().await;
    let (status, text) = shop.payments.admin(Method::POST, "/drain").await;
    assert_eq!((status, text.as_str()), (202, "draining\n"));
    let wanted = shop.payments.running().drain_wanted();
    tokio::time::timeout(Duration::from_secs(30), wanted)
        .await
        .unwrap();
    assert_eq!(shop.payments.drain().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_end_is_cut_when_the_time_is_up_and_counted() {
    let shop = Shop::open().await;
    let patient = shop
        .mesh
        .agent("hasty")
        .app(&shop.app)
        .allow(warifu_tests::mesh::ORDERS);
    let mut hasty = patient.more("drain: 500ms").start().await;
    let orders = shop.mesh.workload("orders").await.identity();
    let held = shop.app.hold();
    let mut call = warifu_tests::mesh::Direct::connect(&hasty, Some(&orders))
        .await
        .unwrap();
    call.send("GET / HTTP/1.1\r\nhost: hasty\r\n\r\n")
        .await
        .unwrap();
    shop.app.seen_count(1).await;
    assert_eq!(hasty.drain().await, 1);
    call.answer().await.unwrap_err();
    drop(held);
}

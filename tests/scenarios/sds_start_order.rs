//! Envoy before its agent, through the agent's restart and drain, and without an authority.

use std::{net::TcpStream, time::Duration};

use warifu_tests::{
    mesh::{Load, Mesh, until},
    peers::Envoy,
    ports::free_port,
};

use super::sds_envoy::{Bootstrap, client, with_socket};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_started_before_the_agent_holds_its_listener_shut_until_there_is_a_certificate() {
    let mesh = Mesh::start().await;
    let app = mesh.plain_app().await;
    let agent = with_socket(&mesh, mesh.agent("payments"), "payments");
    let mut agent = agent.prepare().await;
    let inbound = free_port();
    let bootstrap = Bootstrap::of(&mesh, "payments")
        .app(&app.url())
        .calls_nobody();
    let port = format!(
        "name: inbound\n    address: {{socket_address: {{address: 127.0.0.1, port_value: {}",
        inbound.port()
    );
    let bootstrap = bootstrap.with(
        "name: inbound\n    address: {socket_address: {address: 127.0.0.1, port_value: 0",
        &port,
    );
    let mut envoy = bootstrap.launch(&mesh.dir().join("envoy")).await;
    until("Envoy has asked in vain", async || {
        let failed = envoy
            .counter("cluster.warifu.upstream_cx_connect_fail")
            .await;
        (failed >= 2).then_some(())
    })
    .await;
    assert_ne!(envoy.state().await.as_deref(), Some("LIVE"));
    TcpStream::connect(inbound).unwrap_err();

    agent.start().await;
    envoy.serves().await.unwrap();
    TcpStream::connect(inbound).unwrap();
    assert_eq!(envoy.listener("inbound"), inbound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_drain_and_restart_of_the_agent_and_an_outage_of_the_authority_calls_go_on() {
    let mut mesh = Mesh::with(|authority| authority.on_disk()).await;
    let app = mesh.plain_app().await;
    let mut payments = with_socket(&mesh, mesh.agent("payments"), "payments")
        .start()
        .await;
    let orders = with_socket(&mesh, mesh.agent("orders"), "orders")
        .start()
        .await;
    let bootstrap = Bootstrap::of(&mesh, "payments")
        .app(&app.url())
        .calls_nobody();
    let mut called = bootstrap.launch(&mesh.dir().join("called")).await;
    called.serves().await.unwrap();
    let bootstrap = Bootstrap::of(&mesh, "orders").payments(called.listener("inbound"));
    let mut calling = bootstrap.launch(&mesh.dir().join("calling")).await;
    calling.serves().await.unwrap();
    let load = Load::start(2, "http://payments/charges", || {
        client(&calling, "outbound")
    });
    load.answers(10).await;

    // In order: the streams end by themselves, so the drain need not wait for them.
    let had = updates(&called).await;
    let began = std::time::Instant::now();
    assert_eq!(payments.drain().await, 0, "connections were cut");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?} to drain");
    load.answers(10).await;
    payments.start().await;
    takes_the_next(&called, had).await;

    // Cut off.
    let had = updates(&called).await;
    payments.restart().await;
    takes_the_next(&called, had).await;
    load.answers(10).await;

    // No authority, and an agent that therefore has no identity: what Envoy has is good for an hour.
    let had = updates(&called).await;
    mesh.authority.stop();
    payments.stop();
    payments.start_unready().await;
    let asked = async || called.counter("cluster.warifu.upstream_rq_total").await;
    let before = asked().await;
    until("Envoy asks the agent that has nothing", async || {
        (asked().await > before).then_some(())
    })
    .await;
    load.answers(50).await;
    assert_eq!(updates(&called).await, had);
    mesh.authority.start().await;
    payments.ready().await;
    takes_the_next(&called, had).await;
    load.answers(10).await;

    let report = load.stop().await;
    assert_eq!(
        report.failures, [""; 0],
        "beside {} answers",
        report.answered
    );
    drop(orders);
}

/// How many certificates Envoy took.
async fn updates(envoy: &Envoy) -> u64 {
    envoy.counter("sds.default.update_success").await
}

async fn takes_the_next(envoy: &Envoy, had: u64) {
    until("Envoy takes the next certificate", async || {
        (updates(envoy).await > had).then_some(())
    })
    .await;
}

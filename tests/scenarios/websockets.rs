//! WebSockets from app to app through two agents, spoken by a library that knows nothing of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Error, Message},
};
use warifu_tests::{
    mesh::{Agent, DEADLINE, MTLS, Mesh, ORDERS, until},
    peers::{Talking, run_python},
    ports::free_port,
};

/// Renewed at a third of it; what was opened with it ends with it, up to a tenth early.
const TTL: Duration = Duration::from_secs(15);
const SOCKETS: usize = 6;

/// A WebSocket server that sends every message back.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = accept_async(stream).await else {
                    return;
                };
                while let Some(Ok(message)) = socket.next().await {
                    let data = message.is_text() || message.is_binary();
                    if data && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// *orders* may open WebSockets to *chat*.
async fn chat(mesh: &Mesh) -> (Agent, Agent) {
    chat_before(mesh, echo().await).await
}

/// The same, where `app` is behind *chat*'s agent.
async fn chat_before(mesh: &Mesh, app: SocketAddr) -> (Agent, Agent) {
    let door = free_port();
    let chat = mesh.agent("chat").inbound(&format!(
        "{{listen: \"{door}\", forward: \"http://{app}\", accept: {MTLS}, allow: {ORDERS}}}"
    ));
    let chat = chat.start().await;
    let orders = mesh.agent("orders").outbound_over_tcp().route(&format!(
        "{{host: chat, upstream: \"https://{door}\", mtls: {{expect: \"{}\"}}}}",
        chat.id
    ));
    (orders.start().await, chat)
}

async fn open(orders: &Agent) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = TcpStream::connect(orders.outbound_address()).await?;
    Ok(client_async("ws://chat/room", stream).await?.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_live_through_two_rotations_and_lose_no_message() {
    let mesh = Mesh::with(|authority| authority.ttl(TTL)).await;
    let (orders, chat) = chat(&mesh).await;
    let orders = Arc::new(orders);
    let (stop, echoed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let sockets: Vec<_> = (0..SOCKETS)
        .map(|number| {
            let (orders, stop, echoed) = (orders.clone(), stop.clone(), echoed.clone());
            tokio::spawn(async move { converse(number, &orders, &stop, &echoed).await })
        })
        .collect();

    let generations = || (orders.identity().generation, chat.identity().generation);
    let (first, began) = (generations(), Instant::now());
    // Twice through the life of a certificate: every socket is opened anew once, at least.
    while began.elapsed() < TTL * 2 || generations().0 < first.0 + 4 {
        assert!(
            began.elapsed() < DEADLINE * 3,
            "{first:?}, {:?}",
            generations()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for socket in sockets {
        let lives = socket.await.unwrap();
        // The last was cut short by us.
        // Renewal is at a third: past two thirds two rotations were lived through. What is opened later begins with a
        // certificate that has been in use for up to a third.
        assert!(lives[0] > TTL * 2 / 3, "a socket lived {:?}", lives[0]);
        for life in &lives[..lives.len() - 1] {
            assert!(*life > TTL / 2, "a socket lived {life:?}");
            assert!(
                *life < TTL + Duration::from_secs(1),
                "a socket outlived its proof: {life:?}"
            );
        }
        assert!(lives.len() >= 2, "{lives:?}");
    }
    let echoed = echoed.load(Ordering::Relaxed);
    println!("{echoed} messages");
    assert!(echoed > SOCKETS * 1_000, "{echoed}");
}

/// Sends one numbered message after another, of many sizes, and wants each back; opens another socket where one
/// ends, and sends again what was not answered. How long each lived.
async fn converse(
    number: usize,
    orders: &Agent,
    stop: &AtomicBool,
    echoed: &AtomicUsize,
) -> Vec<Duration> {
    let mut lives = Vec::new();
    let mut sent = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        let mut socket = open(orders).await.unwrap();
        let opened = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let text = format!("{number}:{sent}:{}", "x".repeat(sent * 37 % 20_000));
            if socket.send(Message::text(&*text)).await.is_err() {
                break;
            }
            match socket.next().await {
                Some(Ok(Message::Text(back))) => assert_eq!(back.as_str(), text),
                // It ended: with its identity, not in the midst of a message.
                Some(Err(_)) | Some(Ok(Message::Close(_))) | None => break,
                Some(Ok(other)) => panic!("{other:?}"),
            }
            sent += 1;
            echoed.fetch_add(1, Ordering::Relaxed);
            if sent.is_multiple_of(50) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        lives.push(opened.elapsed());
    }
    lives
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_call_opens_no_websocket_and_a_drain_ends_those_that_are_open() {
    let mesh = Mesh::start().await;
    let (orders, mut chat) = chat(&mesh).await;
    let stranger = mesh.agent("stranger").outbound_over_tcp().route(&format!(
        "{{host: chat, upstream: \"https://{}\", mtls: {{expect: \"{}\"}}}}",
        chat.running().inbound[0],
        chat.id
    ));
    let stranger = stranger.start().await;
    match open(&stranger).await {
        Err(Error::Http(answer)) => {
            assert_eq!(answer.status(), 403);
            assert_eq!(answer.headers()["x-warifu-reason"], "denied");
        }
        other => panic!("{other:?}"),
    }

    let mut socket = open(&orders).await.unwrap();
    // The answer is on its way before either agent counts what it opened.
    for (agent, tunnels) in [
        (&chat, "warifu_inbound_tunnels{to=\"app\"}"),
        (&orders, "warifu_outbound_tunnels{to=\"chat\"}"),
    ] {
        until(tunnels, async || {
            (agent.metric(tunnels).await == 1.0).then_some(())
        })
        .await;
    }
    let draining = chat.draining();
    socket.send(Message::text("hello")).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Text(_)))));
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    drop(socket);
    assert_eq!(draining.await.unwrap(), 0, "connections were cut");
}

/// Python's client at one end, its server at the other, and as a stranger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pythons_websockets_talk_through_both_agents() {
    let mesh = Mesh::start().await;
    let mut server = Talking::python("websocket.py", &["serve"]).await.unwrap();
    let port = server.ask(&json!("where?")).await.unwrap()["port"]
        .as_u64()
        .unwrap();
    let app = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
    let (orders, chat) = chat_before(&mesh, app).await;
    let call = async |agent: &Agent| {
        let address = agent.outbound_address().to_owned();
        let args = ["call", &address, "ws://chat/room"];
        run_python("websocket.py", &args).await.unwrap().json()
    };
    let said = call(&orders).await;
    assert_eq!(said, json!({"echoed": 14, "closed": 1000}));
    let closed = "warifu_inbound_tunnels_ended_total{to=\"app\",why=\"closed\"}";
    until(closed, async || {
        (chat.metric(closed).await == 1.0).then_some(())
    })
    .await;
    let stranger = mesh.agent("stranger").outbound_over_tcp().route(&format!(
        "{{host: chat, upstream: \"https://{}\", mtls: {{expect: \"{}\"}}}}",
        chat.running().inbound[0],
        chat.id
    ));
    let stranger = stranger.start().await;
    let said = call(&stranger).await;
    assert_eq!(said, json!({"status": 403, "reason": "denied"}));
}

/// nginx, as it stands before many WebSocket servers: its proxying is what the documentation has people write.
#[cfg(feature = "peers-system")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_stands_between_an_agent_and_its_app() {
    use warifu_tests::{
        mesh::until,
        peers::{Tied, installed},
    };
    let program = installed("nginx").unwrap();
    let mesh = Mesh::start().await;
    let dir = mesh.dir().join("nginx");
    std::fs::create_dir(&dir).unwrap();
    let (app, address, dir) = (echo().await, free_port(), dir.display());
    let conf = format!("{dir}/nginx.conf");
    let nginx = format!(
        "daemon off; pid {dir}/nginx.pid; error_log stderr; worker_processes 1;
events {{}}
http {{
  access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  server {{
    listen {address};
    location / {{
      proxy_pass http://{app};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"
    );
    std::fs::write(&conf, nginx).unwrap();
    let dir = dir.to_string();
    let args = ["-c", &conf, "-p", &dir];
    let _nginx = Tied::run("nginx", &program, &args, &[]).unwrap();
    let (orders, _chat) = chat_before(&mesh, address).await;
    let mut socket = until("nginx serves", async || open(&orders).await.ok()).await;
    for size in [0, 125, 126, 70_000, 300_000] {
        let text = "x".repeat(size);
        socket.send(Message::text(&*text)).await.unwrap();
        match socket.next().await {
            Some(Ok(Message::Text(back))) => assert_eq!(back.len(), size),
            other => panic!("{other:?}"),
        }
    }
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

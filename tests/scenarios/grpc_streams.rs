//! gRPC from app to app through two agents: a stream both ways, with generated code on both ends.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{body::Incoming, client::conn::http2 as client, server::conn::http2 as server};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, body::Body};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest as Ask, ServerReflectionResponse as Answer,
    server_reflection_client::ServerReflectionClient,
    server_reflection_server::{ServerReflection, ServerReflectionServer},
};
use tower_service::Service;
use warifu_tests::{
    mesh::{DEADLINE, MTLS, Mesh, ORDERS},
    ports::free_port,
};

/// Renewed at a third of it.
const TTL: Duration = Duration::from_secs(9);
const STREAMS: usize = 4;

/// Says every message back: reflection's is a stream both ways whose answers quote what they answer.
struct Echo;

#[tonic::async_trait]
impl ServerReflection for Echo {
    type ServerReflectionInfoStream = Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>;

    async fn server_reflection_info(
        &self,
        asked: Request<Streaming<Ask>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let answers = asked.into_inner().map(|ask| {
            let ask = ask?;
            Ok(Answer {
                valid_host: ask.host.clone(),
                original_request: Some(ask),
                message_response: None,
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// As gRPC servers are: HTTP/2 from the first byte.
async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: http::Request<Incoming>| {
                let mut echo = ServerReflectionServer::new(Echo);
                echo.call(request.map(Body::new))
            });
            let connection = server::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// One HTTP/2 connection to the agent.
#[derive(Clone)]
struct Channel(client::SendRequest<Body>);

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

async fn connect(agent: &str) -> ServerReflectionClient<Channel> {
    let stream = TokioIo::new(TcpStream::connect(agent).await.unwrap());
    let (sender, connection) = client::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    ServerReflectionClient::with_origin(Channel(sender), "http://greeter".parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_both_ways_live_through_rotations_and_lose_no_message() {
    let mesh = Mesh::with(|authority| authority.ttl(TTL)).await;
    let (app, door) = (serve().await, free_port());
    let greeter = mesh.agent("greeter").inbound(&format!(
        "{{listen: \"{door}\", forward: \"http://{app}\", app_protocol: http2, accept: {MTLS}, \
         allow: {ORDERS}}}"
    ));
    let greeter = greeter.start().await;
    let orders = mesh.agent("orders").outbound_over_tcp().route(&format!(
        "{{host: greeter, upstream: \"https://{door}\", mtls: {{expect: \"{}\"}}}}",
        greeter.id
    ));
    let orders = Arc::new(orders.start().await);

    let client = connect(orders.outbound_address()).await;
    let (first, began) = (orders.identity().generation, Instant::now());
    let done = {
        let orders = orders.clone();
        // Three rotations, and beyond the life of the certificates that the streams began with.
        move || began.elapsed() > TTL && orders.identity().generation >= first + 3
    };
    let streams: Vec<_> = (0..STREAMS)
        .map(|number| {
            let (client, done) = (client.clone(), done.clone());
            tokio::spawn(async move { converse(number, client, done).await })
        })
        .collect();
    // Calls that begin meanwhile succeed, too, each to its end with its status.
    let mut calls = 0;
    while !done() {
        assert!(began.elapsed() < DEADLINE * 2, "no rotation");
        let mut calling = client.clone();
        let asks = [ask("one"), ask("two")];
        let answers = calling
            .server_reflection_info(tokio_stream::iter(asks))
            .await;
        let answers: Vec<_> = answers.unwrap().into_inner().collect().await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(answers.len(), 2);
        calls += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut messages = 0;
    for stream in streams {
        messages += stream.await.unwrap();
    }
    println!("{messages} messages, {calls} calls");
    assert!(messages > STREAMS * 1_000, "{messages}");
}

fn ask(host: &str) -> Ask {
    Ask {
        host: host.to_owned(),
        message_request: None,
    }
}

/// One stream: each message is answered before the next is sent. How many there were.
async fn converse(
    number: usize,
    mut client: ServerReflectionClient<Channel>,
    done: impl Fn() -> bool,
) -> usize {
    let (send, asks) = mpsc::channel(1);
    send.send(ask("first")).await.unwrap();
    let answers = client
        .server_reflection_info(ReceiverStream::new(asks))
        .await;
    let mut answers = answers.unwrap().into_inner();
    assert_eq!(
        answers.message().await.unwrap().unwrap().valid_host,
        "first"
    );
    let mut sent = 0;
    while !done() {
        let text = format!("{number}:{sent}:{}", "x".repeat(sent * 31 % 10_000));
        send.send(ask(&text)).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.valid_host, text);
        sent += 1;
        if sent % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    drop(send);
    // To its end, with its status.
    assert!(answers.message().await.unwrap().is_none());
    assert!(answers.trailers().await.is_ok());
    sent
}

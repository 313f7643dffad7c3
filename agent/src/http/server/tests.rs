use bytes::Bytes;
use http::{StatusCode, header::CONNECTION};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::registry::Registry;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};

use super::*;
use crate::{config::value::Listen, http::headers::X_WARIFU_CONNECTION};

/// A server under test.
struct Running {
    address: SocketAddr,
    drain: Drain,
    serving: JoinHandle<usize>,
}

fn start<S: Service>(service: Arc<S>, limits: Limits) -> Running {
    let listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let Listen::Tcp(address) = *listener.address() else {
        panic!()
    };
    let (drain, draining) = drain();
    let metrics = Metrics::new(&mut Registry::default()).listener("test");
    let serving = tokio::spawn(serve(listener, service, limits, metrics, draining));
    Running {
        address,
        drain,
        serving,
    }
}

fn hello() -> Arc<impl Service> {
    Plain::new(|_| async { Response::new(Body::from("hello".to_owned())) })
}

/// Announces every request, and answers when told to.
fn on_command() -> (
    Arc<impl Service>,
    mpsc::Receiver<tokio::sync::oneshot::Sender<()>>,
) {
    let (sender, receiver) = mpsc::channel(16);
    let service = Plain::new(move |_| {
        let sender = sender.clone();
        async move {
            let (answer, told) = tokio::sync::oneshot::channel();
            sender.send(answer).await.unwrap();
            told.await.unwrap();
            Response::new(Body::from("done".to_owned()))
        }
    });
    (service, receiver)
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Reads until the connection ends.
async fn all(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset counts as an end.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

/// Reads until `end` was read.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(char::from(stream.read_u8().await.unwrap()));
    }
    text
}

#[tokio::test]
async fn speaks_http_1_and_http_2_without_tls() {
    let server = start(hello(), Limits::default());
    let mut h1 = connect(server.address).await;
    // Byte by byte, a head that could be an HTTP/2 preface for a while.
    for byte in b"PROPFIND / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" {
        h1.write_all(&[*byte]).await.unwrap();
    }
    let text = all(h1).await;
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("hello"),
        "{text}"
    );

    let io = TokioIo::new(connect(server.address).await);
    let executor = TokioExecutor::new();
    let (mut sender, connection) = http2::handshake(executor, io).await.unwrap();
    let driving = tokio::spawn(connection);
    let request = Request::get("http://a/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.collect().await.unwrap().to_bytes(), "hello");
    driving.abort();
}

#[tokio::test]
async fn s14_a_connection_beyond_the_limit_is_told_so() {
    let limits = Limits {
        max_connections: 1,
        ..Limits::default()
    };
    let server = start(hello(), limits);
    let mut first = connect(server.address).await;
    first.write_all(GET).await.unwrap();
    until(&mut first, "hello").await;

    let mut second = connect(server.address).await;
    second.write_all(GET).await.unwrap();
    let text = all(second).await.to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 503"), "{text}");
    for line in [
        "retry-after: 1\r\n",
        "connection: close\r\n",
        "x-warifu-reason: too-many-connections\r\n",
    ] {
        assert!(text.contains(line), "{text}");
    }

    // The first one's place is free when it has gone.
    drop(first);
    loop {
        let mut third = connect(server.address).await;
        third
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        if all(third).await.starts_with("HTTP/1.1 200") {
            break;
        }
    }
}

#[tokio::test]
async fn s14_a_head_beyond_the_limit_is_431() {
    let server = start(hello(), Limits::default());
    let mut stream = connect(server.address).await;
    let head = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "x".repeat(MAX_HEAD_BYTES)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(until(&mut stream, "\r\n").await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn s14_a_head_that_does_not_come_ends_the_connection() {
    let limits = Limits {
        idle: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = start(hello(), limits);
    let silent = connect(server.address).await;
    let mut slow = connect(server.address).await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    assert_eq!(all(silent).await, "");
    let text = all(slow).await;
    assert!(
        text.is_empty() || text.starts_with("HTTP/1.1 408"),
        "{text}"
    );
}

#[tokio::test]
async fn a_drain_lets_requests_end_and_says_close() {
    let (service, mut requests) = on_command();
    let server = start(service, Limits::default());
    let mut busy = connect(server.address).await;
    busy.write_all(GET).await.unwrap();
    let answer = requests.recv().await.unwrap();
    let idle = connect(server.address).await;
    let mut idle_after_one = connect(server.address).await;
    idle_after_one.write_all(GET).await.unwrap();
    requests.recv().await.unwrap().send(()).unwrap();
    until(&mut idle_after_one, "done").await;

    server.drain.start(Duration::from_secs(20));
    // The listener is closed once the drain is under way.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    answer.send(()).unwrap();
    let text = all(busy).await;
    assert!(
        text.contains("connection: close\r\n") && text.ends_with("done"),
        "{text}"
    );
    assert_eq!(all(idle).await, "");
    assert_eq!(all(idle_after_one).await, "");
    assert_eq!(server.serving.await.unwrap(), 0);
}

#[tokio::test]
async fn a_drain_cuts_what_did_not_end_by_its_deadline() {
    let (service, mut requests) = on_command();
    let server = start(service, Limits::default());
    let mut busy = connect(server.address).await;
    busy.write_all(GET).await.unwrap();
    let answer = requests.recv().await.unwrap();
    server.drain.start(Duration::from_secs(60));
    server.drain.start(Duration::from_millis(10));
    assert_eq!(server.serving.await.unwrap(), 1);
    assert_eq!(all(busy).await, "");
    assert!(answer.send(()).is_err());
}

#[tokio::test]
async fn an_old_connection_is_closed_with_a_response_where_it_is_in_use() {
    let limits = Limits {
        max_age: Some(Duration::from_secs(1)),
        ..Limits::default()
    };
    let server = start(hello(), limits);
    let idle = connect(server.address).await;
    let mut busy = connect(server.address).await;
    let mut served = 0;
    let last = loop {
        busy.write_all(GET).await.unwrap();
        let text = until(&mut busy, "hello").await;
        served += 1;
        if text.contains("connection: close") {
            break text;
        }
    };
    assert!(last.starts_with("HTTP/1.1 200"), "{last}");
    assert!(served > 1);
    assert_eq!(all(busy).await, "");
    assert_eq!(all(idle).await, "");
}

/// TLS without client certificates, or none to present.
struct Secured(Security, mpsc::UnboundedSender<String>);

impl Service for Secured {
    type Session = ();

    fn security(&self) -> Security {
        self.0.clone()
    }

    fn open(&self, connection: Connection) -> Result<Opened<()>, Refused> {
        assert!(connection.tls.is_some());
        Err(Refused("no one may enter"))
    }

    fn failed(&self, _: &Remote, why: &Failed) {
        self.1.send(why.to_string()).unwrap();
    }

    async fn call(_: Arc<()>, _: Request<Incoming>) -> Response<Body> {
        Response::new(Body::empty())
    }
}

fn tls() -> (Security, Arc<rustls::ClientConfig>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (
        Security::Tls(Tls {
            config: Arc::new(server),
            expires: None,
        }),
        Arc::new(client),
    )
}

#[tokio::test]
async fn a_connection_that_fails_before_its_first_request_says_why() {
    let (security, client) = tls();
    let (sender, mut failures) = mpsc::unbounded_channel();
    let limits = Limits {
        handshake: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = start(Arc::new(Secured(security, sender.clone())), limits.clone());

    let silent = connect(server.address).await;
    assert_eq!(
        failures.recv().await.unwrap(),
        "the TLS handshake took longer than 200ms"
    );
    assert_eq!(all(silent).await, "");

    let mut plain = connect(server.address).await;
    plain.write_all(GET).await.unwrap();
    let why = failures.recv().await.unwrap();
    assert!(why.starts_with("the TLS handshake failed: "), "{why}");

    let connector = tokio_rustls::TlsConnector::from(client);
    let name = "a".try_into().unwrap();
    let mut refused = connector
        .connect(name, connect(server.address).await)
        .await
        .unwrap();
    assert_eq!(failures.recv().await.unwrap(), "no one may enter");
    assert!(!matches!(refused.read(&mut [0]).await, Ok(1)));

    let absent = Secured(Security::Unavailable("no identity yet"), sender);
    let server = start(Arc::new(absent), limits);
    assert_eq!(all(connect(server.address).await).await, "");
    assert_eq!(
        failures.recv().await.unwrap(),
        "not available: no identity yet"
    );
}

#[tokio::test]
async fn http2_clients_hear_that_a_connection_will_close_with_their_last_answer() {
    let (service, mut requests) = on_command();
    let server = start(service, Limits::default());
    let stream = TokioIo::new(connect(server.address).await);
    let handshake = http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), stream);
    let (client, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let mut ask = async |drain: bool| {
        let request = Request::get("http://a/").body(Empty::new()).unwrap();
        let answer = tokio::spawn(client.clone().send_request(request));
        let command = requests.recv().await.unwrap();
        if drain {
            server.drain.start(Duration::from_secs(5));
            // Closed: everyone has been told.
            while TcpStream::connect(server.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        }
        command.send(()).unwrap();
        let headers = answer.await.unwrap().unwrap().headers().clone();
        headers
            .get(X_WARIFU_CONNECTION)
            .map(|value| value.as_bytes().to_owned())
    };
    assert_eq!(ask(false).await, None);
    assert_eq!(ask(true).await, Some(b"close".to_vec()));
    assert_eq!(server.serving.await.unwrap(), 0);
}

#[tokio::test]
async fn an_answer_of_ours_says_so_and_why() {
    let answer =
        super::super::answer::answer(StatusCode::FORBIDDEN, "denied", "a \"rule\" is missing");
    assert_eq!(answer.headers()["x-warifu-reason"], "denied");
    assert!(!answer.headers().contains_key(CONNECTION));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(
        body,
        r#"{"reason":"denied","message":"a \"rule\" is missing"}"#
    );
}

/// More clients than handshakes are worked on at once, all silent or all stalled after their hello, take
/// nothing from one that is quick.
#[tokio::test]
async fn s14_neither_silent_nor_stalled_clients_keep_others_from_their_handshake() {
    let crowd = handshake::HANDSHAKES + 8;
    let (security, client) = tls();
    let (sender, mut failures) = mpsc::unbounded_channel();
    let server = start(Arc::new(Secured(security, sender)), Limits::default());
    let name = || rustls::pki_types::ServerName::try_from("a").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&client));

    let mut silent = Vec::new();
    for _ in 0..crowd {
        silent.push(connect(server.address).await);
    }
    let quick = connect(server.address).await;
    connector.connect(name(), quick).await.unwrap();
    assert_eq!(failures.recv().await.unwrap(), "no one may enter");

    for stalled in &mut silent {
        let mut half = rustls::ClientConnection::new(Arc::clone(&client), name()).unwrap();
        let mut hello = Vec::new();
        half.write_tls(&mut hello).unwrap();
        stalled.write_all(&hello).await.unwrap();
    }
    for stalled in silent.iter().take(handshake::HANDSHAKES) {
        stalled.readable().await.unwrap();
    }
    let quick = connect(server.address).await;
    connector.connect(name(), quick).await.unwrap();
    assert_eq!(failures.recv().await.unwrap(), "no one may enter");
}

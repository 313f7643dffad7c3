//! Requests for a WebSocket, byte for byte (S4).

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::*;

/// RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                      sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nx-hop: 1\r\n\r\n";

/// An upstream that answers every handshake with `answer`, and hands over what it read and the connection.
struct Far {
    url: String,
    opened: mpsc::UnboundedReceiver<(String, TcpStream)>,
}

impl Far {
    async fn answering(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, opened) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = head(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _ = tell.send((head, stream));
            }
        });
        Self { url, opened }
    }

    async fn next(&mut self) -> (String, TcpStream) {
        self.opened.recv().await.unwrap()
    }

    fn nothing(&mut self) {
        assert!(self.opened.try_recv().is_err(), "it was asked");
    }
}

/// Up to the empty line, byte by byte: what follows stays.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

fn handshake(more: &str) -> String {
    format!(
        "GET /chat?room=1 HTTP/1.1\r\nhost: chat\r\nconnection: keep-alive, Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n{more}\r\n"
    )
}

async fn exactly(stream: &mut TcpStream, expected: &str) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), expected);
}

async fn agent(far: &Far, with: impl FnOnce(&mut config::outbound::Route)) -> Running {
    Agent::new().route("chat", &far.url, with).start().await
}

#[tokio::test]
async fn s04_a_tunnel_opens_with_the_upstream_s_101_and_carries_both_ways_to_both_ends() {
    let mut far = Far::answering(format!("{AGREED}first")).await;
    let agent = agent(&far, jwt("chat")).await;
    let mut app = TcpStream::connect(agent.address()).await.unwrap();
    // What the app sends too early waits for the 101.
    app.write_all((handshake("authorization: mine\r\n") + "early").as_bytes())
        .await
        .unwrap();
    let (asked, mut upstream) = far.next().await;
    assert!(
        asked.starts_with("GET /chat?room=1 HTTP/1.1\r\n"),
        "{asked}"
    );
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        &format!("sec-websocket-key: {KEY}"),
        "authorization: Bearer chat.0",
    ] {
        assert!(asked.contains(&format!("{line}\r\n")), "{line}: {asked}");
    }
    assert!(
        !asked.contains("mine") && !asked.contains("keep-alive"),
        "{asked}"
    );

    let answer = head(&mut app).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        &format!("sec-websocket-accept: {ACCEPT}"),
    ] {
        assert!(answer.contains(&format!("{line}\r\n")), "{line}: {answer}");
    }
    exactly(&mut app, "first").await;
    exactly(&mut upstream, "early").await;
    for _ in 0..3 {
        app.write_all(b"ping").await.unwrap();
        exactly(&mut upstream, "ping").await;
        upstream.write_all(b"pong").await.unwrap();
        exactly(&mut app, "pong").await;
    }
    let text = agent.metrics();
    assert!(text.contains(r#"outbound_tunnels{to="chat"} 1"#), "{text}");
    // One half ends, the other goes on.
    app.shutdown().await.unwrap();
    assert_eq!(upstream.read(&mut [0]).await.unwrap(), 0);
    upstream.write_all(b"bye").await.unwrap();
    drop(upstream);
    exactly(&mut app, "bye").await;
    assert_eq!(app.read(&mut [0]).await.unwrap(), 0);
    for line in [
        r#"outbound_tunnels{to="chat"} 0"#,
        r#"outbound_tunnels_ended_total{to="chat",why="closed"} 1"#,
        r#"outbound_tunnel_bytes_total{to="chat",direction="sent"} 17"#,
        r#"outbound_tunnel_bytes_total{to="chat",direction="received"} 20"#,
        r#"outbound_requests_total{route="chat",outcome="1xx"} 1"#,
    ] {
        until(|| agent.metrics().contains(line)).await;
    }
    assert_eq!(agent.mint.count(), 1);
}

#[tokio::test]
async fn s04_a_tunnel_does_not_open_on_any_other_answer() {
    let refused = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
    let mut far = Far::answering(refused).await;
    let agent = agent(&far, |_| {}).await;
    let mut app = TcpStream::connect(agent.address()).await.unwrap();
    let smuggled = "GET /admin HTTP/1.1\r\nhost: stranger\r\n\r\n";
    app.write_all((handshake("") + smuggled).as_bytes())
        .await
        .unwrap();
    let (_, mut upstream) = far.next().await;
    let answer = head(&mut app).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    exactly(&mut app, "no").await;
    // What follows is a request like any other, and has no route.
    let answer = head(&mut app).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("x-warifu-reason: no-route"), "{answer}");
    // The connection was made for this one exchange.
    assert_eq!(upstream.read(&mut [0]).await.unwrap(), 0);
    far.nothing();
}

#[tokio::test]
async fn s04_a_101_that_agrees_to_something_else_is_502_and_nothing_passes() {
    for answer in [
        AGREED.replace("s3pPL", "s3pPM"),
        AGREED.replace("upgrade: websocket", "upgrade: h2c"),
        AGREED.replace("connection: Upgrade\r\n", ""),
        AGREED.replace("x-hop: 1", "upgrade: x"),
        AGREED.replace("x-hop: 1", "content-length: 5"),
    ] {
        let mut far = Far::answering(format!("{answer}first")).await;
        let agent = agent(&far, |_| {}).await;
        let mut app = TcpStream::connect(agent.address()).await.unwrap();
        app.write_all((handshake("") + "early").as_bytes())
            .await
            .unwrap();
        let refused = head(&mut app).await;
        assert!(refused.starts_with("HTTP/1.1 502 "), "{answer}{refused}");
        let (_, mut upstream) = far.next().await;
        assert_eq!(upstream.read(&mut [0]).await.unwrap_or(0), 0, "{answer}");
        assert!(!agent.metrics().contains("tunnels_ended_total{"));
    }
}

#[tokio::test]
async fn s04_a_request_that_could_be_read_in_two_ways_opens_nothing() {
    let mut far = Far::answering(AGREED).await;
    let agent = agent(&far, |_| {}).await;
    for request in [
        handshake("content-length: 5\r\n") + "hello",
        handshake("transfer-encoding: chunked\r\n") + "0\r\n\r\n",
        handshake("upgrade: h2c\r\n"),
        handshake("sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"),
        handshake("").replace("websocket\r\n", "websocket, h2c\r\n"),
        handshake("").replace("version: 13", "version: 12"),
        handshake("").replace("GET", "POST"),
        handshake("").replace("keep-alive, Upgrade", "keep-alive"),
    ] {
        let answer = agent.raw(&request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request}{answer}");
        assert!(answer.contains("x-warifu-reason: bad-upgrade"), "{answer}");
    }
    far.nothing();
}

#[tokio::test]
async fn an_offer_of_another_protocol_is_ignored_and_does_not_pass() {
    let mut far = Far::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let agent = agent(&far, |_| {}).await;
    let offer = "GET / HTTP/1.1\r\nhost: chat\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\
                 http2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    let answer = agent.raw(offer).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (asked, _) = far.next().await;
    assert!(!asked.to_ascii_lowercase().contains("h2c"), "{asked}");
}

#[tokio::test]
async fn a_websocket_on_a_signed_route_has_its_get_signed() {
    let mut far = Far::answering(AGREED).await;
    let agent = agent(&far, sigv4(1024)).await;
    let mut app = TcpStream::connect(agent.address()).await.unwrap();
    app.write_all(handshake("").as_bytes()).await.unwrap();
    let (asked, mut upstream) = far.next().await;
    let empty = Payload::hash(b"");
    let signed = format!("authorization: signed /chat?room=1 {empty}\r\n");
    assert!(asked.contains(&signed), "{asked}");
    assert!(head(&mut app).await.starts_with("HTTP/1.1 101 "));
    upstream.write_all(b"hello").await.unwrap();
    exactly(&mut app, "hello").await;
}

/// An upstream over TLS: takes one connection, agrees to the WebSocket that is asked for, and says hello.
async fn agree(
    listener: &TcpListener,
    config: rustls::ServerConfig,
) -> tokio_rustls::server::TlsStream<TcpStream> {
    let (stream, _) = listener.accept().await.unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let mut stream = acceptor.accept(stream).await.unwrap();
    let mut asked = vec![0; 4096];
    let length = stream.read(&mut asked).await.unwrap();
    assert!(asked[..length].ends_with(b"\r\n\r\n"));
    stream.write_all(AGREED.as_bytes()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test]
async fn a_websocket_over_mtls_presents_the_identity_over_http1_and_ends_with_a_revocation() {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let theirs = ca.identity(PAYMENTS, 1);
    let config = warifu::tls::server_config(&theirs, &[], &[ca.trust_domain()]).unwrap();
    let serving = tokio::spawn(async move {
        let mut stream = agree(&listener, config).await;
        let (_, session) = stream.get_ref();
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
        let chain = session.peer_certificates().unwrap();
        let peer = warifu::tls::peer_id(&chain[0]).unwrap().to_string();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (peer, rest)
    });
    let revocations = identity::Revocations::default();
    let agent = Agent::new()
        .identity(ca.identity(ORDERS, 1))
        .revocations(&revocations)
        .route("chat", &url, mtls(PAYMENTS))
        .start()
        .await;
    let mut app = TcpStream::connect(agent.address()).await.unwrap();
    app.write_all(handshake("").as_bytes()).await.unwrap();
    assert!(head(&mut app).await.starts_with("HTTP/1.1 101 "));
    exactly(&mut app, "hello").await;
    app.write_all(b"hi").await.unwrap();
    learn(&revocations, 1, &[PAYMENTS]);
    let mut byte = [0];
    let read = tokio::time::timeout(DEADLINE, app.read(&mut byte)).await;
    assert_eq!(read.expect("the tunnel ends").unwrap(), 0);
    let (peer, rest) = serving.await.unwrap();
    assert_eq!((&*peer, &*rest), (ORDERS, &b"hi"[..]));
    let withdrawn = r#"outbound_tunnels_ended_total{to="chat",why="withdrawn"} 1"#;
    until(|| agent.metrics().contains(withdrawn)).await;
}

#[tokio::test]
async fn a_websocket_whose_connection_was_not_made_is_tried_again() {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let theirs = ca.identity(PAYMENTS, 1);
    let config = warifu::tls::server_config(&theirs, &[], &[ca.trust_domain()]).unwrap();
    tokio::spawn(async move {
        // It breaks off the first before anything is said.
        drop(listener.accept().await.unwrap());
        let mut stream = agree(&listener, config).await;
        let _ = stream.read(&mut [0]).await;
    });
    let agent = Agent::new()
        .identity(ca.identity(ORDERS, 1))
        .route("chat", &url, mtls(PAYMENTS))
        .start()
        .await;
    let mut app = TcpStream::connect(agent.address()).await.unwrap();
    app.write_all(handshake("").as_bytes()).await.unwrap();
    let answer = head(&mut app).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    exactly(&mut app, "hello").await;
    let retried = r#"outbound_retries_total{route="chat"} 1"#;
    assert!(agent.metrics().contains(retried));
}

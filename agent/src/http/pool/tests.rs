use std::{net::SocketAddr, sync::atomic::AtomicUsize};

use bytes::Bytes;
use http::{HeaderValue, Method};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::http::headers::X_WARIFU_CONNECTION;

mod worst;

const SOON: Duration = Duration::from_secs(10);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What the scripted upstream does with a request.
#[derive(Clone, Copy)]
enum Then {
    Answer(&'static [u8]),
    AnswerAndClose(&'static [u8]),
    Close,
    Nothing,
}

/// An upstream that does what it is told for the nth request on the nth connection (from 0).
struct Scripted {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Scripted {
    async fn start(script: impl Fn(usize, usize) -> Then + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (seen, count, script) = (requests.clone(), connections.clone(), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = count.fetch_add(1, Ordering::SeqCst);
                let (seen, script) = (seen.clone(), script.clone());
                tokio::spawn(async move {
                    run_script(stream, &seen, |request| script(connection, request)).await;
                });
            }
        });
        Self {
            address,
            requests,
            connections,
        }
    }

    fn requests(&self) -> usize {
        lock(&self.requests).len()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn run_script(
    mut stream: TcpStream,
    seen: &Mutex<Vec<String>>,
    script: impl Fn(usize) -> Then,
) {
    let mut held = String::new();
    for number in 0.. {
        while !held.contains("\r\n\r\n") {
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk).await {
                Ok(n) if n > 0 => held.push_str(&String::from_utf8_lossy(&chunk[..n])),
                _ => return,
            }
        }
        lock(seen).push(std::mem::take(&mut held));
        match script(number) {
            Then::Answer(bytes) => stream.write_all(bytes).await.unwrap(),
            Then::AnswerAndClose(bytes) => return stream.write_all(bytes).await.unwrap(),
            Then::Close => return,
            Then::Nothing => {}
        }
    }
}

fn plain(pool: &Pool, address: SocketAddr) -> Upstream {
    let address = Address::Socket(address);
    pool.upstream(Destination::new(address, None), Keep::UPSTREAM)
}

fn request(method: Method) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri("/x?y=1")
        .header("host", "app.test")
        .body(Body::empty())
        .unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn call(upstream: &Upstream, method: Method) -> Result<String, SendError> {
    Ok(text(upstream.send(request(method), SOON).await?).await)
}

/// Lets other tasks run until `done`.
async fn until(mut done: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(SOON, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.expect("it never happened");
}

#[tokio::test]
async fn a_connection_is_reused_after_its_response_was_read() {
    let app = Scripted::start(|_, _| Then::Answer(OK)).await;
    let upstream = plain(&Pool::new(8), app.address);
    for _ in 0..50 {
        assert_eq!(call(&upstream, Method::GET).await.unwrap(), "ok");
    }
    assert_eq!((app.connections(), app.requests()), (1, 50));
}

#[tokio::test]
async fn http1_gets_origin_form_and_a_host() {
    let app = Scripted::start(|_, _| Then::Answer(OK)).await;
    let upstream = plain(&Pool::new(8), app.address);
    let mut absolute = request(Method::GET);
    *absolute.uri_mut() = "http://other.test/x?y=1".parse().unwrap();
    absolute.headers_mut().clear();
    text(upstream.send(absolute, SOON).await.unwrap()).await;
    let seen = lock(&app.requests).remove(0);
    assert!(seen.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("host: other.test\r\n"), "{seen}");

    let mut without = request(Method::GET);
    without.headers_mut().clear();
    let error = upstream.send(without, SOON).await.unwrap_err();
    assert!(matches!(error, SendError::NoHost { .. }), "{error}");
}

#[tokio::test]
async fn s04_a_closed_idle_connection_is_not_handed_out() {
    let app = Scripted::start(|_, _| Then::AnswerAndClose(OK)).await;
    let upstream = plain(&Pool::new(8), app.address);
    for n in 1..=5 {
        assert_eq!(call(&upstream, Method::POST).await.unwrap(), "ok");
        until(|| lock(&upstream.0.shelf).all_closed()).await;
        assert_eq!((app.connections(), app.requests()), (n, n));
    }
}

#[tokio::test]
async fn s04_a_post_that_broke_on_a_reused_connection_is_not_sent_again() {
    let app = Scripted::start(|_, n| {
        if n == 0 {
            Then::Answer(OK)
        } else {
            Then::Close
        }
    })
    .await;
    let upstream = plain(&Pool::new(8), app.address);
    call(&upstream, Method::POST).await.unwrap();
    let error = call(&upstream, Method::POST).await.unwrap_err();
    assert!(matches!(error, SendError::Broken { .. }), "{error}");
    assert_eq!(app.requests(), 2);
}

#[tokio::test]
async fn s04_a_get_that_broke_on_a_reused_connection_is_sent_again_once() {
    let app = Scripted::start(|_, n| {
        if n == 0 {
            Then::Answer(OK)
        } else {
            Then::Close
        }
    })
    .await;
    let upstream = plain(&Pool::new(8), app.address);
    call(&upstream, Method::GET).await.unwrap();
    assert_eq!(call(&upstream, Method::GET).await.unwrap(), "ok");
    assert_eq!((app.connections(), app.requests()), (2, 3));
}

#[tokio::test]
async fn s04_a_get_that_breaks_twice_or_on_a_new_connection_fails() {
    let app = Scripted::start(|c, n| match (c, n) {
        (0, 0) => Then::Answer(OK),
        _ => Then::Close,
    })
    .await;
    let upstream = plain(&Pool::new(8), app.address);
    call(&upstream, Method::GET).await.unwrap();
    let twice = call(&upstream, Method::GET).await.unwrap_err();
    assert!(matches!(twice, SendError::Broken { .. }), "{twice}");
    assert_eq!(app.requests(), 3);
    let fresh = call(&upstream, Method::GET).await.unwrap_err();
    assert!(matches!(fresh, SendError::Broken { .. }), "{fresh}");
    assert_eq!(app.requests(), 4);
}

#[tokio::test]
async fn the_second_try_of_a_get_takes_a_new_connection() {
    // The app restarted: what it had open is all dead, and it says so to none of it.
    let app = Scripted::start(|c, n| match (c, n) {
        (0..=2, 1) => Then::Close,
        _ => Then::Answer(OK),
    })
    .await;
    let upstream = plain(&Pool::new(8), app.address);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(upstream.send(request(Method::GET), SOON).await.unwrap());
    }
    for response in held {
        text(response).await;
    }
    assert_eq!(call(&upstream, Method::GET).await.unwrap(), "ok");
    assert_eq!((app.connections(), app.requests()), (4, 5));
}

#[tokio::test]
async fn an_attempt_hands_the_request_back_where_send_would_repeat_it() {
    let app = Scripted::start(|_, n| {
        if n == 0 {
            Then::Answer(OK)
        } else {
            Then::Close
        }
    })
    .await;
    let upstream = plain(&Pool::new(8), app.address);
    call(&upstream, Method::GET).await.unwrap();
    let mut attempts = Attempts::default();
    let attempt = upstream.attempt(request(Method::GET), SOON, &mut attempts);
    let Attempt::Again(mut again) = attempt.await.unwrap() else {
        panic!("it was answered");
    };
    assert_eq!(app.requests(), 2);
    let anew = "made anew".parse().unwrap();
    again.headers_mut().insert("authorization", anew);
    let attempt = upstream.attempt(again, SOON, &mut attempts).await.unwrap();
    assert!(matches!(attempt, Attempt::Answered(_)));
    let last = lock(&app.requests).pop().unwrap();
    assert!(last.contains("authorization: made anew\r\n"), "{last}");
}

#[tokio::test]
async fn an_http2_request_that_was_not_sent_comes_back_as_it_was() {
    let server = Secure::start(&[b"h2"], 100).await;
    let upstream = server.upstream(&Pool::new(8));
    call(&upstream, Method::GET).await.unwrap();
    // Its connection ends without the shelf having noticed when the request is handed over.
    let (connection, reused) = upstream.0.connection(false).await.unwrap();
    assert!(reused);
    if let Connection::H2(h2) = &connection {
        h2.driver.task.abort();
        until(|| h2.sender.is_closed()).await;
    }
    let sent = request(Method::POST);
    let (uri, headers) = (sent.uri().clone(), sent.headers().clone());
    match exchange(&upstream.0, connection, sent, SOON).await {
        Err(Failure::Unsent(back, _)) => {
            assert_eq!((back.uri(), back.headers()), (&uri, &headers));
        }
        Err(Failure::Broken(why)) => panic!("broken: {why}"),
        _ => panic!("it was sent"),
    }
}

#[tokio::test]
async fn a_connection_stuck_in_writing_ends_with_its_response() {
    const LONG: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(LONG).await.unwrap();
        std::future::pending::<()>().await; // neither reads nor closes
    });
    let pool = Pool::new(8);
    let mut large = request(Method::POST);
    *large.body_mut() = Bytes::from(vec![0; 64 * 1024 * 1024]).into();
    drop(plain(&pool, address).send(large, SOON).await.unwrap());
    until(|| pool.0.permits.available_permits() == 8).await;
}

#[tokio::test]
async fn a_response_dropped_half_read_ends_its_connection() {
    const LONG: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nthe first part";
    let app = Scripted::start(|_, n| Then::Answer(if n == 0 { LONG } else { OK })).await;
    let pool = Pool::new(8);
    let upstream = plain(&pool, app.address);
    drop(upstream.send(request(Method::GET), SOON).await.unwrap());
    until(|| pool.0.permits.available_permits() == 8).await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_timeout_and_ends_the_connection() {
    let app = Scripted::start(|_, _| Then::Nothing).await;
    let pool = Pool::new(8);
    let upstream = plain(&pool, app.address);
    let error = upstream
        .send(request(Method::GET), Duration::from_millis(20))
        .await
        .unwrap_err();
    assert!(matches!(error, SendError::TimedOut { .. }), "{error}");
    assert_eq!(app.requests(), 1);
    until(|| pool.0.permits.available_permits() == 8).await;
}

#[tokio::test]
async fn an_upstream_that_switches_protocols_unasked_is_refused() {
    let app = Scripted::start(|_, _| {
        Then::Answer(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        )
    })
    .await;
    let upstream = plain(&Pool::new(8), app.address);
    let error = call(&upstream, Method::GET).await.unwrap_err();
    assert!(matches!(error, SendError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn s14_connections_are_bounded_and_idle_ones_make_room() {
    let app = Scripted::start(|_, _| Then::Answer(OK)).await;
    let pool = Pool::new(1);
    let (one, two) = (plain(&pool, app.address), plain(&pool, app.address));
    let unread = one.send(request(Method::GET), SOON).await.unwrap();
    let error = call(&two, Method::GET).await.unwrap_err();
    assert!(
        matches!(error, SendError::Exhausted { limit: 1, .. }),
        "{error}"
    );
    text(unread).await;
    assert_eq!(call(&two, Method::GET).await.unwrap(), "ok");
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn idle_connections_are_bounded_and_leave_when_their_time_is_over() {
    let app = Scripted::start(|_, _| Then::Answer(OK)).await;
    let pool = Pool::new(8);
    let address = Address::Socket(app.address);
    let keep = Keep {
        max_idle: 2,
        ..Keep::UPSTREAM
    };
    let upstream = pool.upstream(Destination::new(address, None), keep);
    let mut responses = Vec::new();
    for _ in 0..4 {
        responses.push(upstream.send(request(Method::GET), SOON).await.unwrap());
    }
    for response in responses {
        text(response).await;
    }
    assert_eq!(lock(&upstream.0.shelf).idle(), 2);
    let later = Instant::now() + keep.idle;
    assert!(
        !matches!(
            lock(&upstream.0.shelf).checkout(later, &keep),
            Checkout::Connection(_)
        ),
        "handed out an overdue connection"
    );
    drop(lock(&upstream.0.shelf).sweep(later, &keep));
    until(|| pool.0.permits.available_permits() == 8).await;
}

#[tokio::test]
async fn connections_end_with_the_pool() {
    let app = Scripted::start(|_, _| Then::Answer(OK)).await;
    let pool = Pool::new(8);
    let permits = pool.0.permits.clone();
    let upstream = plain(&pool, app.address);
    call(&upstream, Method::GET).await.unwrap();
    assert_eq!(permits.available_permits(), 7);
    drop((pool, upstream));
    until(|| permits.available_permits() == 8).await;
}

#[tokio::test]
async fn an_unreachable_upstream_is_named_with_the_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let pool = Pool::new(8);
    let by_name = Address::Name("localhost".to_owned(), address.port());
    for address in [Address::Socket(address), by_name] {
        let to = address.to_string();
        let upstream = pool.upstream(Destination::new(address, None), Keep::APP);
        let error = call(&upstream, Method::GET).await.unwrap_err().to_string();
        assert!(error.contains(&to) && error.contains("refused"), "{error}");
    }
    assert_eq!(pool.0.permits.available_permits(), 8);
}

// TLS

/// A TLS upstream that answers with the connection's number, and the configuration to reach it.
struct Secure {
    address: SocketAddr,
    client: Arc<rustls::ClientConfig>,
    connections: Arc<AtomicUsize>,
}

impl Secure {
    async fn start(alpn: &[&[u8]], max_streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (server, client) = configs(alpn);
        let connections: Arc<AtomicUsize> = Arc::default();
        let count = connections.clone();
        let acceptor = tokio_rustls::TlsAcceptor::from(server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, count) = (acceptor.clone(), count.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    serve(stream, number, max_streams).await;
                });
            }
        });
        Self {
            address,
            client,
            connections,
        }
    }

    fn tls(&self, generation: u64) -> Tls {
        Tls {
            config: self.client.clone(),
            server_name: "localhost".try_into().unwrap(),
            generation,
            admit: None,
            expires: None,
        }
    }

    fn upstream(&self, pool: &Pool) -> Upstream {
        let destination = Destination::new(Address::Socket(self.address), Some(self.tls(1)));
        pool.upstream(destination, Keep::UPSTREAM)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    number: usize,
    max_streams: u32,
) {
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let answer = service_fn(move |request: Request<Incoming>| async move {
        let host = match request.uri().authority() {
            Some(authority) => authority.to_string(),
            None => request.headers()["host"].to_str().unwrap().to_owned(),
        };
        let text = format!(
            "{number} {:?} {host}{}",
            request.version(),
            request.uri().path()
        );
        let mut response = Response::new(Full::new(Bytes::from(text)));
        if request.method() == Method::DELETE {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(X_WARIFU_CONNECTION, close);
        }
        Ok::<_, std::convert::Infallible>(response)
    });
    let stream = TokioIo::new(stream);
    let _ = if h2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(max_streams)
            .serve_connection(stream, answer)
            .await
    } else {
        hyper::server::conn::http1::Builder::new()
            .serve_connection(stream, answer)
            .await
    };
}

fn configs(alpn: &[&[u8]]) -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let CertifiedKey {
        cert, signing_key, ..
    }: CertifiedKey<KeyPair> =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            signing_key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    server.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (Arc::new(server), Arc::new(client))
}

#[tokio::test]
async fn alpn_decides_between_http1_and_http2() {
    let pool = Pool::new(8);
    let h1 = Secure::start(&[b"http/1.1"], 100).await;
    let answer = call(&h1.upstream(&pool), Method::GET).await.unwrap();
    assert_eq!(answer, "0 HTTP/1.1 app.test/x");
    let h2 = Secure::start(&[b"h2", b"http/1.1"], 100).await;
    let answer = call(&h2.upstream(&pool), Method::GET).await.unwrap();
    assert_eq!(answer, "0 HTTP/2.0 app.test/x");
}

#[tokio::test]
async fn a_burst_of_first_requests_shares_one_http2_connection() {
    let server = Secure::start(&[b"h2"], 100).await;
    let upstream = server.upstream(&Pool::new(100));
    let calls = (0..50).map(|_| {
        let upstream = upstream.clone();
        tokio::spawn(async move { call(&upstream, Method::POST).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.connections(), 1);
    assert_eq!(lock(&upstream.0.shelf).idle(), 1);
}

#[tokio::test]
async fn another_http2_connection_is_made_when_streams_run_out() {
    let server = Secure::start(&[b"h2"], 2).await;
    let upstream = server.upstream(&Pool::new(100));
    // The first exchange tells us the limit.
    for _ in 0..2 {
        call(&upstream, Method::GET).await.unwrap();
    }
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(upstream.send(request(Method::GET), SOON).await.unwrap());
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_new_generation_moves_new_requests_to_new_connections() {
    for alpn in [b"h2".as_slice(), b"http/1.1"] {
        let server = Secure::start(&[alpn], 100).await;
        let pool = Pool::new(8);
        let upstream = server.upstream(&pool);
        assert!(call(&upstream, Method::GET).await.unwrap().starts_with('0'));
        assert!(call(&upstream, Method::GET).await.unwrap().starts_with('0'));
        let busy = upstream.send(request(Method::GET), SOON).await.unwrap();
        upstream.set_tls(server.tls(2));
        assert!(call(&upstream, Method::GET).await.unwrap().starts_with('1'));
        // What was under way ends well, and its connection is not used again.
        assert!(text(busy).await.starts_with('0'));
        assert!(call(&upstream, Method::GET).await.unwrap().starts_with('1'));
        until(|| pool.0.permits.available_permits() == 7).await;
        // An older generation changes nothing.
        upstream.set_tls(server.tls(1));
        assert!(call(&upstream, Method::GET).await.unwrap().starts_with('1'));
    }
}

#[tokio::test]
async fn an_http2_connection_that_says_it_will_close_gets_no_further_request() {
    let server = Secure::start(&[b"h2"], 100).await;
    let pool = Pool::new(8);
    let upstream = server.upstream(&pool);
    let busy = upstream.send(request(Method::GET), SOON).await.unwrap();
    let last = upstream.send(request(Method::DELETE), SOON).await.unwrap();
    // It is for the pool, and for no one behind it.
    assert!(!last.headers().contains_key(X_WARIFU_CONNECTION));
    assert!(call(&upstream, Method::GET).await.unwrap().starts_with('1'));
    // What was under way ends well, and then the connection does.
    assert!(text(last).await.starts_with('0'));
    assert!(text(busy).await.starts_with('0'));
    until(|| pool.0.permits.available_permits() == 7).await;
}

#[tokio::test]
async fn nothing_is_sent_to_a_peer_that_is_verified_and_not_admitted() {
    let server = Secure::start(&[b"h2"], 100).await;
    let upstream = server.upstream(&Pool::new(8));
    call(&upstream, Method::GET).await.unwrap();
    let refuse = Admit::new(|chain| Err(format!("{} certificates of a thief", chain.len())));
    upstream.set_tls(Tls {
        admit: Some(refuse),
        ..server.tls(2)
    });
    let error = call(&upstream, Method::GET).await.unwrap_err();
    assert!(matches!(error, SendError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("1 certificates of a thief"),
        "{error}"
    );
    upstream.set_tls(Tls {
        admit: Some(Admit::new(|_| Ok(()))),
        ..server.tls(3)
    });
    call(&upstream, Method::GET).await.unwrap();
}

#[tokio::test]
async fn s19_nothing_is_sent_to_a_peer_that_is_not_verified() {
    let server = Secure::start(&[b"h2"], 100).await;
    let (_, stranger) = configs(&[b"h2"]);
    let upstream = server.upstream(&Pool::new(8));
    upstream.set_tls(Tls {
        config: stranger,
        ..server.tls(2)
    });
    let calls = (0..20).map(|_| {
        let upstream = upstream.clone();
        tokio::spawn(async move { call(&upstream, Method::GET).await })
    });
    for call in calls.collect::<Vec<_>>() {
        let error = call.await.unwrap().unwrap_err();
        assert!(
            matches!(&error, SendError::Connect { why, .. } if why.contains("certificate")),
            "{error}"
        );
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_upstream_on_a_unix_socket_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        stream.write_all(OK).await.unwrap();
    });
    let address = Address::Unix(path);
    let upstream = Pool::new(1).upstream(Destination::new(address, None), Keep::APP);
    assert_eq!(call(&upstream, Method::GET).await.unwrap(), "ok");
}

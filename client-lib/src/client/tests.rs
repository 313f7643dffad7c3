use std::{
    convert::Infallible,
    path::Path,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
};

use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::*;

type Answer = http::Response<Full<Bytes>>;

/// An agent that repeats what it got as JSON, and counts connections.
struct Agent {
    dir: TempDir,
    connections: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

impl Agent {
    async fn echo(http2: bool) -> Self {
        Self::serve(http2, echo).await
    }

    async fn serve<F, A>(http2: bool, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                open.spawn(serve_connection(stream, http2, answer.clone()));
            }
        });
        Self {
            dir,
            connections,
            _server: server,
        }
    }

    fn client(&self) -> Client {
        client_of(self.dir.path())
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve_connection<F, A>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http2: bool,
    answer: F,
) where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let io = TokioIo::new(stream);
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // An error here is the client hanging up, which some tests want.
    let _ = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await
    } else {
        hyper::server::conn::http1::Builder::new()
            .serve_connection(io, service)
            .await
    };
}

async fn echo(request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let host = head.headers.get("host").map(|host| host.to_str().unwrap());
    let text = |name| head.headers.get(name).map(|value| value.to_str().unwrap());
    let answer = json!({
        "method": head.method.as_str(),
        "host": host.or_else(|| head.uri.authority().map(|a| a.as_str())),
        "target": head.uri.path_and_query().unwrap().as_str(),
        "absolute": head.uri.scheme().is_some(),
        "version": format!("{:?}", head.version),
        "type": text("content-type"),
        "note": text("x-note"),
        "body": String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap(),
    });
    http::Response::new(Full::from(answer.to_string()))
}

fn client_of(dir: &Path) -> Client {
    Client::new(&format!("unix:{}/agent.sock", dir.display())).unwrap()
}

#[tokio::test]
async fn a_service_is_called_by_name_over_a_unix_socket() {
    let agent = Agent::echo(false).await;
    let seen: Value = agent
        .client()
        .get("http://payments/charges?limit=1")
        .header("x-note", "hello")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(seen["host"], "payments");
    assert_eq!(seen["target"], "/charges?limit=1");
    assert_eq!(seen["absolute"], false);
    assert_eq!(seen["version"], "HTTP/1.1");
    assert_eq!(seen["note"], "hello");
}

#[tokio::test]
async fn a_service_is_called_by_name_over_loopback() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve_connection(stream, false, echo).await;
    });
    let client = Client::new(&format!("http://{address}")).unwrap();
    let answer = client.get("http://payments").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let seen: Value = answer.json().await.unwrap();
    assert_eq!(
        (&seen["host"], &seen["target"]),
        (&json!("payments"), &json!("/"))
    );
}

#[tokio::test]
async fn json_is_sent_with_its_content_type() {
    let agent = Agent::echo(false).await;
    let request = agent.client().post("http://payments/charges");
    let answer = request.json(&json!({"amount": 5})).send().await.unwrap();
    let seen: Value = answer.json().await.unwrap();
    assert_eq!(seen["method"], "POST");
    assert_eq!(seen["type"], "application/json");
    assert_eq!(seen["body"], r#"{"amount":5}"#);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_streamed_both_ways() {
    for http2 in [false, true] {
        let agent = Agent::echo(http2).await;
        let client = agent.client();
        let client = if http2 { client.http2() } else { client };
        let (parts, body) = mpsc::channel::<Bytes>(1);
        let request = Request::post("http://payments/charges")
            .body(Parts(body))
            .unwrap();
        let (answer, ()) = tokio::join!(client.request(request), async move {
            parts.send("one,".into()).await.unwrap();
            parts.send("two".into()).await.unwrap();
        });
        let mut body = answer.unwrap().into_http().into_body();
        let mut seen = Vec::new();
        while let Some(frame) = body.frame().await {
            seen.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
        }
        let seen: Value = serde_json::from_slice(&seen).unwrap();
        assert_eq!(seen["body"], "one,two");
    }
}

#[tokio::test]
async fn answers_read_to_their_end_leave_their_connection_for_the_next_request() {
    let agent = Agent::echo(false).await;
    let client = agent.client();
    for _ in 0..20 {
        let answer = client.get("http://payments/charges").send().await.unwrap();
        answer.bytes().await.unwrap();
    }
    assert_eq!(agent.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_was_not_read_closes_its_connection() {
    let agent = Agent::serve(false, |_| async {
        http::Response::new(Full::from(vec![b'x'; 1024 * 1024]))
    })
    .await;
    let client = agent.client();
    for _ in 0..2 {
        drop(client.get("http://payments/charges").send().await.unwrap());
    }
    assert_eq!(agent.connections(), 2);
}

#[tokio::test]
async fn http2_carries_all_requests_over_one_connection() {
    let gate = Arc::new(Semaphore::new(0));
    let inside = Arc::clone(&gate);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let agent = Agent::serve(true, move |request| {
        arrived.send(()).unwrap();
        let gate = Arc::clone(&inside);
        async move {
            let _ = gate.acquire().await.unwrap();
            echo(request).await
        }
    })
    .await;
    let client = agent.client().http2();
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let request = client.get("http://payments/charges?limit=1");
        calls.spawn(async move {
            let answer = request.send().await.unwrap();
            answer.json::<Value>().await.unwrap()
        });
    }
    for _ in 0..20 {
        arrivals.recv().await.unwrap();
    }
    gate.add_permits(20);
    for seen in calls.join_all().await {
        assert_eq!(seen["version"], "HTTP/2.0");
        assert_eq!(seen["host"], "payments");
        assert_eq!(seen["target"], "/charges?limit=1");
    }
    assert_eq!(agent.connections(), 1);
}

#[tokio::test]
async fn http2_connects_anew_when_the_agent_closed_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
    let client = client_of(dir.path()).http2();
    for _ in 0..2 {
        let mut server = JoinSet::new();
        let (answer, ()) = tokio::join!(client.get("http://payments/").send(), async {
            let (stream, _) = listener.accept().await.unwrap();
            server.spawn(serve_connection(stream, true, echo));
        });
        answer.unwrap().bytes().await.unwrap();
        server.shutdown().await;
    }
}

#[tokio::test]
async fn http2_connects_anew_when_the_agent_says_it_will_close_the_connection() {
    let agent = Agent::serve(true, |request| async move {
        let last = request.uri().path() == "/last";
        let mut answer = echo(request).await;
        if last {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION_HEADER, close);
        }
        answer
    })
    .await;
    let client = agent.client().http2();
    let get = async |path| {
        let url = format!("http://payments{path}");
        client.get(&url).send().await.unwrap()
    };
    let (one, other) = (get("/last").await, get("/last").await);
    assert_eq!(agent.connections(), 2);
    // It is for the client, and for no one behind it.
    assert!(!one.headers().contains_key(CONNECTION_HEADER));
    get("/").await;
    get("/").await;
    assert_eq!(agent.connections(), 3);
    // What was under way on the others ends well.
    for answer in [one, other] {
        answer.bytes().await.unwrap();
    }
}

#[tokio::test]
async fn s14_no_more_than_the_bound_of_requests_is_under_way() {
    const BOUND: usize = transport::MAX_IN_FLIGHT;
    let gate = Arc::new(Semaphore::new(0));
    let inside = Arc::clone(&gate);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let agent = Agent::serve(false, move |request| {
        arrived.send(()).unwrap();
        let gate = Arc::clone(&inside);
        async move {
            gate.acquire().await.unwrap().forget();
            echo(request).await
        }
    })
    .await;
    let client = agent.client();
    let mut calls = JoinSet::new();
    for _ in 0..BOUND + 8 {
        let request = client.get("http://payments/charges");
        calls.spawn(async move { request.send().await.unwrap().bytes().await.unwrap() });
    }
    for _ in 0..BOUND {
        arrivals.recv().await.unwrap();
    }
    // All tasks run on this thread: whatever could get in has done so after a few turns.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(arrivals.try_recv().is_err(), "a request beyond the bound");
    gate.add_permits(BOUND + 8);
    assert_eq!(calls.join_all().await.len(), BOUND + 8);
}

/// An agent that answers one request on its first connection, reads a second, and closes;
/// then answers one request on each further connection. Tells of every request it read.
async fn agent_that_closes(dir: &Path) -> (JoinSet<()>, mpsc::UnboundedReceiver<String>) {
    let listener = UnixListener::bind(dir.join("agent.sock")).unwrap();
    let (requests, seen) = mpsc::unbounded_channel();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        requests.send(read_head(&mut first).await).unwrap();
        first.write_all(OK).await.unwrap();
        requests.send(read_head(&mut first).await).unwrap();
        drop(first);
        loop {
            let (mut next, _) = listener.accept().await.unwrap();
            requests.send(read_head(&mut next).await).unwrap();
            next.write_all(OK).await.unwrap();
        }
    });
    (server, seen)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The request line of the next request.
async fn read_head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    head.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn an_idempotent_request_on_a_kept_connection_that_was_closed_is_sent_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, mut seen) = agent_that_closes(dir.path()).await;
    let client = client_of(dir.path());
    for _ in 0..2 {
        let answer = client.get("http://payments/charges").send().await.unwrap();
        assert_eq!(answer.bytes().await.unwrap(), "ok");
    }
    for _ in 0..3 {
        assert_eq!(seen.recv().await.unwrap(), "GET /charges HTTP/1.1");
    }
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_meanwhile_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
    let client = client_of(dir.path());
    for _ in 0..2 {
        let post = client.post("http://payments/charges").send();
        let (answer, ()) = tokio::join!(post, async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
        });
        assert_eq!(answer.unwrap().bytes().await.unwrap(), "ok");
        while client.transport.idle_open() != [false] {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_request_that_may_have_had_an_effect_is_not_sent_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, mut seen) = agent_that_closes(dir.path()).await;
    let client = client_of(dir.path());
    let post = || client.post("http://payments/charges").send();
    post().await.unwrap().bytes().await.unwrap();
    let error = post().await.unwrap_err();
    assert!(matches!(error, ClientError::Connection { .. }), "{error}");
    for _ in 0..2 {
        assert_eq!(seen.recv().await.unwrap(), "POST /charges HTTP/1.1");
    }
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn a_streamed_body_is_not_sent_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, _seen) = agent_that_closes(dir.path()).await;
    let client = client_of(dir.path());
    let first = client.get("http://payments/charges").send().await.unwrap();
    first.bytes().await.unwrap();
    let (_parts, body) = mpsc::channel::<Bytes>(1);
    let request = Request::put("http://payments/charges/1").body(Parts(body));
    let error = client.request(request.unwrap()).await.unwrap_err();
    assert!(matches!(error, ClientError::Connection { .. }), "{error}");
}

#[tokio::test]
async fn a_new_connection_that_is_closed_is_an_error_and_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
    let client = client_of(dir.path());
    let (answer, ()) = tokio::join!(client.get("http://payments/charges").send(), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
    });
    let error = answer.unwrap_err();
    assert!(matches!(error, ClientError::Connection { .. }), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("GET http://payments/charges:"),
        "{error}"
    );
}

#[test]
fn the_environment_names_the_agent_or_leaves_it_at_its_default() {
    let address = |value: Option<&str>| {
        Client::from_variable(value.map(OsString::from)).map(|c| c.transport.address().to_string())
    };
    assert_eq!(address(None).unwrap(), DEFAULT_OUTBOUND);
    let set = "http://127.0.0.1:4140";
    assert_eq!(address(Some(set)).unwrap(), set);
    assert!(address(Some("")).is_err());
}

#[tokio::test]
async fn a_time_out_beyond_the_clock_is_none() {
    let agent = Agent::echo(false).await;
    let client = agent.client().timeout(Duration::MAX);
    let answer = client.get("http://payments/").send().await.unwrap();
    answer.bytes().await.unwrap();
}

#[tokio::test]
async fn an_absent_agent_is_an_error_that_says_where_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    for client in [client_of(dir.path()), client_of(dir.path()).http2()] {
        let error = client.get("http://payments/").send().await.unwrap_err();
        assert!(matches!(error, ClientError::AgentUnreachable { .. }));
        let text = error.to_string();
        for part in ["agent.sock", "is the agent running", OUTBOUND_VARIABLE] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[tokio::test]
async fn what_listens_but_is_no_http_server_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
    let client = client_of(dir.path());
    let (answer, ()) = tokio::join!(client.get("http://payments/").send(), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"220 mail.example ESMTP\r\n")
            .await
            .unwrap();
        read_head(&mut stream).await;
    });
    let error = answer.unwrap_err().to_string();
    assert!(
        error.contains("is it the agent that listens there?"),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_of_the_agents_own_is_told_apart_from_the_services() {
    let agent = Agent::serve(false, |_| async {
        http::Response::builder()
            .status(StatusCode::BAD_GATEWAY)
            .header(REASON_HEADER, "no-route")
            .body(Full::from("{}"))
            .unwrap()
    })
    .await;
    let client = agent.client();
    let get = || client.get("http://nobody/charges?token=hunter2").send();
    let answer = get().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(answer.agent_reason(), Some("no-route"));
    for error in [
        answer.error_for_status().unwrap_err(),
        get().await.unwrap().json::<Value>().await.unwrap_err(),
    ] {
        assert_eq!(
            error.to_string(),
            "GET http://nobody/charges: answered 502 Bad Gateway by the agent: no-route"
        );
    }
}

#[tokio::test]
async fn an_error_status_of_the_service_is_an_answer() {
    let agent = Agent::serve(false, |_| async {
        let answer = http::Response::builder().status(StatusCode::CONFLICT);
        answer.body(Full::from(r#"{"error":"exists"}"#)).unwrap()
    })
    .await;
    let get = || agent.client().get("http://payments/charges").send();
    let answer = get().await.unwrap();
    assert_eq!(answer.agent_reason(), None);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"], "exists");
    let error = get().await.unwrap().error_for_status().unwrap_err();
    assert!(matches!(error, ClientError::Refused { reason: None, .. }));
}

#[tokio::test]
async fn s14_an_answer_beyond_the_limit_is_not_held_in_memory() {
    let agent = Agent::serve(false, |request| async move {
        let mut answer = http::Response::new(Full::from(vec![b'x'; 1000]));
        if request.uri().path() == "/chunked" {
            let chunked = HeaderValue::from_static("chunked");
            answer
                .headers_mut()
                .insert(header::TRANSFER_ENCODING, chunked);
        }
        answer
    })
    .await;
    for (limit, fits) in [(999, false), (1000, true)] {
        let client = agent.client().response_limit(limit);
        for url in ["http://payments/whole", "http://payments/chunked"] {
            let body = client.get(url).send().await.unwrap().bytes().await;
            match body {
                Ok(body) => assert!(fits && body.len() == 1000, "{url} {limit}"),
                Err(ClientError::TooLarge { limit: 999, .. }) => assert!(!fits),
                Err(error) => panic!("{url}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_a_time_out() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
    let client = client_of(dir.path());
    let timeout = Duration::from_millis(20);
    let request = client.get("http://payments/charges").timeout(timeout);
    let error = request.send().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "GET http://payments/charges: not answered in full within 20ms"
    );

    // The head came, the body does not.
    let request = client.get("http://payments/charges");
    let (answer, _open) = tokio::join!(request.send(), async {
        let _first = listener.accept().await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
        stream.write_all(head).await.unwrap();
        stream
    });
    let mut answer = answer.unwrap();
    answer.deadline = Instant::now();
    let error = answer.bytes().await.unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn s19_what_the_agent_must_not_be_asked_is_refused_before_it_is_sent() {
    let agent = Agent::echo(false).await;
    let client = agent.client();
    for (request, reason) in [
        (client.get("https://payments/"), "the agent adds TLS"),
        (client.get("/charges"), "absolute URL"),
        (client.get("payments"), "absolute URL"),
        (client.get("ftp://payments/"), "absolute URL"),
        (
            client.get("http://me:hunter2@payments/"),
            "user information",
        ),
        (client.get("http://pay ments/"), "not a URL"),
        (
            client.method(Method::CONNECT, "http://payments/"),
            "CONNECT",
        ),
        (
            client.get("http://payments/").header("host", "admin"),
            "names another host",
        ),
        (
            client.get("http://payments/").header("a b", "c"),
            "name is not valid",
        ),
        (
            client.get("http://payments/").header("x-note", "hunter2\n"),
            "value of header x-note",
        ),
    ] {
        let error = request.send().await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    assert_eq!(agent.connections(), 0);
}

#[tokio::test]
async fn s12_an_error_shows_no_query() {
    let dir = tempfile::tempdir().unwrap();
    let client = client_of(dir.path());
    for url in [
        "https://payments/?token=hunter2",
        "http://pay ments/?token=hunter2",
    ] {
        let error = client.get(url).send().await.unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{error:?}"
        );
    }
}

/// A body whose parts come from a channel.
struct Parts(mpsc::Receiver<Bytes>);

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.0.poll_recv(cx);
        part.map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

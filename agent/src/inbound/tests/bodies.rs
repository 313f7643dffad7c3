//! What is taken of a request's body.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::config::value::Size;

const LIMIT: usize = 2_000;

fn limited(config: &mut config::Inbound) {
    config.limits.body = Some(Size(LIMIT));
}

fn declared(length: usize) -> String {
    format!("POST /a HTTP/1.1\r\nhost: payments\r\ncontent-length: {length}\r\n\r\n")
}

fn chunked(length: usize) -> String {
    let body = "x".repeat(length);
    format!(
        "POST /a HTTP/1.1\r\nhost: payments\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
    )
}

#[tokio::test]
async fn s14_a_body_that_says_that_it_is_too_large_is_413_and_the_app_hears_nothing_of_it() {
    let mut fixture = Fixture::with(OK, limited).await;
    let refused = fixture.caller(ORDERS).await.ask(&declared(LIMIT + 1)).await;
    assert_eq!(
        (refused.status(), refused.all("x-warifu-reason")),
        (413, vec!["body-too-large"])
    );
    let line = fixture.audited();
    assert_eq!(
        (&line["result"], &line["status"], &line["reason"]),
        (&json!("refused"), &json!(413), &json!("body-too-large"))
    );
    assert!(fixture.nothing_seen());
    // Who may not ask at all is told that.
    let who = fixture.caller("spiffe://example.org/other").await;
    let refused = { who }.ask(&declared(LIMIT + 1)).await;
    assert_eq!(refused.status(), 403);
}

#[tokio::test]
async fn s14_a_body_of_unknown_length_is_413_where_it_becomes_too_large_and_never_whole_at_the_app()
{
    let mut fixture = Fixture::with(OK, limited).await;
    let refused = fixture.caller(ORDERS).await.ask(&chunked(LIMIT + 1)).await;
    assert_eq!(
        (refused.status(), refused.all("x-warifu-reason")),
        (413, vec!["body-too-large"])
    );
    // It notes whole requests only.
    assert!(fixture.nothing_seen());
    let mut orders = fixture.caller(ORDERS).await;
    assert_eq!(orders.ask(&chunked(LIMIT)).await.status(), 200);
    let whole = declared(LIMIT) + &"x".repeat(LIMIT);
    assert_eq!(orders.ask(&whole).await.status(), 200);
}

#[tokio::test]
async fn who_still_sends_when_it_is_refused_hears_why() {
    // More than sockets hold between them.
    const MUCH: usize = 32 << 20;
    let fixture = Fixture::with(OK, limited).await;
    let mut orders = fixture.connect(fixture.client(ORDERS), b"http/1.1").await;
    orders.write_all(declared(MUCH).as_bytes()).await.unwrap();
    let sent = async {
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..MUCH / piece.len() {
            orders.write_all(&piece).await?;
        }
        orders.flush().await
    };
    // Like a client that writes all, and then reads.
    let sent = tokio::time::timeout(Duration::from_secs(15), sent).await;
    assert!(matches!(sent, Ok(Ok(()))), "{sent:?}");
    let refused = fixture::Caller1::new(orders).response().await.unwrap();
    assert_eq!(refused.status(), 413);
    assert_eq!(refused.all("connection"), ["close"]);
}

#[tokio::test]
async fn s14_a_body_that_does_not_go_on_is_408_and_says_so() {
    let mut fixture = Fixture::with(OK, |_| {}).await;
    let mut orders = fixture.caller(ORDERS).await;
    orders.send(declared(10) + "first").await;
    let late = orders.response().await.unwrap();
    assert_eq!(
        (late.status(), late.all("x-warifu-reason")),
        (408, vec!["body-late"])
    );
    let line = fixture.audited();
    let detail = line["detail"].to_string();
    assert!(detail.contains("200ms"), "{detail}");
    assert_eq!(line["result"], "refused");
    assert!(fixture.nothing_seen());
}

#[tokio::test]
async fn an_app_that_does_not_read_is_not_taken_for_a_caller_that_does_not_send() {
    const MUCH: usize = 32 << 20;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = listener.local_addr().unwrap();
    // Accepted by the kernel, and never read.
    let fixture = Fixture::with(OK, |config| config.forward = Some(Forward::Tcp(app))).await;
    let orders = fixture.connect(fixture.client(ORDERS), b"http/1.1").await;
    let (reader, mut writer) = tokio::io::split(orders);
    let writing = tokio::spawn(async move {
        let _ = writer.write_all(declared(MUCH).as_bytes()).await;
        let _ = writer.write_all(&vec![b'x'; MUCH]).await;
    });
    let answer = read_head(reader).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(
        answer.contains("x-warifu-reason: app-timed-out"),
        "{answer}"
    );
    writing.abort();
    drop(listener);
}

async fn read_head(mut reader: impl tokio::io::AsyncRead + Unpin) -> String {
    use tokio::io::AsyncReadExt;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(fixture::DEADLINE, reader.read_u8()).await;
        head.push(byte.expect("an answer").unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn over_http_2_a_body_that_is_too_large_or_late_ends_its_stream_alone() {
    let fixture = Fixture::with(OK, limited).await;
    let stream = fixture.connect(fixture.client(ORDERS), b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let pieces = |length: usize, ends: bool| {
        let piece = Some(Bytes::from(vec![b'x'; length]));
        let request = Request::post("https://payments/a");
        request.body(Piece(piece, ends)).unwrap()
    };
    for (length, ends, expected) in [
        (LIMIT + 1, true, (413, "body-too-large")),
        (LIMIT + 1, false, (413, "body-too-large")),
        (5, false, (408, "body-late")),
    ] {
        let answer =
            tokio::time::timeout(fixture::DEADLINE, sender.send_request(pieces(length, ends)));
        let answer = answer.await.unwrap().unwrap();
        let reason = answer.headers()["x-warifu-reason"].to_str().unwrap();
        assert_eq!((answer.status().as_u16(), reason), expected);
    }
    let answer = sender.send_request(pieces(LIMIT, true)).await.unwrap();
    assert_eq!(answer.status(), 200);
}

/// A body of one piece, after which it ends, or nothing comes.
struct Piece(Option<Bytes>, bool);

impl http_body::Body for Piece {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match (self.0.take(), self.1) {
            (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            (None, true) => Poll::Ready(None),
            (None, false) => Poll::Pending,
        }
    }
}

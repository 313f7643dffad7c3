//! Bodies far larger than the agent's memory go through it, signed, at its usual size.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    Request,
    header::{CONTENT_LENGTH, HOST},
};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};
use warifu_tests::aws::{Account, Agent};

const GIB: u64 = 1 << 30;

/// What the agent may grow by: its connections' buffers, and what its allocator keeps of them.
const FLAT_KIB: u64 = 12 * 1024;

/// The emulator holds it all, and hashes it.
const ENOUGH: Duration = Duration::from_secs(300);

/// So many bytes, made as they are sent.
struct Made {
    left: u64,
    piece: Bytes,
}

impl Body for Made {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let size = self.left.min(self.piece.len() as u64);
        self.left -= size;
        let piece = self.piece.slice(..size as usize);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The status of an upload of `size` bytes.
async fn upload(agent: &Agent, key: &str, size: u64) -> u16 {
    let exchange = async {
        let stream = TcpStream::connect(agent.address()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let piece = Bytes::from(vec![b'x'; 64 * 1024]);
        let request = Request::put(format!("/shelf/{key}"))
            .header(HOST, "s3")
            .header(CONTENT_LENGTH, size)
            .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
        let request = request.body(Made { left: size, piece }).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(status == 200, "{status}: {body:?}");
        status
    };
    timeout(ENOUGH, exchange).await.expect("an answer in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_a_gibibyte_is_uploaded_with_a_signature_and_the_agent_stays_small() {
    let account = Account::open().await;
    let role = account.role("keeper", json!({}), "s3:*").await;
    let bucket = json!({"Bucket": "shelf"});
    account.set_up("s3", "create_bucket", bucket).await;
    // Past the wire, which remembers what is sent.
    let route = format!(
        "- {{host: s3, upstream: \"http://{}\", timeouts: {{first_byte: 5m}}, sigv4: {{service: s3, role: \"{role}\"}}}}\n",
        account.services()
    );
    let agent = account.agent(&[route]);
    for size in [0, 1, 64 * 1024, 64 * 1024 + 1] {
        upload(&agent, "small", size).await;
    }
    upload(&agent, "warm", 8 << 20).await;
    let before = agent.most_memory();
    upload(&agent, "large", GIB).await;
    let after = agent.most_memory();
    assert!(after - before < FLAT_KIB, "from {before} to {after} KiB");
    let object = json!({"Bucket": "shelf", "Key": "large"});
    let there = account.set_up("s3", "head_object", object).await;
    assert_eq!(there["ContentLength"], GIB);
    eprintln!("resident at most: {before} KiB before the gibibyte, {after} KiB after");
}

//! The Workload API to an app: how soon the first message of a stream is there, and the first SVID after the agent
//! has it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use warifu_tests::mesh::Mesh;

use crate::{
    Result,
    process::Process,
    proxies::{Setting, warifu},
    report::{Bar, Row},
};

/// An empty message, framed as gRPC has it.
const EMPTY: &[u8] = &[0; 5];

/// Calls before those that count.
const WARM_UP: usize = 200;

/// An agent in a process of its own, then agents in this one that get their first identity.
pub(super) async fn run(quick: bool, at: Setting<'_>) -> Result<Vec<Row>> {
    let (rounds, calls) = if quick { (2, 1_000) } else { (7, 5_000) };
    let (first, middle) = first_messages(rounds, calls, at).await?;
    let mut waited = Vec::new();
    for _ in 0..rounds {
        waited.push(first_identity().await?);
    }
    Ok(vec![
        Row::alone(
            "FetchX509SVID, first message, p99",
            "ms",
            &first,
            Bar::Ours(1.0),
        ),
        Row::alone("the same, median", "ms", &middle, Bar::None),
        Row::alone(
            "first SVID after the agent has it",
            "ms",
            &waited,
            Bar::Ours(50.0),
        ),
    ])
}

/// The 99th percentile of each round, and the median.
async fn first_messages(
    rounds: usize,
    calls: usize,
    at: Setting<'_>,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let mesh = Mesh::start().await;
    let socket = mesh.dir().join("workload.sock");
    let agent = mesh.agent("orders").more(&local(&socket)).prepare().await;
    let mut command = Command::new(warifu::locate()?);
    command
        .arg("agent")
        .arg("--config")
        .arg(agent.dir.join("agent.yaml"));
    let (out, err) = (at.directory.join("out"), at.directory.join("err"));
    let mut process = Process::start(command, at.cores, &out, &err)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut client = loop {
        process.still_runs()?;
        let asked = async {
            let mut client = Client::connect(&socket).await?;
            client.first_message().await.map(|_| client)
        };
        match asked.await {
            Ok(client) => break client,
            Err(why) if Instant::now() > deadline => return Err(why),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let (mut late, mut middle) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut took = Vec::with_capacity(calls);
        for call in 0..WARM_UP + calls {
            let spent = client.first_message().await?;
            if call >= WARM_UP {
                took.push(spent.as_secs_f64() * 1e3);
            }
        }
        took.sort_by(f64::total_cmp);
        let at = |share: usize| took.get(calls * share / 100).copied().unwrap_or(f64::NAN);
        late.push(at(99));
        middle.push(at(50));
    }
    Ok((late, middle))
}

/// Milliseconds from when an agent has its first identity to when an app that waits for it has it, too.
async fn first_identity() -> Result<f64> {
    let mut mesh = Mesh::with(|authority| authority.on_disk()).await;
    let socket = mesh.dir().join("workload.sock");
    let mut agent = mesh.agent("orders").more(&local(&socket)).prepare().await;
    mesh.authority.stop();
    agent.start_unready().await;
    let waiting = tokio::spawn(async move {
        let mut client = Client::connect(&socket).await?;
        while client.first_message().await.is_err() {}
        Result::Ok(Instant::now())
    });
    let mut identity = agent.running().identity.clone();
    mesh.authority.start().await;
    identity.wait_for(Option::is_some).await?;
    let issued = Instant::now();
    let told = waiting.await??;
    Ok(told.saturating_duration_since(issued).as_secs_f64() * 1e3)
}

fn local(socket: &Path) -> String {
    format!(
        "local: {{workload_api: {{listen: \"unix:{}\"}}}}",
        socket.display()
    )
}

/// An app with one connection.
struct Client(http2::SendRequest<Full<Bytes>>);

impl Client {
    async fn connect(socket: &PathBuf) -> Result<Self> {
        let stream = TokioIo::new(UnixStream::connect(socket).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Opens a stream, reads its first message, closes it; how long the message took.
    async fn first_message(&mut self) -> Result<Duration> {
        let request = Request::post("http://localhost/SpiffeWorkloadAPI/FetchX509SVID")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("workload.spiffe.io", "true")
            .body(Full::from(Bytes::from_static(EMPTY)))?;
        let started = Instant::now();
        let mut answer = self.0.send_request(request).await?;
        if let Some(status) = answer.headers().get("grpc-status") {
            return Err(format!("gRPC status {status:?}").into());
        }
        let frame = answer.frame().await.ok_or("no message came")??;
        let took = started.elapsed();
        // The certificate, its key and the bundle are more than this.
        match frame.data_ref().is_some_and(|data| data.len() > 500) {
            true => Ok(took),
            false => Err("what came is no SVID".into()),
        }
    }
}

//! Closed-loop load: every connection asks again as soon as it is answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Result, backend,
    client::{Client, Connection, request},
    process::Process,
};

pub(crate) use pace::latencies;

mod pace;

/// Which request pattern is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Connections are made beforehand and kept; only requests are measured.
    KeepAlive,
    /// Each request makes a connection of its own: a full handshake each.
    NewConnections,
}

/// What load is driven through.
pub(crate) trait Target {
    /// Its name in tables.
    fn name(&self) -> &'static str;
    /// Who calls.
    fn client(&self) -> &Client;
    /// Whose CPU time counts.
    fn processes(&self) -> &[Process];
    /// So many more requests were answered.
    fn answered(&mut self, requests: u64);
}

/// What is driven.
#[derive(Debug, Clone)]
pub(crate) struct Drive {
    pub(crate) pattern: Pattern,
    /// Connections at once.
    pub(crate) concurrency: usize,
    /// The requests, with their bodies; connections send them in turn.
    pub(crate) messages: Arc<[Vec<u8>]>,
}

impl Drive {
    /// A GET of 1 KiB.
    pub(crate) fn get(pattern: Pattern, concurrency: usize) -> Self {
        Self {
            pattern,
            concurrency,
            messages: vec![request(backend::PATH, "")].into(),
        }
    }

    /// The requests of one of the connections, which begins with one of its own.
    fn turn(&self, connection: usize) -> Turn {
        let messages = Arc::clone(&self.messages);
        let next = connection * messages.len() / self.concurrency.max(1);
        Turn { messages, next }
    }
}

/// Requests one after the other, and from the first again.
struct Turn {
    messages: Arc<[Vec<u8>]>,
    next: usize,
}

impl Turn {
    fn next(&mut self) -> &[u8] {
        let at = self.next % self.messages.len().max(1);
        self.next = at + 1;
        self.messages.get(at).map(Vec::as_slice).unwrap_or_default()
    }
}

/// What one run against one proxy showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// CPU time of the proxy for a request (and handshake, where each makes one), µs.
    pub(crate) cpu_us: f64,
    /// Requests a second.
    pub(crate) rate: f64,
}

/// Drives `target` for `time`. One failed request fails it.
pub(crate) async fn sample(
    target: &mut impl Target,
    drive: &Drive,
    time: Duration,
) -> Result<Sample> {
    let mut load = Load::start(target.client(), drive).await?;
    // The first requests fill pools and caches; they are not the steady state.
    tokio::time::sleep(time / 10).await;

    let (cpu, requests, from) = (cpu_of(target)?, load.requests(), Instant::now());
    tokio::time::sleep(time).await;
    let (cpu_after, requests_after, took) = (cpu_of(target)?, load.requests(), from.elapsed());

    let answered = load.stop().await.map_err(|e| failed(target, &*e))?;
    target.answered(answered);
    let requests = (requests_after - requests) as f64;
    if requests == 0.0 {
        return Err(format!("{} answered nothing in {took:?}", target.name()).into());
    }
    let cpu_us = (cpu_after - cpu).as_secs_f64() * 1e6 / requests;
    Ok(Sample {
        cpu_us,
        rate: requests / took.as_secs_f64(),
    })
}

/// Load that runs until it is stopped.
pub(crate) struct Load {
    requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<()>>,
}

impl Load {
    /// Opens the connections, where they are kept, and starts.
    pub(crate) async fn start(client: &Client, drive: &Drive) -> Result<Self> {
        let mut load = Self {
            requests: Arc::default(),
            stop: Arc::default(),
            tasks: JoinSet::new(),
        };
        let mut connections = match drive.pattern {
            Pattern::KeepAlive => {
                connections(client, drive.concurrency, drive.turn(0).next()).await?
            }
            Pattern::NewConnections => Vec::new(),
        };
        for number in 0..drive.concurrency {
            let connection = connections.pop();
            let (requests, stop) = (Arc::clone(&load.requests), Arc::clone(&load.stop));
            let turn = drive.turn(number);
            load.tasks
                .spawn(worker(client.clone(), connection, turn, requests, stop));
        }
        Ok(load)
    }

    /// Requests answered so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Lets every request under way end, and returns how many there were in all.
    pub(crate) async fn stop(&mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.requests())
    }
}

/// `count` new connections, each having carried one request.
pub(crate) async fn connections(
    client: &Client,
    count: usize,
    request: &[u8],
) -> Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = client.connect().await?;
        connection.exchange(request).await?;
        connections.push(connection);
    }
    Ok(connections)
}

async fn worker(
    client: Client,
    kept: Option<Connection>,
    mut turn: Turn,
    requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    if let Some(mut connection) = kept {
        while !stop.load(Ordering::Relaxed) {
            connection.exchange(turn.next()).await?;
            requests.fetch_add(1, Ordering::Relaxed);
        }
        return connection.close().await;
    }
    while !stop.load(Ordering::Relaxed) {
        let mut connection = client.connect().await?;
        connection.exchange(turn.next()).await?;
        requests.fetch_add(1, Ordering::Relaxed);
        connection.close().await?;
    }
    Ok(())
}

/// CPU time so far, of all its processes.
fn cpu_of(target: &impl Target) -> Result<Duration> {
    target.processes().iter().map(Process::cpu).sum()
}

fn failed(target: &impl Target, error: &dyn std::error::Error) -> String {
    let mut text = format!("a request through {} failed: {error}", target.name());
    for process in target.processes() {
        text.push('\n');
        text.push_str(&process.last_words());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_begin_apart_and_send_every_request() {
        let messages: Vec<Vec<u8>> = (0..10).map(|number| vec![number]).collect();
        let drive = Drive {
            messages: messages.into(),
            ..Drive::get(Pattern::KeepAlive, 5)
        };
        for (connection, first) in (0..5).zip([0, 2, 4, 6, 8]) {
            let mut turn = drive.turn(connection);
            let sent: Vec<u8> = (0..11)
                .filter_map(|_| turn.next().first().copied())
                .collect();
            let expected: Vec<u8> = (first..first + 11).map(|number| number % 10).collect();
            assert_eq!(sent, expected);
        }
    }
}

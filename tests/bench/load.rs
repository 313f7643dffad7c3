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
    proxies::Proxy,
};

/// Which request pattern is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Connections are made beforehand and kept; only requests are measured.
    KeepAlive,
    /// Each request makes a connection of its own: a full handshake each.
    NewConnections,
}

/// What one run against one proxy showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// CPU time of the proxy for a request (and handshake, where each makes one), µs.
    pub(crate) cpu_us: f64,
    /// Requests a second.
    pub(crate) rate: f64,
}

/// Drives `proxy` for `time` from `concurrency` connections at once. One failed request fails it.
pub(crate) async fn sample(
    proxy: &mut Proxy,
    pattern: Pattern,
    concurrency: usize,
    time: Duration,
) -> Result<Sample> {
    let mut load = Load::start(&proxy.caller, pattern, concurrency).await?;
    // The first requests fill pools and caches; they are not the steady state.
    tokio::time::sleep(time / 10).await;

    let (cpu, requests, from) = (proxy.process.cpu()?, load.requests(), Instant::now());
    tokio::time::sleep(time).await;
    let (cpu_after, requests_after, took) = (proxy.process.cpu()?, load.requests(), from.elapsed());

    proxy.requests += load
        .stop()
        .await
        .map_err(|e| failed(proxy.name, &proxy.process, &*e))?;
    let requests = (requests_after - requests) as f64;
    if requests == 0.0 {
        return Err(format!("{} answered nothing in {took:?}", proxy.name).into());
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
    pub(crate) async fn start(
        client: &Client,
        pattern: Pattern,
        concurrency: usize,
    ) -> Result<Self> {
        let mut load = Self {
            requests: Arc::default(),
            stop: Arc::default(),
            tasks: JoinSet::new(),
        };
        let mut connections = match pattern {
            Pattern::KeepAlive => connections(client, concurrency).await?,
            Pattern::NewConnections => Vec::new(),
        };
        for _ in 0..concurrency {
            let connection = connections.pop();
            let (requests, stop) = (Arc::clone(&load.requests), Arc::clone(&load.stop));
            load.tasks
                .spawn(worker(client.clone(), connection, requests, stop));
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
pub(crate) async fn connections(client: &Client, count: usize) -> Result<Vec<Connection>> {
    let request = request(backend::PATH, "");
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = client.connect().await?;
        connection.exchange(&request).await?;
        connections.push(connection);
    }
    Ok(connections)
}

async fn worker(
    client: Client,
    kept: Option<Connection>,
    requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    let request = request(backend::PATH, "");
    if let Some(mut connection) = kept {
        while !stop.load(Ordering::Relaxed) {
            connection.exchange(&request).await?;
            requests.fetch_add(1, Ordering::Relaxed);
        }
        return connection.close().await;
    }
    while !stop.load(Ordering::Relaxed) {
        let mut connection = client.connect().await?;
        connection.exchange(&request).await?;
        requests.fetch_add(1, Ordering::Relaxed);
        connection.close().await?;
    }
    Ok(())
}

fn failed(name: &str, process: &Process, error: &dyn std::error::Error) -> String {
    format!(
        "a request through {name} failed: {error}\n{}",
        process.last_words()
    )
}

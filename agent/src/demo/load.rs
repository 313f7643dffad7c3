//! Closed-loop load: each of a number of clients sends its next request when the last was answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::HeaderValue;
use warifu::Client;

/// What a load saw.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Requests answered with 2xx.
    pub(super) answered: usize,
    /// Requests that were not, and the first few reasons.
    pub(super) failed: usize,
    /// Why, for the first few.
    pub(super) reasons: Vec<String>,
    /// How long each answered request took.
    times: Vec<Duration>,
}

/// Reasons kept: enough to see a pattern, not enough to scroll the page away.
const MAX_REASONS: usize = 3;

/// A running load.
#[derive(Debug)]
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<Report>>,
}

impl Load {
    /// Each of `clients` calls `url` until [`Load::stop`].
    pub(super) fn start(clients: Vec<Client>, url: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = clients
            .into_iter()
            .map(|client| tokio::spawn(run(client, url, Arc::clone(&stop))))
            .collect();
        Self { stop, clients }
    }

    /// Lets every client finish its request, and adds up.
    pub(super) async fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Report::default();
        for client in self.clients {
            match client.await {
                Ok(report) => total.add(report),
                Err(error) => total.fail(error.to_string()),
            }
        }
        total
    }
}

/// Sends `count` requests one after the other, each with `header` where there is one.
pub(super) async fn sequential(
    client: &Client,
    url: &str,
    header: Option<(&str, &HeaderValue)>,
    count: usize,
) -> Report {
    let mut report = Report::default();
    for _ in 0..count {
        report.one(client, url, header).await;
    }
    report
}

async fn run(client: Client, url: &'static str, stop: Arc<AtomicBool>) -> Report {
    let mut report = Report::default();
    while !stop.load(Ordering::Relaxed) {
        report.one(&client, url, None).await;
    }
    report
}

impl Report {
    /// The time below which `fraction` of the answers stayed.
    pub(super) fn percentile(&self, fraction: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        // Both casts are exact: a demo's load stays far below 2^52 requests.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let index = (last as f64 * fraction).round() as usize;
        times.get(index).copied().unwrap_or_default()
    }

    async fn one(&mut self, client: &Client, url: &str, header: Option<(&str, &HeaderValue)>) {
        let request = match header {
            Some((name, value)) => client.get(url).header(name, value),
            None => client.get(url),
        };
        let start = Instant::now();
        let answer = match request.send().await {
            Ok(response) => response.error_for_status(),
            Err(error) => Err(error),
        };
        let read = match answer {
            Ok(response) => response.bytes().await,
            Err(error) => Err(error),
        };
        match read {
            Ok(_) => {
                self.answered += 1;
                self.times.push(start.elapsed());
            }
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn fail(&mut self, reason: String) {
        self.failed += 1;
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(reason);
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.times.extend(other.times);
        self.reasons.extend(other.reasons);
        self.reasons.truncate(MAX_REASONS);
    }
}

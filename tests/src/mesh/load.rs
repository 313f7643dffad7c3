//! Closed-loop load: each of a number of clients sends its next request when the last was answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use warifu::Client;

use super::wait::until;

/// What a load saw.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests answered with 2xx, their bodies read.
    pub answered: usize,
    /// Those that were not: why, and how long after the load began.
    pub failures: Vec<String>,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<Report>>,
}

/// A client of a load.
pub trait Asks: Send + 'static {
    /// Asks once, with a GET or a POST, and says why where the answer is none of success.
    fn ask(&mut self, post: bool) -> impl Future<Output = Result<(), String>> + Send;
}

impl Load {
    /// Starts `clients` clients that ask for `url` with GET and POST in turn, so that what may not be
    /// sent twice is among it; `make` builds one, so that each has connections of its own.
    pub fn start(clients: usize, url: &str, mut make: impl FnMut() -> Client) -> Self {
        let clients = (0..clients).map(|_| ThroughAgent {
            client: make(),
            url: url.to_owned(),
        });
        Self::of(clients)
    }

    /// The same with any clients.
    pub fn of(clients: impl IntoIterator<Item = impl Asks>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        let clients = clients.into_iter().map(|mut client| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut report = Report::default();
                let mut post = false;
                while !stop.load(Ordering::Relaxed) {
                    post = !post;
                    match client.ask(post).await {
                        Ok(()) => {
                            report.answered += 1;
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(why) => report
                            .failures
                            .push(format!("{:?}: {why}", began.elapsed())),
                    }
                }
                report
            })
        });
        let clients = clients.collect();
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// Waits for `count` further answers.
    pub async fn answers(&self, count: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + count;
        let reached = async || (self.answered.load(Ordering::Relaxed) >= goal).then_some(());
        until("the load is answered", reached).await;
    }

    /// Lets every client finish its request, and adds up.
    pub async fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Report::default();
        for client in self.clients {
            let report = client.await.expect("a client of the load");
            total.answered += report.answered;
            total.failures.extend(report.failures);
        }
        total
    }
}

/// As the app beside an agent calls.
struct ThroughAgent {
    client: Client,
    url: String,
}

impl Asks for ThroughAgent {
    async fn ask(&mut self, post: bool) -> Result<(), String> {
        let request = match post {
            true => self.client.post(&self.url).body("twelve euros"),
            false => self.client.get(&self.url),
        };
        let answer = request.send().await.map_err(|why| why.to_string())?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|why| why.to_string())?;
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
        }
    }
}

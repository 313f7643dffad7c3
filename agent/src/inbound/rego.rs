//! A listener's policy, made from its configuration; and Rego, asked away from the threads that carry requests.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::sync::{Semaphore, oneshot};

use super::Inbound;
use crate::{
    config::inbound::{self as config, Accept},
    http::headers::Filter,
    policy::{NoPolicy, Policy, Question, Rego, Undecided, Verdict},
};

/// Largest file of a policy: what people write has some kilobytes.
const MAX_FILE: u64 = 256 << 10;

/// Most that wait for a place: more could not have one in time, each has its input in memory.
const MAX_WAITING: usize = 1024;

/// Why a listener has no policy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A file can't be read.
    #[error("rego.files: {file}: {why}")]
    File {
        /// Which.
        file: String,
        /// What the system said.
        why: io::Error,
    },
    /// The files are no policy: what is wrong, and where.
    #[error("rego: {0}")]
    Rego(#[from] NoPolicy),
}

/// Compiles the rules of a listener, and the Rego policy it names.
///
/// # Errors
/// See [`PolicyError`].
pub fn policy_of(inbound: &config::Inbound) -> Result<Policy, PolicyError> {
    let policy = Policy::of(inbound);
    let Some(rego) = &inbound.rego else {
        return Ok(policy);
    };
    let mut sources = Vec::new();
    for path in &rego.files {
        let file = path.display().to_string();
        match read(path) {
            Ok(text) => sources.push((file, text)),
            Err(why) => return Err(PolicyError::File { file, why }),
        }
    }
    let secrets = inbound.accept.iter().filter_map(|accept| match accept {
        Accept::SecretHeader(secret) => Some(&secret.header),
        _ => None,
    });
    let hidden = Filter::to_policy(secrets);
    let rego = Rego::compile(sources, &rego.query, rego.timeout.0, hidden)?;
    Ok(policy.with_rego(rego))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        let large = format!("it is larger than {} KiB", MAX_FILE >> 10);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, large));
    }
    Ok(text)
}

/// Where policies are evaluated, of all listeners: on few threads at once, none of which carries requests.
#[derive(Debug, Clone)]
pub struct Evaluations {
    pub(super) places: Arc<Semaphore>,
    /// For those that wait for a place.
    pub(super) queue: Arc<Semaphore>,
}

impl Default for Evaluations {
    /// On half the processors: a policy without an end leaves requests the other half.
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            places: Arc::new(Semaphore::new((processors / 2).max(1))),
            queue: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }
}

/// To be told what the policy says. Dropped untold, it says nothing.
type Then = Box<dyn FnOnce(Result<bool, Undecided>) + Send>;

impl Evaluations {
    async fn ask(&self, question: &Arc<Question>) -> Result<bool, Undecided> {
        let evaluate = |left, then| Arc::clone(question).ask(left, then);
        self.within(question.timeout(), evaluate).await
    }

    pub(super) async fn within(
        &self,
        whole: Duration,
        evaluate: impl FnOnce(Duration, Then),
    ) -> Result<bool, Undecided> {
        let began = Instant::now();
        let left = || whole.saturating_sub(began.elapsed());
        // Neither is ever closed.
        let Ok(waiting) = self.queue.try_acquire() else {
            return Err(Undecided::Busy(whole));
        };
        let place = tokio::time::timeout(whole, Arc::clone(&self.places).acquire_owned());
        let Ok(Ok(place)) = place.await else {
            return Err(Undecided::Busy(whole));
        };
        drop(waiting);
        let (tell, told) = oneshot::channel();
        let then = move |said| {
            // Whoever asked may have gone.
            let _ = tell.send(said);
            // Held until it has really ended.
            drop(place);
        };
        evaluate(left(), Box::new(then));
        match tokio::time::timeout(left(), told).await {
            Ok(Ok(Err(Undecided::Late(_)))) | Err(_) => Err(Undecided::Late(whole)),
            Ok(Ok(said)) => said,
            Ok(Err(_)) => Err(Undecided::Gone),
        }
    }
}

/// What is decided of what rules left open. It takes up to the policy's own time.
pub(super) async fn settle(inbound: &Inbound, question: Question) -> Verdict {
    let question = Arc::new(question);
    let said = inbound.environment.evaluations.ask(&question).await;
    inbound.environment.metrics.rego(&said);
    question.settle(said)
}

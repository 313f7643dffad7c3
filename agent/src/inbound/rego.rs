//! A listener's policy, made from its configuration; and Rego, asked away from the threads that carry requests.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::sync::{Semaphore, oneshot};

use super::{Inbound, decide::Decided};
use crate::{
    config::inbound::{self as config, Accept},
    http::{headers::Filter, still::CHECK_EVERY},
    policy::{NoPolicy, Policy, Question, Rego, Threads, Undecided, Verdict},
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

/// How long a stream may go on without an answer: some of its questions, where others leave no time for them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where policies are evaluated, of all listeners: on few threads at once, none of which carries requests.
#[derive(Debug, Clone)]
pub struct Evaluations {
    pub(super) threads: Threads,
    pub(super) places: Arc<Semaphore>,
    /// For those that wait for a place.
    pub(super) queue: Arc<Semaphore>,
    /// For the one open stream that may be among them.
    turn: Arc<Semaphore>,
}

impl Default for Evaluations {
    /// On half the processors: a policy without an end leaves requests the other half.
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let most = (processors / 2).max(1);
        Self {
            threads: Threads::new(most),
            places: Arc::new(Semaphore::new(most)),
            queue: Arc::new(Semaphore::new(MAX_WAITING)),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

/// To be told what the policy says. Dropped untold, it says nothing.
type Then = Box<dyn FnOnce(Result<bool, Undecided>) + Send>;

impl Evaluations {
    async fn ask(&self, question: &Arc<Question>) -> Result<bool, Undecided> {
        let evaluate = |left, then| Arc::clone(question).ask(&self.threads, left, then);
        self.within(question.timeout(), evaluate).await
    }

    /// For streams. There may be thousands, and they have time: a request never waits for more than one of them.
    pub(super) async fn in_turn(
        &self,
        answer: impl Future<Output = Result<bool, Undecided>>,
    ) -> Result<bool, Undecided> {
        let answer = async {
            // Never closed.
            let _turn = self.turn.acquire().await;
            answer.await
        };
        let answer = tokio::time::timeout(CHECK_EVERY, answer).await;
        answer.unwrap_or(Err(Undecided::Busy(CHECK_EVERY)))
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

/// A stream that is allowed, and when that was last decided.
#[derive(Debug)]
pub(super) struct Lasting(Mutex<tokio::time::Instant>);

impl Lasting {
    pub(super) fn new() -> Self {
        Self(Mutex::new(tokio::time::Instant::now()))
    }

    /// What is decided of it now. `None` where others left no time to ask, which says nothing about it, unless that lasts.
    pub(super) async fn settle(&self, inbound: &Inbound, decided: Decided) -> Option<Verdict> {
        let verdict = match decided {
            Decided::Now(verdict) => verdict,
            Decided::Ask(question) => {
                let question = Arc::from(question);
                let evaluations = &inbound.environment.evaluations;
                let said = evaluations.in_turn(evaluations.ask(&question)).await;
                inbound.environment.metrics.rego(&said);
                if self.outlasts(&said) {
                    return None;
                }
                question.settle(said)
            }
        };
        *self.lock() = tokio::time::Instant::now();
        Some(verdict)
    }

    fn outlasts(&self, said: &Result<bool, Undecided>) -> bool {
        matches!(said, Err(Undecided::Busy(_))) && self.lock().elapsed() < PATIENCE
    }

    fn lock(&self) -> MutexGuard<'_, tokio::time::Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn s16_a_stream_outlasts_that_nobody_had_time_for_it_but_not_for_long_and_nothing_else() {
        let busy = Err(Undecided::Busy(CHECK_EVERY));
        let stream = Lasting::new();
        tokio::time::advance(PATIENCE - Duration::from_secs(1)).await;
        assert!(stream.outlasts(&busy));
        for said in [
            Ok(false),
            Err(Undecided::Late(CHECK_EVERY)),
            Err(Undecided::Failed("no".to_owned())),
            Err(Undecided::Gone),
            Err(Undecided::TooLarge(1 << 20)),
        ] {
            assert!(!stream.outlasts(&said), "{said:?}");
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!stream.outlasts(&busy));
    }
}

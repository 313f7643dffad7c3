//! Secrets by name: files, and AWS Secrets Manager. Kept while they are good, read again ahead of time and when what
//! used one was refused, and never shown.
//!
//! Whoever uses a secret asks for its [`Source::value`], says with [`Source::works`] which value was taken, and where one
//! was refused asks for one [`Source::other_than`] it: rotation has two values live for a while, and which of them a
//! service takes already, or still, only the service knows. Whoever is shown a secret by others asks for all that are
//! [`Source::live`].

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use thiserror::Error;
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use warifu::Secret;

use crate::config::value::{ManagedSecret, SecretRef};
use state::{Read, State, Step};

mod member;
mod state;

/// A file is read again after this long: reading it costs nothing, and who writes it anew wants it used.
const FILE_REFRESH: Duration = Duration::from_secs(5);

/// Time one reading may take, of three stages where need be. Secrets Manager answers in tens of milliseconds; requests
/// wait for the first one.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Which version of a secret (Secrets Manager's staging labels, and what stands for them elsewhere).
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/whats-in-a-secret.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// `AWSCURRENT`; a file's content.
    Current,
    /// `AWSPENDING`: the next one, while a rotation is under way.
    Pending,
    /// `AWSPREVIOUS`; what a file had before.
    Previous,
}

impl Stage {
    /// The staging label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Current => "AWSCURRENT",
            Self::Pending => "AWSPENDING",
            Self::Previous => "AWSPREVIOUS",
        }
    }
}

/// A reading under way: the text of a secret's version, or nothing where it has no such version.
pub type Reading = Pin<Box<dyn Future<Output = Result<Option<Secret<String>>, VaultError>> + Send>>;

/// What reads Secrets Manager, or a test.
pub trait Vault: fmt::Debug + Send + Sync + 'static {
    /// The text of a secret's version; `None` where it has no version of this stage.
    fn read(&self, secret: ManagedSecret, stage: Stage) -> Reading;
}

/// Why a secret was not read.
#[derive(Debug, Clone, Error)]
#[error("{why}")]
pub struct VaultError {
    /// What was being done, on what, why it failed, what next. Never what the secret is.
    pub why: String,
    /// Whether asking again soon is pointless.
    pub refused: bool,
}

/// A secret can't be had.
#[derive(Debug, Clone, Error)]
#[error("the secret {name} can't be had: {why}")]
pub struct SecretError {
    name: String,
    why: String,
    refused: bool,
}

/// One value of a secret. Cheap to clone; doesn't show what it is.
#[derive(Debug, Clone)]
pub struct Value(Arc<Held>);

#[derive(Debug)]
struct Held {
    text: Secret<String>,
    stage: Stage,
}

/// The secrets that the configuration names. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Secrets(Arc<Shared>);

/// One secret and its versions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source(Arc<Slot>);

/// Secrets are kept at hand while this is.
#[derive(Debug)]
pub struct KeptFresh(JoinHandle<()>);

impl Drop for KeptFresh {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the status page says of one secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretStatus {
    /// As the configuration names it.
    pub name: String,
    /// The stage of the value in use.
    pub stage: Option<Stage>,
    /// When it was last read.
    pub read: Option<SystemTime>,
    /// Readings that failed since the last that didn't.
    pub failures: u32,
    /// Why the last one failed.
    pub last_error: Option<String>,
}

#[derive(Debug)]
struct Shared {
    vault: Option<Arc<dyn Vault>>,
    refresh: Duration,
    slots: Mutex<BTreeMap<String, Weak<Slot>>>,
    /// Told of each new one.
    named: Notify,
    metrics: Metrics,
}

#[derive(Debug, Clone, Default)]
struct Metrics {
    reads: Counter,
    failed: Counter,
    switched: Counter,
}

#[derive(Debug)]
struct Slot {
    name: String,
    secret: SecretRef,
    vault: Option<Arc<dyn Vault>>,
    /// Whether others show it to us, so that every stage is read each time.
    verifies: AtomicBool,
    /// Whether it is kept at hand.
    kept: AtomicBool,
    state: Mutex<State>,
    /// Told after every reading, whatever came of it.
    settled: Notify,
    metrics: Metrics,
}

impl Secrets {
    /// None yet. `vault` reads those of Secrets Manager, which are read again after `refresh`.
    pub fn new(vault: Option<Arc<dyn Vault>>, refresh: Duration) -> Self {
        Self(Arc::new(Shared {
            vault,
            refresh,
            slots: Mutex::default(),
            named: Notify::new(),
            metrics: Metrics::default(),
        }))
    }

    /// The same secret for everyone who names it, for as long as anyone has it.
    pub fn source(&self, secret: &SecretRef) -> Source {
        let name = secret.to_string();
        let refresh = match secret {
            SecretRef::File(_) => FILE_REFRESH,
            SecretRef::Managed(_) => self.0.refresh,
        };
        let mut slots = lock(&self.0.slots);
        slots.retain(|_, slot| slot.strong_count() > 0);
        if let Some(slot) = slots.get(&name).and_then(Weak::upgrade) {
            return Source(slot);
        }
        let slot = Arc::new(Slot {
            name: name.clone(),
            secret: secret.clone(),
            vault: self.0.vault.clone(),
            verifies: AtomicBool::new(false),
            kept: AtomicBool::new(false),
            state: Mutex::new(State::new(refresh, jitter())),
            settled: Notify::new(),
            metrics: self.0.metrics.clone(),
        });
        slots.insert(name, Arc::downgrade(&slot));
        self.0.named.notify_one();
        Source(slot)
    }

    /// As [`source`](Self::source), for a secret that others show to us.
    pub fn verifying(&self, secret: &SecretRef) -> Source {
        let source = self.source(secret);
        source.0.verifies.store(true, Ordering::Relaxed);
        source
    }

    /// Keeps every secret at hand that is in use, once `ready`: what calls need is there when Secrets Manager is not.
    /// Ends when what is returned is dropped.
    #[must_use]
    pub fn keep_fresh(&self, ready: impl Future<Output = ()> + Send + 'static) -> KeptFresh {
        let secrets = self.clone();
        KeptFresh(tokio::spawn(async move {
            ready.await;
            let mut all = JoinSet::new();
            loop {
                for Source(slot) in secrets.in_use() {
                    if !slot.kept.swap(true, Ordering::Relaxed) {
                        all.spawn(keep_fresh(Arc::downgrade(&slot)));
                    }
                }
                tokio::select! {
                    () = secrets.0.named.notified() => {}
                    Some(_) = all.join_next() => {}
                }
            }
        }))
    }

    fn in_use(&self) -> Vec<Source> {
        let slots = lock(&self.0.slots);
        let slots = slots.values().filter_map(Weak::upgrade);
        slots.map(Source).collect()
    }

    /// For the status page.
    pub fn status(&self) -> Vec<SecretStatus> {
        self.in_use().iter().map(Source::status).collect()
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        let metrics = &self.0.metrics;
        let registry = registry.sub_registry_with_prefix("secret");
        registry.register("reads", "Secrets read", metrics.reads.clone());
        registry.register(
            "reads_failed",
            "Readings of a secret that failed",
            metrics.failed.clone(),
        );
        registry.register(
            "switched",
            "Times another value of a secret was taken where the one in use was refused",
            metrics.switched.clone(),
        );
    }
}

impl Source {
    /// As the configuration names it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The value that worked last, or the current one; waits only where there is none (S13: a failing refresh drops
    /// nothing).
    ///
    /// # Errors
    /// When there is none and none could be had just now. The error is remembered for a moment, so that requests don't
    /// drive readings.
    pub async fn value(&self) -> Result<Value, SecretError> {
        loop {
            let settled = self.0.settled.notified();
            let step = lock(&self.0.state).step(Instant::now());
            match step {
                Step::Use(value) => return Ok(value),
                Step::UseAndRead(value) => {
                    self.read(false);
                    return Ok(value);
                }
                Step::Fail(error) => return Err(error),
                Step::Read => self.read(false),
                Step::Wait => {}
            }
            settled.await;
        }
    }

    /// The values that whoever shows the secret may show, one or two: the current one, and the next while it is being
    /// rotated, else the one before. Of a file, its first two lines: what is no longer there is not live.
    ///
    /// # Errors
    /// As for [`value`](Self::value).
    pub async fn live(&self) -> Result<Vec<Value>, SecretError> {
        self.value().await?;
        let state = lock(&self.0.state);
        Ok(match self.0.secret {
            SecretRef::File(_) => state.lines(),
            SecretRef::Managed(_) => state.live(),
        })
    }

    /// A value that is none of `refused`, which whom it was for did not take. Every stage is read for it, but not again
    /// and again: refusals must not become a flood of readings. `None` where there is no other.
    pub async fn other_than(&self, refused: &[Value]) -> Option<Value> {
        let settled = self.0.settled.notified();
        let started = {
            let mut state = lock(&self.0.state);
            let now = Instant::now();
            if let Some(changed) = state.changed_since(refused) {
                return Some(changed);
            }
            if state.is_hopeless(now) {
                return None;
            }
            state.start_forced(now)
        };
        match started {
            Some(true) => self.read(true),
            Some(false) => {}
            None => return lock(&self.0.state).other_than(refused),
        }
        settled.await;
        lock(&self.0.state).other_than(refused)
    }

    /// `value` was taken: it is the one to use from now on, until it is refused or there is a new current one.
    pub fn works(&self, value: &Value) {
        if lock(&self.0.state).works(value) {
            self.0.metrics.switched.inc();
            let (secret, stage) = (&self.0.name, value.0.stage.label());
            tracing::info!(secret, stage, "another value of this secret is in use");
        }
    }

    /// No value was taken: whoever refuses does it for another reason, and is not asked twice for everything.
    pub fn none_works(&self) {
        lock(&self.0.state).hopeless(Instant::now());
    }

    fn status(&self) -> SecretStatus {
        lock(&self.0.state).status(&self.0.name)
    }

    /// Reads in a task of its own; the state knows that it is under way. A caller that goes away cancels nothing.
    fn read(&self, every_stage: bool) {
        let every_stage = every_stage || self.0.verifies.load(Ordering::Relaxed);
        let settle = Settle {
            slot: Arc::clone(&self.0),
            outcome: None,
        };
        tokio::spawn(settle.read(every_stage));
    }
}

/// Until nobody has it any more.
async fn keep_fresh(slot: Weak<Slot>) {
    loop {
        let now = Instant::now();
        let due = slot.upgrade().map(|slot| lock(&slot.state).due(now));
        let Some(due) = due else { return };
        if due > now {
            tokio::time::sleep_until(due).await;
        }
        let Some(slot) = slot.upgrade() else { return };
        let _ = Source(slot).value().await;
        // Whoever asked was answered at once, or with an error that is still fresh.
        tokio::time::sleep(state::RETRY_FIRST).await;
    }
}

/// A reading under way. Dropped without an outcome it counts as failed, so that nobody waits for ever.
struct Settle {
    slot: Arc<Slot>,
    outcome: Option<Result<Read, VaultError>>,
}

impl Settle {
    async fn read(mut self, every_stage: bool) {
        let reading = self.slot.read(every_stage);
        self.outcome = tokio::time::timeout(READ_TIMEOUT, reading).await.ok();
    }
}

impl Drop for Settle {
    fn drop(&mut self) {
        let slot = &self.slot;
        let outcome = self.outcome.take().unwrap_or_else(|| {
            Err(VaultError {
                why: format!("reading it was given up (after {READ_TIMEOUT:?} at most)"),
                refused: false,
            })
        });
        let outcome = outcome.map_err(|error| SecretError {
            name: slot.name.clone(),
            why: error.why,
            refused: error.refused,
        });
        match &outcome {
            Ok(_) => slot.metrics.reads.inc(),
            Err(_) => slot.metrics.failed.inc(),
        };
        let mut state = lock(&slot.state);
        if let Err(error) = &outcome
            && state.trouble().is_none_or(|known| known != error.why)
        {
            tracing::warn!(%error, "the value at hand, if there is one, stays in use");
        }
        state.settle(outcome, Instant::now(), SystemTime::now(), jitter());
        drop(state);
        slot.settled.notify_waiters();
    }
}

impl Slot {
    async fn read(&self, every_stage: bool) -> Result<Read, VaultError> {
        match &self.secret {
            SecretRef::File(file) => {
                let file = file.clone();
                let read = tokio::task::spawn_blocking(move || file.read()).await;
                let read = read.map_err(|why| unavailable(why.to_string()))?;
                let text = read.map_err(|why| unavailable(why.to_string()))?;
                Ok(Read::of_current(text))
            }
            SecretRef::Managed(secret) => {
                let vault = self
                    .vault
                    .as_ref()
                    .ok_or_else(|| unavailable("nothing here reads AWS Secrets Manager".into()))?;
                let mut stages = Vec::from([Stage::Current]);
                if every_stage {
                    stages.extend([Stage::Pending, Stage::Previous]);
                }
                let mut read = Read::default();
                for stage in stages {
                    let text = vault.read(secret.clone(), stage).await?;
                    let text = match (text, &secret.member) {
                        (Some(text), Some(member)) => Some(member::of(&text, member)?),
                        (text, _) => text,
                    };
                    read.put(stage, text);
                }
                if !read.has_current() {
                    return Err(VaultError {
                        why: "it has no version that is AWSCURRENT; put a value into it".into(),
                        refused: true,
                    });
                }
                Ok(read)
            }
        }
    }
}

fn unavailable(why: String) -> VaultError {
    VaultError {
        why,
        refused: false,
    }
}

impl Value {
    fn new(text: Secret<String>, stage: Stage) -> Self {
        Self(Arc::new(Held { text, stage }))
    }

    /// The secret itself. Never log, format or store what this returns.
    pub fn expose(&self) -> &str {
        self.0.text.expose()
    }

    /// Of which stage it was read.
    pub fn stage(&self) -> Stage {
        self.0.stage
    }

    fn is(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl SecretError {
    /// Whether asking again soon is pointless.
    pub fn is_refusal(&self) -> bool {
        self.refused
    }
}

/// Locks. Nothing panics while it holds one of these, and if something did, the data would be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A random share of one, so that agents that started together don't read together.
fn jitter() -> f64 {
    let mut byte = [0];
    // Without randomness: no jitter.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    f64::from(byte[0]) / 256.0
}

#[cfg(test)]
mod tests;

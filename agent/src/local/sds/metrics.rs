//! What is measured, and logged, of what Envoy makes of its secrets.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use crate::local::{asker::Asker, bucket::Bucket, calls::Calls};

/// Most of a client's words that are logged, in characters.
const MAX_COMPLAINT: usize = 500;

/// Most secrets that a line of the log names.
const MAX_NAMED: usize = 8;

/// Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub(in crate::local) struct Metrics {
    pub(super) calls: Calls,
    pushes: Counter,
    rejections: Counter,
    /// Lines of the log that rejections may write: a client that opens stream after stream would fill it.
    lines: Arc<Mutex<Bucket>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Calls::default(),
            pushes: Counter::default(),
            rejections: Counter::default(),
            lines: Arc::new(Mutex::new(Bucket::new(Instant::now()))),
        }
    }
}

impl Metrics {
    /// Registers the metrics.
    pub(in crate::local) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("sds");
        let metrics = Self {
            calls: Calls::new(registry),
            ..Self::default()
        };
        registry.register(
            "pushes",
            "Responses on streams, the first of each among them",
            metrics.pushes.clone(),
        );
        registry.register(
            "rejections",
            "Responses that a client rejected (NACK)",
            metrics.rejections.clone(),
        );
        metrics
    }

    pub(super) fn pushed(&self) {
        self.pushes.inc();
    }

    /// Counts a rejection of `secrets`, and logs why, unless there are too many.
    pub(super) fn rejected<'a>(
        &self,
        asker: &Asker,
        secrets: impl Iterator<Item = &'a String>,
        complaint: &str,
    ) {
        self.rejections.inc();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if !lines.take(Instant::now()) {
            return;
        }
        let complaint: String = complaint.chars().take(MAX_COMPLAINT).collect();
        let secrets: Vec<&String> = secrets.take(MAX_NAMED).collect();
        tracing::warn!(
            asker = %asker.remote(),
            ?secrets,
            complaint,
            "Envoy rejected its secrets and keeps the last ones; it is sent the next when they change"
        );
    }
}

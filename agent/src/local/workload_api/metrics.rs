//! What is measured of the Workload API.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tonic::Code;

/// Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    streams: Gauge,
    waiting: Gauge,
    answers: Family<Answer, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    method: &'static str,
    code: &'static str,
}

/// Counted as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("workload_api");
        registry.register("streams", "Open streams", metrics.streams.clone());
        registry.register(
            "waiting",
            "Calls that wait for the first identity",
            metrics.waiting.clone(),
        );
        registry.register(
            "answers",
            "Calls, by how they were answered",
            metrics.answers.clone(),
        );
        metrics
    }

    /// Streams that are open now.
    pub fn streams(&self) -> i64 {
        self.streams.get()
    }

    /// Calls that wait for the first identity now.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> i64 {
        self.waiting.get()
    }

    pub(super) fn waits(&self) -> Counted {
        self.waiting.inc();
        Counted(self.waiting.clone())
    }

    pub(super) fn opened(&self) -> Counted {
        self.streams.inc();
        Counted(self.streams.clone())
    }

    pub(super) fn answered(&self, method: &'static str, code: Code) {
        let code = match code {
            Code::Ok => "ok",
            Code::InvalidArgument => "invalid_argument",
            Code::PermissionDenied => "permission_denied",
            Code::Unavailable => "unavailable",
            Code::Unimplemented => "unimplemented",
            _ => "other",
        };
        self.answers.get_or_create(&Answer { method, code }).inc();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

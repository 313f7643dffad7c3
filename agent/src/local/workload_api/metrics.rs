//! What is measured of the Workload API.

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use crate::local::calls::{Calls, Counted};

/// Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) calls: Calls,
    waiting: Gauge,
}

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("workload_api");
        let metrics = Self {
            calls: Calls::new(registry),
            waiting: Gauge::default(),
        };
        registry.register(
            "waiting",
            "Calls that wait for the first identity",
            metrics.waiting.clone(),
        );
        metrics
    }

    /// Streams that are open now.
    pub fn streams(&self) -> i64 {
        self.calls.streams()
    }

    /// Calls that wait for the first identity now.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> i64 {
        self.waiting.get()
    }

    pub(super) fn waits(&self) -> Counted {
        Counted::new(&self.waiting)
    }
}

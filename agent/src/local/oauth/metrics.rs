//! What the endpoint counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub(in crate::local) struct Metrics {
    requests: Family<Outcome, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    /// `given`, `metadata`, `keys`, or why not.
    outcome: &'static str,
}

impl Metrics {
    /// Registers the metrics.
    pub(in crate::local) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        let registry = registry.sub_registry_with_prefix("local_oauth");
        registry.register(
            "requests",
            "Requests of OAuth clients, by outcome",
            new.requests.clone(),
        );
        new
    }

    pub(super) fn count(&self, outcome: &'static str) {
        self.requests.get_or_create(&Outcome { outcome }).inc();
    }
}

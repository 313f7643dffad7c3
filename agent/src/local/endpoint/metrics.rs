//! What the endpoints count.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Name and value of each. Values come from the configuration and from constants, so there are only so many.
type Labels = Vec<(&'static str, String)>;

/// Requests at all endpoints of one kind. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub(in crate::local) struct Metrics(Family<Labels, Counter>);

/// Requests at one endpoint.
#[derive(Debug)]
pub(in crate::local) struct Counts {
    requests: Family<Labels, Counter>,
    labels: Labels,
}

impl Metrics {
    /// Registers `PREFIX_requests`.
    pub(in crate::local) fn new(registry: &mut Registry, prefix: &str, help: &str) -> Self {
        let new = Self::default();
        let registry = registry.sub_registry_with_prefix(prefix);
        registry.register("requests", help, new.0.clone());
        new
    }

    /// Those with `labels`, beside the outcome.
    pub(in crate::local) fn counts(&self, labels: Labels) -> Counts {
        Counts {
            requests: self.0.clone(),
            labels,
        }
    }
}

impl Counts {
    /// Shows these outcomes from the start: an alert on a rate wants to see the first of them.
    pub(super) fn expect(&self, outcomes: impl IntoIterator<Item = &'static str>) {
        for outcome in outcomes {
            self.of(outcome);
        }
    }

    pub(super) fn count(&self, outcome: &'static str) {
        self.of(outcome).inc();
    }

    fn of(&self, outcome: &'static str) -> Counter {
        let mut labels = self.labels.clone();
        labels.push(("outcome", outcome.to_owned()));
        self.requests.get_or_create_owned(&labels)
    }
}

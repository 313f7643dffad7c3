//! What the endpoints count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::answer::Why;

/// Of all endpoints.
#[derive(Debug, Clone, Default)]
pub(in crate::local) struct Metrics {
    requests: Family<Outcome, Counter>,
}

/// Of the endpoints of one role.
#[derive(Debug)]
pub(super) struct Counters {
    given: Counter,
    refused: Vec<(Why, Counter)>,
}

/// Roles come from the configuration, so there are only so many.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    role: String,
    /// `given`, or why not.
    outcome: &'static str,
}

impl Metrics {
    /// Registers the metrics.
    pub(in crate::local) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        let registry = registry.sub_registry_with_prefix("local_aws_credentials");
        registry.register(
            "requests",
            "Requests for AWS credentials, by role and outcome",
            new.requests.clone(),
        );
        new
    }

    pub(super) fn counters(&self, role: &str) -> Counters {
        let counter = |outcome| {
            let role = role.to_owned();
            self.requests
                .get_or_create_owned(&Outcome { role, outcome })
        };
        Counters {
            given: counter("given"),
            refused: Why::ALL.map(|why| (why, counter(why.word()))).to_vec(),
        }
    }
}

impl Counters {
    pub(super) fn given(&self) {
        self.given.inc();
    }

    pub(super) fn refused(&self, why: Why) {
        let counter = self.refused.iter().find(|(known, _)| *known == why);
        if let Some((_, counter)) = counter {
            counter.inc();
        }
    }
}

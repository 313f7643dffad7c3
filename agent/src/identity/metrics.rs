//! What is measured about the identity.

use std::time::{Duration, SystemTime};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::revocation::List;

/// Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    issuance: Family<Outcome, Counter>,
    not_after: Gauge,
    attested_until: Gauge,
    generation: Gauge,
    revocations: Gauge,
    revocations_number: Gauge,
    revocations_as_of: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    /// `issued`, `refused` (somebody decided), `failed`; beside `issued`, `bridged` where the record renewed for want
    /// of evidence.
    outcome: &'static str,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "identity_issuance",
            "Attempts to obtain or renew the X.509-SVID, by outcome",
            metrics.issuance.clone(),
        );
        registry.register(
            "identity_not_after_seconds",
            "When the current X.509-SVID expires, Unix time; 0 without one",
            metrics.not_after.clone(),
        );
        registry.register(
            "identity_attested_until_seconds",
            "When the attestation record expires, Unix time; 0 without one",
            metrics.attested_until.clone(),
        );
        registry.register(
            "identity_generation",
            "Snapshots of the identity published so far",
            metrics.generation.clone(),
        );
        registry.register(
            "revocations",
            "Entries of the revocation list this agent goes by",
            metrics.revocations.clone(),
        );
        registry.register(
            "revocations_number",
            "Number of that list; counts up with every change",
            metrics.revocations_number.clone(),
        );
        registry.register(
            "revocations_as_of_seconds",
            "When the authority last said that this is the list, Unix time; 0 before it ever did",
            metrics.revocations_as_of.clone(),
        );
        metrics
    }

    pub(super) fn revocations(&self, list: &List, as_of: Option<SystemTime>) {
        let since = as_of.and_then(|as_of| as_of.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.revocations
            .set(i64::try_from(list.len()).unwrap_or(i64::MAX));
        self.revocations_number
            .set(i64::try_from(list.number()).unwrap_or(i64::MAX));
        self.revocations_as_of.set(whole(since.unwrap_or_default()));
    }

    pub(super) fn attempted(&self, outcome: &'static str) {
        self.issuance.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn published(&self, generation: u64, not_after: SystemTime) {
        let since = not_after.duration_since(SystemTime::UNIX_EPOCH);
        self.not_after.set(whole(since.unwrap_or_default()));
        self.generation
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    pub(super) fn attested(&self, until: SystemTime) {
        let since = until.duration_since(SystemTime::UNIX_EPOCH);
        self.attested_until.set(whole(since.unwrap_or_default()));
    }

    pub(super) fn withdrawn(&self) {
        self.not_after.set(0);
    }
}

fn whole(seconds: Duration) -> i64 {
    i64::try_from(seconds.as_secs()).unwrap_or(i64::MAX)
}

//! What is measured about files. A configuration has few sets: their directories and certificates are labels.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Place;

#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    failures: Family<Failed, Counter>,
    written: Family<Label, Gauge>,
    not_after: Family<Label, Gauge>,
}

/// Of one set.
#[derive(Debug)]
pub(super) struct Set {
    metrics: Metrics,
    label: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    /// The path of the certificate.
    certificate: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    certificate: String,
    /// `write`, or `after`: the signal or the command.
    step: &'static str,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "local_files_failures",
            "Attempts to write certificate, key and bundle, or to tell of it, that failed",
            metrics.failures.clone(),
        );
        registry.register(
            "local_files_written_seconds",
            "When this agent last wrote them, Unix time; 0 before",
            metrics.written.clone(),
        );
        registry.register(
            "local_files_not_after_seconds",
            "When the certificate that this agent last wrote expires, Unix time; 0 before",
            metrics.not_after.clone(),
        );
        metrics
    }

    pub(super) fn set(&self, place: &Place) -> Set {
        let path = place.directory.join(&place.names.certificate);
        let label = Label {
            certificate: path.display().to_string(),
        };
        // There before anything happens, so that an alert has something to look at.
        let _ = self.written.get_or_create(&label);
        let _ = self.not_after.get_or_create(&label);
        for step in ["write", "after", "not-held"] {
            let certificate = label.certificate.clone();
            let _ = self.failures.get_or_create(&Failed { certificate, step });
        }
        Set {
            metrics: self.clone(),
            label,
        }
    }
}

impl Set {
    pub(super) fn written(&self, now: SystemTime, not_after: SystemTime) {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        };
        let Metrics {
            written,
            not_after: expiry,
            ..
        } = &self.metrics;
        written.get_or_create(&self.label).set(seconds(now));
        expiry.get_or_create(&self.label).set(seconds(not_after));
    }

    pub(super) fn failed(&self, step: &'static str) {
        let certificate = self.label.certificate.clone();
        let failures = &self.metrics.failures;
        failures.get_or_create(&Failed { certificate, step }).inc();
    }
}

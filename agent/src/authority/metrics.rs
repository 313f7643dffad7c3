//! What is measured of issuing.

use std::time::SystemTime;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::live::Live;
use crate::revocation::List;

/// Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    decisions: Family<Decision, Counter>,
    turned_away: Counter,
    attestors_turned_away: Family<AtAttestor, Counter>,
    maintenance_failures: Counter,
    intermediate_not_after: Gauge,
    sequence: Gauge,
    revocations: Gauge,
    revocations_number: Gauge,
    web_certificate_not_after: Gauge,
    aws_calls: Family<AwsCall, Counter>,
    federated_fetched: Family<OfTrustDomain, Gauge>,
    federation_failures: Family<OfTrustDomain, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AwsCall {
    /// As IAM names it, `kms:Sign`.
    action: &'static str,
    /// `answered`, `failed`.
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decision {
    /// `attest`, `renew`, `jwt-svid`, `access-token`, `exchange`.
    operation: &'static str,
    /// `issued`, or the error code.
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AtAttestor {
    /// Its name in the configuration.
    attestor: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTrustDomain {
    trust_domain: String,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "authority_decisions",
            "Requests for an X.509-SVID or a token, by operation and outcome",
            metrics.decisions.clone(),
        );
        registry.register(
            "authority_turned_away",
            "Requests answered 503 because too many were under way",
            metrics.turned_away.clone(),
        );
        registry.register(
            "authority_attestor_turned_away",
            "Evidence answered 503 because too much of it was waiting for an issuer's keys, a cluster or STS, by attestor",
            metrics.attestors_turned_away.clone(),
        );
        registry.register(
            "authority_maintenance_failures",
            "Rounds of maintenance that failed: nothing rotates while they do",
            metrics.maintenance_failures.clone(),
        );
        registry.register(
            "authority_intermediate_not_after_seconds",
            "When this replica's intermediate expires, Unix time",
            metrics.intermediate_not_after.clone(),
        );
        registry.register(
            "authority_bundle_sequence",
            "spiffe_sequence of the published trust bundle",
            metrics.sequence.clone(),
        );
        registry.register(
            "authority_revocations",
            "Entries of the revocation list",
            metrics.revocations.clone(),
        );
        registry.register(
            "authority_revocations_number",
            "Number of the revocation list; counts up with every change",
            metrics.revocations_number.clone(),
        );
        registry.register(
            "authority_web_certificate_not_after_seconds",
            "When the certificate of the web listener expires, Unix time; 0 without one",
            metrics.web_certificate_not_after.clone(),
        );
        registry.register(
            "authority_aws_calls",
            "Calls of AWS for the CA's keys, by action and outcome",
            metrics.aws_calls.clone(),
        );
        registry.register(
            "authority_federated_bundle_fetched_seconds",
            "When the bundle of another trust domain was last fetched, Unix time",
            metrics.federated_fetched.clone(),
        );
        registry.register(
            "authority_federation_failures",
            "Attempts to fetch the bundle of another trust domain that failed",
            metrics.federation_failures.clone(),
        );
        metrics
    }

    pub(super) fn revoked(&self, list: &List) {
        self.revocations
            .set(i64::try_from(list.len()).unwrap_or(i64::MAX));
        self.revocations_number
            .set(i64::try_from(list.number()).unwrap_or(i64::MAX));
    }

    pub(super) fn aws_call(&self, action: &'static str, answered: bool) {
        let outcome = if answered { "answered" } else { "failed" };
        let call = AwsCall { action, outcome };
        self.aws_calls.get_or_create(&call).inc();
    }

    pub(super) fn decided(&self, operation: &'static str, outcome: &str) {
        let decision = Decision {
            operation,
            outcome: outcome.to_owned(),
        };
        self.decisions.get_or_create(&decision).inc();
    }

    pub(super) fn turned_away(&self) {
        self.turned_away.inc();
    }

    pub(super) fn attestor_turned_away(&self, attestor: &str) {
        let attestor = AtAttestor {
            attestor: attestor.to_owned(),
        };
        self.attestors_turned_away.get_or_create(&attestor).inc();
    }

    pub(super) fn maintenance_failed(&self) {
        self.maintenance_failures.inc();
    }

    pub(super) fn live(&self, live: &Live) {
        self.intermediate_not_after
            .set(unix(live.signer.not_after()));
        self.sequence
            .set(i64::try_from(live.bundle.sequence).unwrap_or(i64::MAX));
    }

    pub(super) fn federated(&self, trust_domain: &str, at: SystemTime) {
        self.federated_fetched
            .get_or_create(&OfTrustDomain::new(trust_domain))
            .set(unix(at));
    }

    pub(super) fn federation_failed(&self, trust_domain: &str) {
        self.federation_failures
            .get_or_create(&OfTrustDomain::new(trust_domain))
            .inc();
    }

    pub(super) fn web_certificate(&self, not_after: SystemTime) {
        self.web_certificate_not_after.set(unix(not_after));
    }
}

impl OfTrustDomain {
    fn new(trust_domain: &str) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
        }
    }
}

fn unix(time: SystemTime) -> i64 {
    i64::try_from(super::record::unix(time)).unwrap_or(i64::MAX)
}

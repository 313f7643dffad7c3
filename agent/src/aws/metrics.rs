//! What is measured about credentials.

use std::time::SystemTime;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::error::CredentialsError;

/// Of all credentials. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    expires: Family<Label, Gauge>,
    renewals: Family<Outcome, Counter>,
    failovers: Counter,
}

/// Of the base credentials, or of one role session.
#[derive(Debug)]
pub(super) struct Meter {
    expires: Gauge,
    renewed: Counter,
    refused: Counter,
    failed: Counter,
}

/// Sessions of a role that have one name and differ otherwise share a line: the last to renew is seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    /// A role ARN, or `the base credentials`.
    credentials: String,
    /// The role session's name; empty for the base credentials.
    session: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    credentials: String,
    session: String,
    /// `renewed`, `refused` (AWS decided), `failed`.
    outcome: &'static str,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("aws_credentials");
        registry.register(
            "expires_seconds",
            "When credentials expire, Unix time; 0 without any, and for those that don't expire",
            self.expires.clone(),
        );
        registry.register(
            "renewals",
            "Attempts to obtain or renew credentials, by outcome",
            self.renewals.clone(),
        );
        registry.register(
            "sts_failovers",
            "Times that another region's STS was asked because one failed or did not answer",
            self.failovers.clone(),
        );
    }

    /// How often another region's STS is asked.
    pub(super) fn failovers(&self) -> Counter {
        self.failovers.clone()
    }

    /// Names come from the configuration, so there are only so many.
    pub(super) fn meter(&self, credentials: &str, session: Option<&str>) -> Meter {
        let credentials = credentials.to_owned();
        let session = session.unwrap_or_default().to_owned();
        let counter = |outcome| {
            self.renewals.get_or_create_owned(&Outcome {
                credentials: credentials.clone(),
                session: session.clone(),
                outcome,
            })
        };
        Meter {
            renewed: counter("renewed"),
            refused: counter("refused"),
            failed: counter("failed"),
            expires: self.expires.get_or_create_owned(&Label {
                credentials: credentials.clone(),
                session: session.clone(),
            }),
        }
    }
}

impl Meter {
    pub(super) fn renewed(&self, expires: Option<SystemTime>) {
        self.renewed.inc();
        let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok();
        let seconds = expires.and_then(since).map_or(0, |since| since.as_secs());
        self.expires.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    pub(super) fn failed(&self, why: &CredentialsError) {
        match why.is_refusal() {
            true => self.refused.inc(),
            false => self.failed.inc(),
        };
    }
}

//! What a server counts, by listener.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Failed;

/// The metrics of all servers.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    open: Family<Listener, Gauge>,
    accepted: Family<Listener, Counter>,
    accept_failed: Family<Listener, Counter>,
    turned_away: Family<Listener, Counter>,
    failed: Family<FailedLabels, Counter>,
}

/// The metrics of one listener.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    name: &'static str,
    open: Gauge,
    accepted: Counter,
    accept_failed: Counter,
    turned_away: Counter,
    failed: Family<FailedLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Listener {
    listener: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailedLabels {
    listener: &'static str,
    reason: &'static str,
}

/// An open connection, counted as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        let registry = registry.sub_registry_with_prefix("server");
        registry.register("connections", "Open connections", new.open.clone());
        registry.register("accepted", "Accepted connections", new.accepted.clone());
        registry.register(
            "accept_failed",
            "Failures to accept, for want of file descriptors or memory",
            new.accept_failed.clone(),
        );
        registry.register(
            "turned_away",
            "Connections beyond the limit, answered 503",
            new.turned_away.clone(),
        );
        registry.register(
            "connections_failed",
            "Connections that ended before they were up",
            new.failed.clone(),
        );
        new
    }

    /// Those of the listener `name`.
    pub fn listener(&self, name: &'static str) -> ListenerMetrics {
        let label = Listener { listener: name };
        ListenerMetrics {
            name,
            open: self.open.get_or_create_owned(&label),
            accepted: self.accepted.get_or_create_owned(&label),
            accept_failed: self.accept_failed.get_or_create_owned(&label),
            turned_away: self.turned_away.get_or_create_owned(&label),
            failed: self.failed.clone(),
        }
    }
}

impl ListenerMetrics {
    pub(super) fn accepted(&self, crowded: bool) -> Counted {
        self.accepted.inc();
        if crowded {
            self.turned_away.inc();
        }
        self.open.inc();
        Counted(self.open.clone())
    }

    pub(super) fn accept_failed(&self) {
        self.accept_failed.inc();
    }

    pub(super) fn failed(&self, why: &Failed) {
        let reason = match why {
            Failed::Unavailable(_) => "unavailable",
            Failed::TimedOut(_) => "timed_out",
            Failed::Handshake(_) => "handshake",
            Failed::Refused(_) => "refused",
        };
        self.failed
            .get_or_create(&FailedLabels {
                listener: self.name,
                reason,
            })
            .inc();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

//! What the outbound side counts.

use http::StatusCode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::refusal::Refusal;
use crate::http::tunnel;

/// The metrics of all routes.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: Family<Outcome, Counter>,
    retries: Family<RouteLabel, Counter>,
    tunnels: tunnel::Metrics,
    tcp_refused: Family<TcpRefused, Counter>,
}

/// Those of one destination of opaque TCP.
#[derive(Debug)]
pub(super) struct TcpCounters {
    to: String,
    refused: Family<TcpRefused, Counter>,
    pub(super) tunnels: tunnel::Meter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TcpRefused {
    to: String,
    reason: &'static str,
}

/// Those of one route, at hand without a lookup.
#[derive(Debug)]
pub(super) struct Counters {
    /// By the first digit of the status, 1 to 5.
    answered: [Counter; 5],
    retries: Counter,
    pub(super) tunnels: tunnel::Meter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    /// The route's host; empty where none matched (what was called instead is not a label: it has no bound).
    route: String,
    /// `1xx` (a WebSocket) to `5xx` as the upstream answered, else why it was not asked or did not answer.
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("outbound");
        let new = Self {
            tunnels: tunnel::Metrics::new(registry),
            ..Self::default()
        };
        registry.register(
            "requests",
            "Requests of the app, by route and outcome",
            new.requests.clone(),
        );
        registry.register(
            "tcp_refused",
            "TCP connections of the app that were closed because there was no way to the upstream",
            new.tcp_refused.clone(),
        );
        registry.register(
            "retries",
            "Requests sent again, by route: connecting failed, another token was due, or the upstream asked for it",
            new.retries.clone(),
        );
        new
    }

    pub(super) fn tcp(&self, to: &str) -> TcpCounters {
        TcpCounters {
            to: to.to_owned(),
            refused: self.tcp_refused.clone(),
            tunnels: self.tunnels.meter(to),
        }
    }

    pub(super) fn counters(&self, route: &str) -> Counters {
        let answered = |outcome| {
            let route = route.to_owned();
            self.requests
                .get_or_create_owned(&Outcome { route, outcome })
        };
        let tunnels = self.tunnels.meter(route);
        let route = route.to_owned();
        Counters {
            tunnels,
            answered: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(answered),
            retries: self.retries.get_or_create_owned(&RouteLabel { route }),
        }
    }

    pub(super) fn refused(&self, route: &str, refusal: &Refusal) {
        let (route, outcome) = (route.to_owned(), refusal.reason());
        self.requests
            .get_or_create(&Outcome { route, outcome })
            .inc();
    }
}

impl TcpCounters {
    pub(super) fn refused(&self, refusal: &Refusal) {
        let (to, reason) = (self.to.clone(), refusal.reason());
        let label = TcpRefused { to, reason };
        self.refused.get_or_create(&label).inc();
    }
}

impl Counters {
    pub(super) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.answered.get(class) {
            counter.inc();
        }
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }
}

//! What is kept of a request: its line in the audit log, and its place in the metrics.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode, Uri, uri::PathAndQuery};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use serde::Serialize;

use super::{Session, authenticate::Authenticated, refusal::Refusal};
use crate::{
    config::value::Listen,
    http::{
        server::{Failed, Remote},
        tunnel,
    },
    policy::{self, Decision, RuleName, Verdict},
    telemetry::{audit::Audit, timestamp::Timestamp},
};

/// Seconds to the head of the response.
const BUCKETS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// The result of a request that was let through because a rule allows it.
const ALLOWED: &str = "allowed";

/// The metrics of all inbound listeners.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Answers of the app, by the first digit of their status: every request, so no look-up.
    answered: [Counter; 6],
    refused: Family<Reason, Counter>,
    let_pass: Family<Reason, Counter>,
    cancelled: Counter,
    shadow: Family<Shadow, Counter>,
    /// Answers that broke off because what let them in no longer does.
    pub(super) withdrawn: Counter,
    passed: Counter,
    duration: Histogram,
    certificates: Family<At, Gauge>,
    pub(super) tokens: TokenMetrics,
    pub(super) tunnels: tunnel::Meter,
}

/// What became of bearer tokens.
#[derive(Debug, Clone)]
pub(super) struct TokenMetrics {
    pub(super) verified: Counter,
    pub(super) remembered: Counter,
    pub(super) refused: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct At {
    listen: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// As many as the configuration has rules in shadow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Shadow {
    rule: String,
    would: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("inbound");
        let answered = Family::<Class, Counter>::default();
        let refused = Family::default();
        let let_pass = Family::default();
        let (cancelled, withdrawn) = (Counter::default(), Counter::default());
        let shadow = Family::default();
        let passed = Counter::default();
        let duration = Histogram::new(BUCKETS);
        let tokens = Family::<Outcome, Counter>::default();
        let certificates = Family::default();
        registry.register_with_unit(
            "certificate_not_after",
            "When the first certificate of a listener expires, for those that have theirs from files",
            Unit::Seconds,
            Family::clone(&certificates),
        );
        registry.register(
            "answered",
            "Requests the app answered, by status",
            answered.clone(),
        );
        registry.register(
            "refused",
            "Requests the agent answered, by reason",
            Family::clone(&refused),
        );
        registry.register(
            "let_pass",
            "Requests that permissive mode let pass, by the reason they would be refused for",
            Family::clone(&let_pass),
        );
        registry.register(
            "cancelled",
            "Requests whose caller went away before the response began",
            cancelled.clone(),
        );
        registry.register(
            "shadow",
            "Requests that a rule in shadow would have decided otherwise, by rule and what it would have done",
            Family::clone(&shadow),
        );
        registry.register(
            "withdrawn",
            "Answers broken off because their caller was revoked, or the rules changed",
            withdrawn.clone(),
        );
        registry.register(
            "passed",
            "Requests that a proxy was told to let pass (ext_authz)",
            passed.clone(),
        );
        registry.register_with_unit(
            "request",
            "Time from the head of a request to the head of its response",
            Unit::Seconds,
            duration.clone(),
        );
        registry.register(
            "tokens",
            "Bearer tokens, by what became of them",
            tokens.clone(),
        );
        let classes = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
        let token = |outcome| tokens.get_or_create_owned(&Outcome { outcome });
        Self {
            answered: classes.map(|class| answered.get_or_create_owned(&Class { class })),
            refused,
            let_pass,
            cancelled,
            shadow,
            withdrawn,
            passed,
            duration,
            certificates,
            tunnels: tunnel::Metrics::new(registry).meter("app"),
            tokens: TokenMetrics {
                verified: token("verified"),
                remembered: token("remembered"),
                refused: token("refused"),
            },
        }
    }
}

impl Metrics {
    /// When the certificate of the listener at `listen` expires.
    pub(super) fn certificate(&self, listen: &Listen) -> Gauge {
        let listen = listen.to_string();
        self.certificates.get_or_create_owned(&At { listen })
    }
}

/// Which lines of allowed requests are written.
#[derive(Debug)]
pub(super) struct Sample {
    one_in: NonZeroU32,
    seen: AtomicU32,
}

impl Sample {
    pub(super) fn new(one_in: NonZeroU32) -> Self {
        Self {
            one_in,
            seen: AtomicU32::new(0),
        }
    }

    /// Whether this one is: the first, and then one in so many.
    fn takes(&self) -> bool {
        let one_in = self.one_in.get();
        one_in == 1
            || self
                .seen
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(one_in)
    }
}

/// A request on its way. Written when dropped, so that it is also when the caller went away.
#[derive(Debug)]
pub(super) struct Record<'a> {
    session: &'a Session,
    event: &'static str,
    started: Instant,
    method: Method,
    /// The target as it came, then in normal form.
    target: Option<PathAndQuery>,
    caller: Option<Arc<Authenticated>>,
    verdict: Option<Verdict>,
    let_pass: Option<LetPass>,
    outcome: Ended,
}

/// Why permissive mode was needed.
#[derive(Debug)]
struct LetPass {
    reason: &'static str,
    detail: Option<String>,
}

#[derive(Debug)]
enum Ended {
    Cancelled,
    Passed,
    Answered(StatusCode),
    Refused {
        status: StatusCode,
        result: &'static str,
        reason: &'static str,
        detail: Option<String>,
    },
}

/// A line of the audit log. `peer` was proved by the connection, `subject` by `proof`.
#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    event: &'static str,
    remote: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_sha256: Option<&'a str>,
    method: &'a str,
    /// Without its query, which may hold what is nobody's business.
    path: &'a str,
    result: &'a str,
    /// It stands for so many requests that were allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    one_in: Option<u32>,
    /// The rule that allowed or denied it, by its name or place in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    /// The rule in shadow that would have denied what was allowed …
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow_denied_by: Option<&'a str>,
    /// … or allowed what no rule did.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow_allowed_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// To the head of the response.
    duration_us: u64,
}

#[derive(Serialize)]
struct FailedLine<'a> {
    time: Timestamp,
    event: &'static str,
    remote: &'a str,
    result: &'static str,
    detail: &'a str,
}

/// A caller that did not get as far as a request: without an identity, most likely.
pub(super) fn failed_connection(audit: &Audit, remote: &Remote, why: &Failed) {
    audit.write(&FailedLine {
        time: Timestamp::now(),
        event: "inbound-connection",
        remote: &remote.to_string(),
        result: "refused",
        detail: &why.to_string(),
    });
}

impl<'a> Record<'a> {
    /// Begins with what came, as far as it can be read.
    pub(super) fn start(
        session: &'a Session,
        event: &'static str,
        method: Method,
        target: Option<PathAndQuery>,
    ) -> Self {
        Self {
            session,
            event,
            started: Instant::now(),
            method,
            target,
            caller: None,
            verdict: None,
            let_pass: None,
            outcome: Ended::Cancelled,
        }
    }

    /// The target is settled.
    pub(super) fn settled(&mut self, uri: &Uri) {
        self.target = uri.path_and_query().cloned();
    }

    /// The caller is known.
    pub(super) fn caller(&mut self, caller: &Arc<Authenticated>) {
        self.caller = Some(Arc::clone(caller));
    }

    /// It is decided, and what would have been.
    pub(super) fn decided(&mut self, verdict: Verdict) {
        if let Some(rule) = &verdict.shadow {
            let would = match verdict.decision {
                Decision::Allow(_) => "deny",
                Decision::Deny(_) => "allow",
            };
            let rule = rule.to_string();
            let metrics = &self.session.inbound.metrics;
            metrics.shadow.get_or_create(&Shadow { rule, would }).inc();
        }
        self.verdict = Some(verdict);
    }

    /// A proxy was told to let it pass.
    pub(super) fn passed(&mut self) {
        self.outcome = Ended::Passed;
    }

    /// It would be refused, and is not yet.
    pub(super) fn let_pass(&mut self, refusal: &Refusal) {
        self.let_pass = Some(LetPass {
            reason: refusal.reason(),
            detail: refusal.detail(),
        });
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.outcome = Ended::Answered(status);
    }

    pub(super) fn refused(&mut self, refusal: &Refusal, status: StatusCode) {
        let (result, reason, detail) = (refusal.result(), refusal.reason(), refusal.detail());
        self.outcome = Ended::Refused {
            status,
            result,
            reason,
            detail,
        };
    }

    fn count(&self, took: Duration) {
        let metrics = &self.session.inbound.metrics;
        metrics.duration.observe(took.as_secs_f64());
        if let Some(LetPass { reason, .. }) = &self.let_pass {
            metrics.let_pass.get_or_create(&Reason { reason }).inc();
        }
        if let Some(counts) = &self.session.inbound.counts {
            match (&self.outcome, &self.let_pass) {
                (Ended::Answered(_) | Ended::Passed, Some(LetPass { reason, .. })) => {
                    counts.other("let-pass", reason);
                }
                (Ended::Answered(_) | Ended::Passed, None) => counts.allowed(),
                (Ended::Cancelled, _) => counts.other("cancelled", "cancelled"),
                (Ended::Refused { result, reason, .. }, _) => counts.other(result, reason),
            }
        }
        match &self.outcome {
            Ended::Cancelled => {
                metrics.cancelled.inc();
            }
            Ended::Passed => {
                metrics.passed.inc();
            }
            Ended::Refused { reason, .. } => {
                metrics.refused.get_or_create(&Reason { reason }).inc();
            }
            Ended::Answered(status) => {
                let [other, classes @ ..] = &metrics.answered;
                let class = usize::from(status.as_u16() / 100).wrapping_sub(1);
                classes.get(class).unwrap_or(other).inc();
            }
        }
    }

    fn write(&self, took: Duration) {
        let caller = self.caller.as_deref();
        let peer = caller
            .or(self.session.peer.as_deref())
            .and_then(|peer| peer.peer.as_deref());
        let subject = caller.and_then(|caller| caller.who().subject.as_ref());
        let status = match &self.outcome {
            Ended::Cancelled | Ended::Passed => None,
            Ended::Answered(status) | Ended::Refused { status, .. } => Some(*status),
        };
        let (result, reason, detail) = match (&self.outcome, &self.let_pass) {
            (Ended::Cancelled, _) => ("cancelled", None, None),
            (
                Ended::Refused {
                    result,
                    reason,
                    detail,
                    ..
                },
                _,
            ) => (*result, Some(*reason), detail.as_deref()),
            (_, Some(LetPass { reason, detail })) => ("let-pass", Some(*reason), detail.as_deref()),
            (_, None) => (ALLOWED, None, None),
        };
        let verdict = self.verdict.as_ref();
        let shadow = verdict.and_then(|verdict| verdict.shadow.as_ref());
        let shadow = shadow.map(RuleName::as_str);
        let sample = &self.session.inbound.sample;
        // Whatever was not simply allowed has its line.
        let allowed = result == ALLOWED;
        if allowed && shadow.is_none() && !sample.takes() {
            return;
        }
        let one_in = sample.one_in.get();
        let (rule, shadow_denied_by, shadow_allowed_by) = match verdict.map(|it| &it.decision) {
            Some(Decision::Allow(rule)) => (Some(rule.as_str()), shadow, None),
            Some(Decision::Deny(policy::Reason::Rule(rule))) => (Some(rule.as_str()), None, None),
            Some(Decision::Deny(_)) => (None, None, shadow),
            None => (None, None, None),
        };
        self.session.inbound.audit.write(&Line {
            time: Timestamp::now(),
            event: self.event,
            remote: &self.session.remote,
            peer,
            subject: subject.map(|subject| subject.subject.as_str()),
            proof: subject.map(|subject| subject.proof.as_str()),
            token_sha256: caller.and_then(|caller| caller.token.as_deref()),
            method: self.method.as_str(),
            path: self.target.as_ref().map_or("", PathAndQuery::path),
            result,
            one_in: (allowed && one_in > 1).then_some(one_in),
            rule,
            shadow_denied_by,
            shadow_allowed_by,
            reason,
            detail,
            status: status.map(|status| status.as_u16()),
            duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        });
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.count(took);
        self.write(took);
    }
}

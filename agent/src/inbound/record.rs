//! What is kept of a request: its line in the audit log, and its place in the metrics.

use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering},
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
    http::tunnel::{self, Passed},
    policy::{self, Decision, RuleName, Undecided, Verdict},
    telemetry::timestamp::Timestamp,
};
pub(super) use connection::{Carried, failed_connection};

mod connection;

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
    rego: Family<Outcome, Counter>,
    /// Answers that broke off because what let them in no longer does.
    pub(super) withdrawn: Counter,
    passed: Counter,
    carried: Counter,
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
        let (shadow, rego) = (Family::default(), Family::default());
        let (passed, carried) = (Counter::default(), Counter::default());
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
            "rego",
            "Questions to the Rego policy, of requests and of what is open for long, by what it said",
            Family::clone(&rego),
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
        registry.register(
            "carried",
            "Connections carried to an app that speaks no HTTP",
            carried.clone(),
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
            rego,
            withdrawn,
            passed,
            carried,
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

    /// The Rego policy was asked.
    pub(super) fn rego(&self, said: &Result<bool, Undecided>) {
        let outcome = match said {
            Ok(true) => "allowed",
            Ok(false) => "not_allowed",
            Err(why) => why.as_str(),
        };
        self.rego.get_or_create(&Outcome { outcome }).inc();
    }

    /// It has none of its own.
    pub(super) fn no_certificate(&self, listen: &Listen) {
        let listen = listen.to_string();
        self.certificates.remove(&At { listen });
    }
}

/// A request on its way. Written when dropped, so that it is also when the caller went away.
#[derive(Debug)]
pub(super) struct Record<'a> {
    session: &'a Session,
    /// Of requests that are allowed, this has its line, and stands for so many.
    one_in: NonZeroU32,
    event: &'static str,
    started: Instant,
    /// Of a connection: what its lines call it.
    connection: Option<&'a str>,
    /// Of a request.
    method: Option<Method>,
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
    /// A connection, to the app.
    Carried {
        is_left_out: bool,
    },
    Answered(StatusCode),
    Refused {
        status: Option<StatusCode>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<&'a str>,
    remote: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    /// Without its query, which may hold what is nobody's business.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
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
    /// To the head of the response; of a connection, to when the app had it.
    duration_us: u64,
}

impl<'a> Record<'a> {
    /// Begins with what came, as far as it can be read.
    pub(super) fn start(
        session: &'a Session,
        one_in: NonZeroU32,
        event: &'static str,
        method: Method,
        target: Option<PathAndQuery>,
    ) -> Self {
        Self {
            session,
            one_in,
            event,
            started: Instant::now(),
            connection: None,
            method: Some(method),
            target,
            caller: None,
            verdict: None,
            let_pass: None,
            outcome: Ended::Cancelled,
        }
    }

    /// Of a connection that nobody speaks HTTP over.
    pub(super) fn of_connection(session: &'a Session, one_in: NonZeroU32, id: &'a str) -> Self {
        Self {
            session,
            one_in,
            event: connection::EVENT,
            started: Instant::now(),
            connection: Some(id),
            method: None,
            target: None,
            caller: None,
            verdict: None,
            let_pass: None,
            outcome: Ended::Cancelled,
        }
    }

    /// The app has it: its line is written now, and another when it ends.
    pub(super) fn carried(mut self) -> Carried<'a> {
        let is_left_out = self.is_as_usual() && !self.is_in_sample();
        self.outcome = Ended::Carried { is_left_out };
        Carried {
            session: self.session,
            id: self.connection.unwrap_or_default(),
            began: self.started,
            one_in: (!is_left_out).then_some(self.one_in),
            passed: Passed::default(),
            end: None,
        }
    }

    /// It goes no further.
    pub(super) fn connection_refused(&mut self, refusal: &Refusal) {
        self.ended(refusal, None);
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
            let metrics = &self.session.inbound.environment.metrics;
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
        self.ended(refusal, Some(status));
    }

    fn ended(&mut self, refusal: &Refusal, status: Option<StatusCode>) {
        let (result, reason, detail) = (refusal.result(), refusal.reason(), refusal.detail());
        self.outcome = Ended::Refused {
            status,
            result,
            reason,
            detail,
        };
    }

    fn count(&self, took: Duration) {
        let environment = &self.session.inbound.environment;
        let metrics = &environment.metrics;
        if self.method.is_some() {
            metrics.duration.observe(took.as_secs_f64());
        }
        if let Some(LetPass { reason, .. }) = &self.let_pass {
            metrics.let_pass.get_or_create(&Reason { reason }).inc();
        }
        if let Some(counts) = &environment.counts {
            match (&self.outcome, &self.let_pass) {
                (
                    Ended::Answered(_) | Ended::Passed | Ended::Carried { .. },
                    Some(LetPass { reason, .. }),
                ) => {
                    counts.other("let-pass", reason);
                }
                (Ended::Answered(_) | Ended::Passed | Ended::Carried { .. }, None) => {
                    counts.allowed();
                }
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
            Ended::Carried { .. } => {
                metrics.carried.inc();
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

    /// Whether nothing is to be said of it but that it was allowed, if it was.
    fn is_as_usual(&self) -> bool {
        let verdict = self.verdict.as_ref();
        self.let_pass.is_none() && verdict.is_none_or(|verdict| verdict.shadow.is_none())
    }

    /// Whether the line of an allowed request is written: of the first, and then of one in so many.
    fn is_in_sample(&self) -> bool {
        let one_in = self.one_in.get();
        let allowed = &self.session.inbound.allowed;
        one_in == 1
            || allowed
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(one_in)
    }

    fn write(&self, took: Duration) {
        let caller = self.caller.as_deref();
        let peer = caller
            .or(self.session.peer.as_deref())
            .and_then(|peer| peer.peer.as_deref());
        let subject = caller.and_then(|caller| caller.who().subject.as_ref());
        let status = match &self.outcome {
            Ended::Cancelled | Ended::Passed | Ended::Carried { .. } => None,
            Ended::Answered(status) => Some(*status),
            Ended::Refused { status, .. } => *status,
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
        // Whatever was not simply allowed has its line.
        let allowed = result == ALLOWED;
        let is_left_out = match self.outcome {
            Ended::Carried { is_left_out } => is_left_out,
            _ => allowed && self.is_as_usual() && !self.is_in_sample(),
        };
        if is_left_out {
            return;
        }
        let one_in = self.one_in.get();
        let (rule, shadow_denied_by, shadow_allowed_by) = match verdict.map(|it| &it.decision) {
            Some(Decision::Allow(rule)) => (Some(rule.as_str()), shadow, None),
            Some(Decision::Deny(policy::Reason::Rule(rule))) => (Some(rule.as_str()), None, None),
            Some(Decision::Deny(
                policy::Reason::NotByRego(rule) | policy::Reason::Undecided(rule, _),
            )) => (Some(rule.as_str()), None, shadow),
            Some(Decision::Deny(_)) => (None, None, shadow),
            None => (None, None, None),
        };
        self.session.inbound.environment.audit.write(&Line {
            time: Timestamp::now(),
            event: self.event,
            connection: self.connection,
            remote: &self.session.remote,
            peer,
            subject: subject.map(|subject| subject.subject.as_str()),
            proof: subject.map(|subject| subject.proof.as_str()),
            token_sha256: caller.and_then(|caller| caller.token.as_deref()),
            method: self.method.as_ref().map(Method::as_str),
            path: self
                .method
                .as_ref()
                .map(|_| self.target.as_ref().map_or("", PathAndQuery::path)),
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

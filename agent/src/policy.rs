//! Pure: (caller, request) → decision and reason. Default deny (S16).
//!
//! ```text
//! deny rules ─▶ one holds: denied ─┐
//! allow rules ─▶ one holds: allowed├─▶ verdict, and which rule
//!             ─▶ none does: denied ┤
//!        Rego ─▶ where there is one┘
//! ```
//!
//! A rule holds when every part of it does: its `peer` against the SPIFFE ID the TLS connection proved, its
//! `subject` against what a token proved, one of its targets and all that it says of the request. A `deny` wins
//! wherever it stands; what no rule allows is denied. Where a part can't be told (the source address behind
//! a proxy that does not say it), an `allow` does not hold and a `deny` does.
//!
//! Rules are filed by what they demand, and then by path, so a decision looks at the rules that can apply and
//! not at all of them: a thousand rules cost about as much as ten.

use std::{fmt, net::IpAddr, sync::Arc, time::SystemTime};

use http::{HeaderMap, Method};
use serde_json::{Map, Value};
use warifu::{Caller, SpiffeId};

use crate::config::{inbound as config, value::IdPattern};

mod explain;
mod index;
mod rego;
mod rule;
mod trie;
mod when;

pub use explain::{Explained, Explanation};
use index::Index;
pub use rego::{NoPolicy, Question, Rego, Threads, Undecided};
use rule::{About, Ask, Effect};

/// How [`warifu::caller::Subject::proof`] names a JWT-SVID: the only proof whose `sub` is a SPIFFE ID.
pub const PROOF_JWT_SVID: &str = "jwt-svid";

/// What was proved of a caller beyond its [`Caller`]: rules see all of it, the app what it is forwarded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// Every claim of the token that verified; empty without one.
    pub claims: Map<String, Value>,
    /// The `name` of the entry of `accept` that the subject was proved by.
    pub accept: Option<String>,
    /// The subject's AWS role, as `ACCOUNT:role/NAME`, where one was proved.
    pub role: Option<String>,
}

/// What is asked, in the form that will be forwarded, and all else a rule may look at.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path in normal form (`http::path`).
    pub path: &'a str,
    /// The host that is called, where the request names one.
    pub host: Option<&'a str>,
    /// The headers, before anything is taken from them.
    pub headers: &'a HeaderMap,
    /// Where it comes from; `None` where that is not known for certain.
    pub source: Option<IpAddr>,
    /// When.
    pub now: SystemTime,
}

/// A rule by its `name`, or by its place in the file: `allow[0]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName(Arc<str>);

impl RuleName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was decided, and what a rule in shadow would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What counts.
    pub decision: Decision,
    /// The first rule in shadow that would have decided otherwise: a `deny` where it was allowed, an `allow` where
    /// no rule was there to allow it.
    pub shadow: Option<RuleName>,
}

/// What was decided, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Allowed by this rule: of those that allow, the first of the file.
    Allow(RuleName),
    /// Denied.
    Deny(Reason),
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No rule that allows was found by who calls.
    NoRuleForCaller,
    /// Rules allow this caller something, but not this request.
    NoRuleForRequest,
    /// This rule denies: of those that do, the first of the file.
    Rule(RuleName),
    /// No rule decides, and this one of the Rego policy does not allow it.
    NotByRego(RuleName),
    /// No rule decides, and this one of the Rego policy says nothing.
    Undecided(RuleName, Undecided),
}

impl Reason {
    /// One word for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoRuleForCaller => "no_rule_for_caller",
            Self::NoRuleForRequest => "no_rule_for_request",
            Self::Rule(_) => "denied_by_rule",
            Self::NotByRego(_) => "not_allowed_by_rego",
            Self::Undecided(_, why) => why.as_str(),
        }
    }
}

/// Compiled rules.
///
/// How a target's path matches: `*` is one segment, a last `**` one or more; a trailing slash is part
/// of the path (`/a` is not `/a/`), except that `**` takes it along.
#[derive(Debug, Default)]
pub struct Policy {
    deny: Index,
    allow: Index,
    /// Those that decide nothing.
    shadow_deny: Index,
    shadow_allow: Index,
    /// Whether any of them looks at headers.
    reads_headers: bool,
    /// Asked where none of them decides.
    rego: Option<Arc<Rego>>,
}

impl Policy {
    /// Compiles the rules of a listener.
    pub fn of(listener: &config::Inbound) -> Self {
        let about = match listener.is_opaque() {
            true => About::Connections,
            false => About::Requests,
        };
        Self::about(about, &listener.allow, &listener.deny)
    }

    /// Compiles rules about requests.
    pub fn new(allow: &[config::Rule], deny: &[config::Rule]) -> Self {
        Self::about(About::Requests, allow, deny)
    }

    fn about(about: About, allow: &[config::Rule], deny: &[config::Rule]) -> Self {
        let index = |rules: &[config::Rule], effect, shadow| {
            let rules = rules.iter().enumerate();
            let chosen = rules.filter(|(_, rule)| rule.shadow == shadow);
            Index::new(chosen.map(|(place, rule)| rule::Rule::new(rule, effect, about, place)))
        };
        Self {
            deny: index(deny, Effect::Deny, false),
            allow: index(allow, Effect::Allow, false),
            shadow_deny: index(deny, Effect::Deny, true),
            shadow_allow: index(allow, Effect::Allow, true),
            reads_headers: allow
                .iter()
                .chain(deny)
                .any(|rule| !rule.headers.is_empty()),
            rego: None,
        }
    }

    /// And `rego` is asked where no rule decides.
    #[must_use]
    pub fn with_rego(mut self, rego: Rego) -> Self {
        self.rego = Some(Arc::new(rego));
        self
    }

    /// Whether a rule looks at [`Request::headers`].
    pub fn reads_headers(&self) -> bool {
        self.reads_headers
    }

    /// Whether there is a Rego policy.
    pub fn asks_rego(&self) -> bool {
        self.rego.is_some()
    }

    /// What is to be asked of the Rego policy where `verdict` is that no rule decides. Who proved nothing is not asked
    /// about.
    pub fn question(
        &self,
        caller: &Caller,
        evidence: &Evidence,
        request: Request<'_>,
        verdict: &Verdict,
    ) -> Option<Question> {
        let rego = self.rego.as_ref()?;
        let no_rule = [Reason::NoRuleForCaller, Reason::NoRuleForRequest];
        let open = matches!(&verdict.decision, Decision::Deny(why) if no_rule.contains(why));
        let ask = Ask::new(caller, evidence, request);
        (open && !ask.nobody()).then(|| {
            let shadows = (verdict.shadow.clone(), self.shadow_deny.first(&ask));
            rego.question(caller, evidence, request, shadows)
        })
    }

    /// Decides by the rules alone; what [`Self::question`] has to ask then, may still be allowed. A caller without `peer` and
    /// `subject` is denied whatever the rules say.
    pub fn decide(&self, caller: &Caller, evidence: &Evidence, request: Request<'_>) -> Verdict {
        let ask = Ask::new(caller, evidence, request);
        if ask.nobody() {
            return Verdict::deny(Reason::NoRuleForCaller);
        }
        if let Some(rule) = self.deny.first(&ask) {
            return Verdict::deny(Reason::Rule(rule));
        }
        match self.allow.first(&ask) {
            Some(rule) => Verdict {
                decision: Decision::Allow(rule),
                shadow: self.shadow_deny.first(&ask),
            },
            None => Verdict {
                decision: Decision::Deny(match self.allow.knows(&ask) {
                    true => Reason::NoRuleForRequest,
                    false => Reason::NoRuleForCaller,
                }),
                shadow: self.shadow_allow.first(&ask),
            },
        }
    }
}

impl Verdict {
    fn deny(reason: Reason) -> Self {
        Self {
            decision: Decision::Deny(reason),
            shadow: None,
        }
    }
}

/// Whether `pattern` means `id`.
pub fn is_of(id: &SpiffeId, pattern: &IdPattern) -> bool {
    rule::means(pattern, (id.trust_domain_name(), id.path()))
}

#[cfg(test)]
mod tests;

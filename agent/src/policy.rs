//! Pure: (caller, request) → decision and reason. Default deny (S16).
//!
//! A rule allows when every part of it holds: its `peer` against the SPIFFE ID the TLS connection
//! proved, its `subject` against what a token proved, and one of its targets against the request.
//! Nothing forbids; what no rule allows is denied.
//!
//! Rules are filed by caller and then by path, so a decision looks at the rules that can apply and
//! not at all of them: a thousand rules cost about as much as ten.

use std::collections::HashMap;

use http::Method;
use warifu::{Caller, caller::Subject};

use crate::config::{
    inbound::Allow,
    value::{IdPattern, Segment},
};

mod trie;

use trie::Trie;

/// How [`Subject::proof`] names a JWT-SVID: the only proof whose `sub` is a SPIFFE ID.
pub const PROOF_JWT_SVID: &str = "jwt-svid";

/// What is asked, in the form that will be forwarded.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path in normal form (`http::path`).
    pub path: &'a str,
}

/// What was decided, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Allowed by the rule with this index (order of the file, from 0): the first that allows.
    Allow(usize),
    /// No rule allows it.
    Deny(Reason),
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No rule names this caller, whatever it asks.
    NoRuleForCaller,
    /// Rules name this caller, but none allows this request.
    NoRuleForRequest,
}

impl Reason {
    /// One word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRuleForCaller => "no_rule_for_caller",
            Self::NoRuleForRequest => "no_rule_for_request",
        }
    }
}

/// Compiled rules.
///
/// How a target's path matches: `*` is one segment, a last `**` one or more; a trailing slash is part
/// of the path (`/a` is not `/a/`), except that `**` takes it along.
#[derive(Debug, Default)]
pub struct Policy {
    /// Rules that name the TLS peer.
    peers: ByCaller,
    /// Rules that don't, but name the subject's SPIFFE ID.
    subjects: ByCaller,
    /// Rules that name neither: any authenticated caller whose token says what they ask for.
    others: Targets,
}

/// Rules filed by SPIFFE ID: by trust domain, then path.
#[derive(Debug, Default)]
struct ByCaller(HashMap<Box<str>, TrustDomainRules>);

#[derive(Debug, Default)]
struct TrustDomainRules {
    exact: HashMap<Box<str>, Targets>,
    patterns: Trie<Targets>,
}

/// The rules of one caller, filed by path.
type Targets = Trie<Vec<Rule>>;

/// What is left to ask when caller and path fit.
#[derive(Debug)]
struct Rule {
    index: usize,
    method: Option<Method>,
    trailing_slash: TrailingSlash,
    subject: Option<SubjectRule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrailingSlash {
    Required,
    Forbidden,
    Either,
}

#[derive(Debug, Clone)]
struct SubjectRule {
    spiffe_id: Option<IdPattern>,
    scope: Option<String>,
}

/// The best answer so far.
struct Search<'a> {
    caller: &'a Caller,
    request: Request<'a>,
    caller_known: bool,
    allowed_by: Option<usize>,
}

impl Policy {
    /// Compiles the `allow` rules of a listener.
    pub fn new(rules: &[Allow]) -> Self {
        let mut policy = Self::default();
        for (index, allow) in rules.iter().enumerate() {
            let mut subject = allow.subject.as_ref().map(|s| SubjectRule {
                spiffe_id: s.spiffe_id.clone(),
                scope: s.scope.clone(),
            });
            let targets = if let Some(peer) = &allow.peer {
                policy.peers.of(peer)
            } else if let Some(id) = subject
                .as_mut()
                .and_then(|subject| subject.spiffe_id.take())
            {
                policy.subjects.of(&id)
            } else {
                &mut policy.others
            };
            for target in &allow.to {
                let Some(method) = parse_method(target.method.as_deref()) else {
                    continue;
                };
                let trailing_slash = match target.segments.last() {
                    _ if target.trailing_slash => TrailingSlash::Required,
                    Some(Segment::Rest) => TrailingSlash::Either,
                    _ => TrailingSlash::Forbidden,
                };
                targets.at(&target.segments).push(Rule {
                    index,
                    method,
                    trailing_slash,
                    subject: subject.clone(),
                });
            }
        }
        policy
    }

    /// Decides. A caller without `peer` and `subject` is denied whatever the rules say.
    pub fn decide(&self, caller: &Caller, request: Request<'_>) -> Decision {
        if caller.peer.is_none() && caller.subject.is_none() {
            return Decision::Deny(Reason::NoRuleForCaller);
        }
        let mut search = Search {
            caller,
            request,
            caller_known: false,
            allowed_by: None,
        };
        if let Some(peer) = &caller.peer {
            let id = &peer.spiffe_id;
            self.peers
                .visit(id.trust_domain_name(), id.path(), &mut search);
        }
        if let Some((trust_domain, path)) = caller.subject.as_ref().and_then(spiffe_id_of) {
            self.subjects.visit(trust_domain, path, &mut search);
        }
        search.visit(&self.others);
        match search.allowed_by {
            Some(rule) => Decision::Allow(rule),
            None if search.caller_known => Decision::Deny(Reason::NoRuleForRequest),
            None => Decision::Deny(Reason::NoRuleForCaller),
        }
    }
}

impl ByCaller {
    /// Where the rules of `pattern` are filed.
    fn of(&mut self, pattern: &IdPattern) -> &mut Targets {
        let rules = self
            .0
            .entry(pattern.trust_domain.as_str().into())
            .or_default();
        let mut path = String::new();
        for segment in &pattern.segments {
            let Segment::Literal(text) = segment else {
                return rules.patterns.at(&pattern.segments);
            };
            path.push('/');
            path.push_str(text);
        }
        rules.exact.entry(path.into()).or_default()
    }

    fn visit(&self, trust_domain: &str, path: &str, search: &mut Search<'_>) {
        let Some(rules) = self.0.get(trust_domain) else {
            return;
        };
        if let Some(targets) = rules.exact.get(path) {
            search.visit(targets);
        }
        let segments = path.strip_prefix('/').unwrap_or(path);
        rules
            .patterns
            .visit(segments, &mut |targets| search.visit(targets));
    }
}

impl Search<'_> {
    fn visit(&mut self, targets: &Targets) {
        let (path, trailing_slash) = match self.request.path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (self.request.path, false),
        };
        // `/` has no segments, `/a` has one.
        let segments = path.strip_prefix('/').unwrap_or(path);
        let subject = self.caller.subject.as_ref();
        self.caller_known |= !targets.is_empty();
        let mut allowed_by = self.allowed_by;
        targets.visit(segments, &mut |rules| {
            let first = rules
                .iter()
                .take_while(|rule| allowed_by.is_none_or(|best| rule.index < best))
                .find(|rule| rule.allows(self.request.method, trailing_slash, subject));
            allowed_by = first.map(|rule| rule.index).or(allowed_by);
        });
        self.allowed_by = allowed_by;
    }
}

impl Rule {
    fn allows(&self, method: &Method, trailing_slash: bool, subject: Option<&Subject>) -> bool {
        self.method.as_ref().is_none_or(|ours| ours == method)
            && match self.trailing_slash {
                TrailingSlash::Either => true,
                TrailingSlash::Required => trailing_slash,
                TrailingSlash::Forbidden => !trailing_slash,
            }
            && self
                .subject
                .as_ref()
                .is_none_or(|ours| subject.is_some_and(|it| ours.holds(it)))
    }
}

impl SubjectRule {
    fn holds(&self, subject: &Subject) -> bool {
        self.scope
            .as_ref()
            .is_none_or(|scope| subject.scopes.contains(scope))
            && self.spiffe_id.as_ref().is_none_or(|pattern| {
                spiffe_id_of(subject).is_some_and(|(domain, path)| {
                    domain == pattern.trust_domain && trie::matches(&pattern.segments, path)
                })
            })
    }
}

/// Trust domain and path (with its `/`) of a subject that was proved by a JWT-SVID.
fn spiffe_id_of(subject: &Subject) -> Option<(&str, &str)> {
    if subject.proof != PROOF_JWT_SVID {
        return None;
    }
    let id = subject.subject.strip_prefix("spiffe://")?;
    Some(id.split_at(id.find('/').unwrap_or(id.len())))
}

/// `None` where the rule can match no request.
fn parse_method(method: Option<&str>) -> Option<Option<Method>> {
    method
        .map(|method| Method::from_bytes(method.as_bytes()).ok())
        .map_or(Some(None), |m| m.map(Some))
}

#[cfg(test)]
mod tests;

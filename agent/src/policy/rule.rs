//! A rule, and what a request is held against.

use std::{fmt, sync::Arc};

use http::{HeaderName, Method};
use serde_json::Value;
use warifu::{Caller, caller::Subject};

use super::{Evidence, PROOF_JWT_SVID, Request, RuleName, trie, when};
use crate::config::{
    inbound::{self as config, When},
    value::{AnyOf, Cidr, IdPattern, RolePattern, Segment, Target},
};

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// What rules are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Requests,
    /// Without methods and paths: who may connect may do so.
    Connections,
}

/// A rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: RuleName,
    pub(super) effect: Effect,
    pub(super) parts: Vec<Part>,
    /// What is asked: any of these, or (a `deny` may, and what is about connections does) anything.
    pub(super) targets: Option<Vec<Asked>>,
}

/// A target.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) segments: Vec<Segment>,
    pub(super) way: Way,
    shown: Target,
}

/// What is left to ask of a target when the segments of the path fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    method: Option<Method>,
    trailing_slash: TrailingSlash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrailingSlash {
    Required,
    Forbidden,
    Either,
}

/// What a rule demands beside its targets. All must hold.
#[derive(Debug)]
pub(super) enum Part {
    Peer(IdPattern),
    /// Any subject at all.
    Subject,
    SpiffeId(IdPattern),
    /// And as text, to be found by.
    Role(RolePattern, String),
    Claim(String, AnyOf),
    Scope(String),
    Issuer(String),
    Header(HeaderName, Vec<String>),
    Source(Vec<Cidr>),
    When(When),
}

/// What is asked, by whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) caller: &'a Caller,
    pub(super) evidence: &'a Evidence,
    pub(super) request: Request<'a>,
    /// The path without its slashes at both ends: `/` has no segments, `/a` has one.
    pub(super) segments: &'a str,
    trailing_slash: bool,
}

impl<'a> Ask<'a> {
    pub(super) fn new(caller: &'a Caller, evidence: &'a Evidence, request: Request<'a>) -> Self {
        let (path, trailing_slash) = match request.path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (request.path, false),
        };
        Self {
            caller,
            evidence,
            request,
            segments: path.strip_prefix('/').unwrap_or(path),
            trailing_slash,
        }
    }

    /// Whether nothing was proved.
    pub(super) fn nobody(&self) -> bool {
        self.caller.peer.is_none() && self.caller.subject.is_none()
    }

    /// Trust domain and path (with its `/`) of the peer.
    pub(super) fn peer_id(&self) -> Option<(&'a str, &'a str)> {
        let id = self.caller.peer_id()?;
        Some((id.trust_domain_name(), id.path()))
    }

    /// The same of a subject that was proved by a JWT-SVID.
    pub(super) fn subject_id(&self) -> Option<(&'a str, &'a str)> {
        let is_id = |subject: &&Subject| subject.proof == PROOF_JWT_SVID;
        let subject = self.caller.subject.as_ref().filter(is_id)?;
        let id = subject.subject.strip_prefix("spiffe://")?;
        Some(id.split_at(id.find('/').unwrap_or(id.len())))
    }
}

impl Rule {
    /// The rule at `place` of its list.
    pub(super) fn new(rule: &config::Rule, effect: Effect, about: About, place: usize) -> Self {
        let name = match &rule.name {
            Some(name) => name.clone(),
            None => format!("{effect}[{place}]"),
        };
        let targets: Vec<Asked> = rule.to.iter().filter_map(Asked::new).collect();
        Self {
            name: RuleName(Arc::from(name)),
            effect,
            parts: parts(rule),
            // An `allow` of requests without targets allows nothing.
            targets: match rule.to.is_empty()
                && (effect == Effect::Deny || about == About::Connections)
            {
                true => None,
                false => Some(targets),
            },
        }
    }
}

/// In the order in which they are preferred to find the rule by, where several are as good.
fn parts(rule: &config::Rule) -> Vec<Part> {
    let mut parts: Vec<Part> = rule.peer.iter().cloned().map(Part::Peer).collect();
    if let Some(subject) = &rule.subject {
        let config::SubjectMatch {
            issuer,
            spiffe_id,
            role,
            scope,
            claims,
        } = subject;
        parts.extend(spiffe_id.iter().cloned().map(Part::SpiffeId));
        parts.extend(role.iter().map(|it| Part::Role(it.clone(), it.to_string())));
        let claims = claims.iter();
        parts.extend(claims.map(|(name, wanted)| Part::Claim(name.clone(), wanted.clone())));
        parts.extend(scope.iter().cloned().map(Part::Scope));
        parts.extend(issuer.iter().cloned().map(Part::Issuer));
        parts.push(Part::Subject);
    }
    let headers = rule.headers.iter();
    parts.extend(headers.map(|(name, values)| Part::Header(name.clone(), values.clone())));
    if !rule.source.is_empty() {
        parts.push(Part::Source(rule.source.clone()));
    }
    parts.extend(rule.when.iter().cloned().map(Part::When));
    parts
}

impl Part {
    /// Whether it holds; what can't be told holds for a rule that denies.
    pub(super) fn holds(&self, ask: &Ask<'_>, effect: Effect) -> bool {
        match self {
            Self::Peer(pattern) => ask.peer_id().is_some_and(|id| means(pattern, id)),
            Self::Subject => ask.caller.subject.is_some(),
            Self::SpiffeId(pattern) => ask.subject_id().is_some_and(|id| means(pattern, id)),
            Self::Role(pattern, _) => {
                role(ask).is_some_and(|(account, name)| pattern.matches(account, name))
            }
            Self::Claim(name, wanted) => {
                let claim = ask.evidence.claims.get(name);
                claim.is_some_and(|claim| claim_is(claim, wanted))
            }
            Self::Scope(scope) => ask.caller.has_scope(scope),
            Self::Issuer(name) => ask.evidence.accept.as_ref() == Some(name),
            Self::Header(name, wanted) => {
                let is_wanted = |line: &http::HeaderValue| {
                    wanted
                        .iter()
                        .any(|wanted| wanted.as_bytes() == line.as_bytes())
                };
                let mut lines = ask.request.headers.get_all(name).iter().peekable();
                match effect {
                    Effect::Allow => lines.peek().is_some() && lines.all(is_wanted),
                    Effect::Deny => lines.any(is_wanted),
                }
            }
            Self::Source(ranges) => match ask.request.source {
                Some(address) => ranges.iter().any(|range| range.contains(address)),
                None => effect == Effect::Deny,
            },
            Self::When(window) => when::holds(window, ask.request.now),
        }
    }
}

/// Whether `pattern` means the SPIFFE ID of this trust domain and path (with its `/`).
pub(super) fn means(pattern: &IdPattern, (domain, path): (&str, &str)) -> bool {
    domain == pattern.trust_domain && trie::matches(&pattern.segments, path)
}

/// Account and name of the role that was proved.
fn role<'a>(ask: &Ask<'a>) -> Option<(&'a str, &'a str)> {
    let role = ask.evidence.role.as_deref()?;
    role.split_once(":role/")
}

/// Whether a claim is one of the values wanted, or a list that has one.
fn claim_is(claim: &Value, wanted: &AnyOf) -> bool {
    let is_wanted = |claim: &Value| wanted.0.iter().any(|wanted| wanted.equals(claim));
    match claim {
        Value::Array(items) => items.iter().any(is_wanted),
        claim => is_wanted(claim),
    }
}

impl Asked {
    /// `None` where it can match no request.
    fn new(target: &Target) -> Option<Self> {
        let method = match &target.method {
            Some(method) => Some(Method::from_bytes(method.as_bytes()).ok()?),
            None => None,
        };
        let trailing_slash = match target.segments.last() {
            _ if target.trailing_slash => TrailingSlash::Required,
            Some(Segment::Rest) => TrailingSlash::Either,
            _ => TrailingSlash::Forbidden,
        };
        Some(Self {
            segments: target.segments.clone(),
            way: Way {
                method,
                trailing_slash,
            },
            shown: target.clone(),
        })
    }

    pub(super) fn holds(&self, ask: &Ask<'_>) -> bool {
        self.way.fits(ask) && trie::matches(&self.segments, ask.segments)
    }
}

impl Way {
    /// Any request whose segments fit.
    pub(super) const ANY: Self = Self {
        method: None,
        trailing_slash: TrailingSlash::Either,
    };

    pub(super) fn fits(&self, ask: &Ask<'_>) -> bool {
        self.method
            .as_ref()
            .is_none_or(|ours| ours == ask.request.method)
            && match self.trailing_slash {
                TrailingSlash::Either => true,
                TrailingSlash::Required => ask.trailing_slash,
                TrailingSlash::Forbidden => !ask.trailing_slash,
            }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown.fmt(f)
    }
}

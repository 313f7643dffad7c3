//! Facts to identity: first match wins, no match refuses (S16). Pure.
//!
//! What a rule yields is safe whatever the facts say (S18): a fact fills (part of) one path segment
//! or one DNS label, and one with any other character is refused, never mapped; nothing under
//! `/warifu` and none of the authority's own DNS names can come out.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use warifu::{SpiffeId, TrustDomain};

use crate::config::{
    authority::{Also, Attestor, Rule},
    overlap,
    value::{DnsTemplate, Glob, IdTemplate},
};

mod fill;
mod index;

use index::Index;

/// What an attestor proved: name → value.
pub type Facts = BTreeMap<String, String>;

/// The rules of one trust domain, checked.
#[derive(Debug)]
pub struct Rules {
    trust_domain: TrustDomain,
    /// Lower case.
    own_dns: Vec<String>,
    rules: Vec<Compiled>,
    index: Index,
}

/// What a rule entitles to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// The identity a workload has where it asks for none.
    pub first: Grant,
    /// The identities it has beside, in the rule's order. No two of all are the same.
    pub further: Vec<Grant>,
}

/// One identity, and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which rule, counted from 0.
    pub rule: usize,
    /// Which of its further identities, counted from 0; `None` for its first.
    pub also: Option<usize>,
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// What a further one is for.
    pub hint: Option<String>,
    /// Life of an X.509-SVID.
    pub ttl: Duration,
    /// Life of a JWT-SVID.
    pub jwt_ttl: Duration,
    /// DNS SANs.
    pub dns: Vec<String>,
    /// Audiences a JWT-SVID may name: exact, or `*` alone.
    pub audiences: Vec<String>,
    /// Scopes a JWT-SVID carries.
    pub scopes: Vec<String>,
}

/// Why facts entitle to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No rule matches.
    #[error("no rule matches what was attested")]
    NoMatch,
    /// The first rule that matches can't be filled in. Later rules are not asked: they were not meant.
    #[error("rules[{rule}] matches and cannot be filled in: {why}")]
    Unfillable {
        /// Which rule, counted from 0.
        rule: usize,
        /// Which part and why.
        why: String,
    },
}

/// A rule that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("rules[{rule}].{field}: {why}")]
pub struct RuleError {
    /// Which rule, counted from 0.
    pub rule: usize,
    /// Its field, such as `id` or `dns[0]`.
    pub field: String,
    /// What is wrong and what was expected.
    pub why: String,
}

/// What one rule makes of some facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It decides, with this identity.
    Grants(String),
    /// It decides, against.
    Unfillable(String),
    /// It does not apply.
    DoesNotMatch(String),
    /// An earlier rule decided.
    NotAsked,
}

#[derive(Debug)]
struct Compiled {
    attestor: String,
    matches: Vec<(String, Glob)>,
    ttl: Duration,
    jwt_ttl: Duration,
    first: Identity,
    also: Vec<Identity>,
}

#[derive(Debug)]
struct Identity {
    id: IdTemplate,
    hint: Option<String>,
    dns: Vec<DnsTemplate>,
    audiences: Vec<String>,
    scopes: Vec<String>,
}

impl Rules {
    /// Checks `rules`. `attestors` are the configured ones; `own_dns` the authority's names.
    ///
    /// # Errors
    /// The first rule that names an unknown attestor, or that could give two accounts, clusters or namespaces
    /// one identity.
    pub fn compile(
        trust_domain: &TrustDomain,
        rules: &[Rule],
        attestors: &BTreeMap<String, Attestor>,
        own_dns: &[String],
    ) -> Result<Self, RuleError> {
        if let Some((rule, unknown)) =
            (rules.iter().enumerate()).find(|(_, rule)| !attestors.contains_key(&rule.attestor))
        {
            return Err(RuleError {
                rule,
                field: "attestor".to_owned(),
                why: format!("no attestor is called {:?}", unknown.attestor),
            });
        }
        if let Some(found) = overlap::find(rules, attestors).into_iter().next() {
            return Err(RuleError {
                why: found.to_string(),
                rule: found.rule,
                field: found.field(),
            });
        }
        Ok(Self::of(trust_domain, rules, own_dns))
    }

    fn of(trust_domain: &TrustDomain, rules: &[Rule], own_dns: &[String]) -> Self {
        let rules: Vec<Compiled> = rules.iter().map(Compiled::from).collect();
        Self {
            trust_domain: trust_domain.clone(),
            own_dns: own_dns.iter().map(|name| name.to_lowercase()).collect(),
            index: Index::new(&rules),
            rules,
        }
    }

    /// What `facts`, proved by `attestor`, entitle to.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn decide(&self, attestor: &str, facts: &Facts) -> Result<Grants, Refusal> {
        let matches = |number: usize| {
            let rule = self.rules.get(number);
            rule.is_some_and(|rule| rule.matches(facts))
        };
        let found = self.index.first(attestor, facts, matches);
        let Some((index, rule)) = found.and_then(|index| Some((index, self.rules.get(index)?)))
        else {
            return Err(Refusal::NoMatch);
        };
        self.fill(index, rule, facts)
            .map_err(|why| Refusal::Unfillable { rule: index, why })
    }

    /// Whether `facts` and `earlier` ones are the same to the rules of today: the same rule decides, it finds the
    /// same in every fact it names, and yields the same identities. What no rule asks for (a session's or a pod's
    /// name) may have changed.
    pub fn same(&self, attestor: &str, facts: &Facts, earlier: &Facts) -> bool {
        let (Ok(now), Ok(then)) = (self.decide(attestor, facts), self.decide(attestor, earlier))
        else {
            return false;
        };
        let named = self.rules.get(now.first.rule).into_iter();
        let mut named = named.flat_map(|rule| &rule.matches).map(|(name, _)| name);
        now == then && named.all(|name| facts.get(name) == earlier.get(name))
    }

    /// Each rule's template, and what it makes of `facts`, in order: for people who wonder.
    pub fn explain(&self, attestor: &str, facts: &Facts) -> Vec<(String, Outcome)> {
        let mut decided = false;
        let outcome = |(index, rule): (usize, &Compiled)| {
            if decided {
                return Outcome::NotAsked;
            }
            if let Some(why) = rule.mismatch(attestor, facts) {
                return Outcome::DoesNotMatch(why);
            }
            decided = true;
            match self.fill(index, rule, facts) {
                Ok(grants) => Outcome::Grants(grants.first.spiffe_id.to_string()),
                Err(why) => Outcome::Unfillable(why),
            }
        };
        let ids = self.rules.iter().map(|rule| rule.first.id.to_string());
        ids.zip(self.rules.iter().enumerate().map(outcome))
            .collect()
    }

    /// The longest life any rule gives a JWT-SVID.
    pub fn longest_jwt_ttl(&self) -> Duration {
        let lives = self.rules.iter().map(|rule| rule.jwt_ttl);
        lives.max().unwrap_or_default()
    }

    /// The longest life any rule gives an X.509-SVID.
    pub fn longest_ttl(&self) -> Duration {
        let lives = self.rules.iter().map(|rule| rule.ttl);
        lives.max().unwrap_or_default()
    }

    /// All of a rule's identities. One that can't be filled in makes it refuse, as a DNS name does: what a workload
    /// gets is what is written, or nothing.
    fn fill(&self, index: usize, rule: &Compiled, facts: &Facts) -> Result<Grants, String> {
        let first = self.fill_one((index, None), rule, &rule.first, facts)?;
        let mut further: Vec<Grant> = Vec::with_capacity(rule.also.len());
        for (number, identity) in rule.also.iter().enumerate() {
            let place = (index, Some(number));
            let grant = self
                .fill_one(place, rule, identity, facts)
                .map_err(|why| format!("also[{number}].{why}"))?;
            let id = &grant.spiffe_id;
            if first.spiffe_id == *id || further.iter().any(|other| other.spiffe_id == *id) {
                return Err(format!(
                    "also[{number}].id: {id} is another of its own identities"
                ));
            }
            further.push(grant);
        }
        Ok(Grants { first, further })
    }

    fn fill_one(
        &self,
        (index, also): (usize, Option<usize>),
        rule: &Compiled,
        identity: &Identity,
        facts: &Facts,
    ) -> Result<Grant, String> {
        let path = fill::path(&identity.id, facts).map_err(|why| format!("id: {why}"))?;
        let spiffe_id = SpiffeId::new(format!("spiffe://{}{path}", self.trust_domain))
            .map_err(|why| format!("id: {path:?} is not a SPIFFE ID path: {why}"))?;
        let mut dns = Vec::with_capacity(identity.dns.len());
        for template in &identity.dns {
            let name = fill::dns(template, facts).map_err(|why| format!("dns: {why}"))?;
            if self.own_dns.contains(&name) {
                return Err(format!("dns: {name} is the authority's own name"));
            }
            dns.push(name);
        }
        Ok(Grant {
            rule: index,
            also,
            spiffe_id,
            hint: identity.hint.clone(),
            ttl: rule.ttl,
            jwt_ttl: rule.jwt_ttl,
            dns,
            audiences: identity.audiences.clone(),
            scopes: identity.scopes.clone(),
        })
    }
}

impl Grants {
    /// What goes with the identity `id`; `None` where it is none of these.
    pub fn of(&self, id: &str) -> Option<&Grant> {
        std::iter::once(&self.first)
            .chain(&self.further)
            .find(|grant| grant.spiffe_id.to_string() == id)
    }
}

impl Grant {
    /// What gives it, as an operator finds it in the configuration.
    pub fn origin(&self) -> String {
        match self.also {
            None => format!("rules[{}]", self.rule),
            Some(also) => format!("rules[{}].also[{also}]", self.rule),
        }
    }

    /// Whether a JWT-SVID may name `audience`.
    pub fn allows_audience(&self, audience: &str) -> bool {
        let mut allowed = self.audiences.iter();
        allowed.any(|pattern| pattern == "*" || pattern == audience)
    }
}

impl Compiled {
    /// Whether this rule of the facts' attestor applies.
    fn matches(&self, facts: &Facts) -> bool {
        let mut all = self.matches.iter();
        all.all(|(name, glob)| facts.get(name).is_some_and(|value| glob.matches(value)))
    }

    /// Why this rule does not apply; `None` if it does.
    fn mismatch(&self, attestor: &str, facts: &Facts) -> Option<String> {
        if self.attestor != attestor {
            return Some(format!(
                "attestor is {:?}, and the facts are of {attestor:?}",
                self.attestor
            ));
        }
        self.matches.iter().find_map(|(name, glob)| {
            let Some(value) = facts.get(name) else {
                return Some(format!("fact {name:?} was not attested"));
            };
            (!glob.matches(value)).then(|| format!("{name} is {value:?}, expected {glob}"))
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grants(id) => write!(f, "grants {id}"),
            Self::Unfillable(why) => write!(f, "matches, and refuses: {why}"),
            Self::DoesNotMatch(why) => write!(f, "does not match: {why}"),
            Self::NotAsked => f.write_str("not asked: an earlier rule decided"),
        }
    }
}

impl From<&Rule> for Compiled {
    fn from(rule: &Rule) -> Self {
        Self {
            attestor: rule.attestor.clone(),
            matches: rule.r#match.clone().into_iter().collect(),
            ttl: rule.ttl.0,
            jwt_ttl: rule.jwt_ttl.0,
            first: Identity {
                id: rule.id.clone(),
                hint: None,
                dns: rule.dns.clone(),
                audiences: rule.audiences.clone(),
                scopes: rule.scopes.clone(),
            },
            also: rule.also.iter().map(Identity::from).collect(),
        }
    }
}

impl From<&Also> for Identity {
    fn from(also: &Also) -> Self {
        Self {
            id: also.id.clone(),
            hint: also.hint.clone(),
            dns: also.dns.clone(),
            audiences: also.audiences.clone(),
            scopes: also.scopes.clone(),
        }
    }
}

#[cfg(test)]
mod tests;

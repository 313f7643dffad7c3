//! What evidence proves, and what the rules make of it, for people who wonder.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::ExplainRequest;
use crate::{
    attest::wire::ErrorCode,
    authority::{
        denied::Denied,
        issue::Issuing,
        rules::{Facts, Grants, Outcome},
    },
    config::value::template::is_fact_name,
};

/// Most bytes of facts that are looked at: what an attestation record can hold.
const MAX_FACTS: usize = 4096;

/// What the rules make of facts, and how the facts were had.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExplainAnswer {
    /// What each attestor made of the evidence; none where facts were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attestors: Vec<OfAttestor>,
    /// What the evidence is bound to, if an attestor took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
    /// Whose facts; `None` where no attestor took the evidence.
    pub attestor: Option<String>,
    /// The facts.
    pub facts: BTreeMap<String, String>,
    /// What each rule makes of them, in order.
    pub rules: Vec<OfRule>,
    /// What they lead to; `None` where they lead to nothing.
    pub granted: Option<Granted>,
    /// Why nothing is issued for it all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

/// What an attestor made of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfAttestor {
    /// Its name.
    pub name: String,
    /// Why it did not take it; `None` if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What evidence is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// The renewal key whose SubjectPublicKeyInfo has this SHA-256 (base64url).
    Key(String),
    /// Nothing: whoever has it can present it, and the first key that does keeps it.
    Nothing,
}

/// What a rule makes of facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfRule {
    /// Which, counted from 0.
    pub rule: usize,
    /// Its template.
    pub id: String,
    /// What it makes of them.
    pub outcome: Outcome,
}

/// What facts lead to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// By which rule, counted from 0.
    pub rule: usize,
    /// The identity.
    pub spiffe_id: String,
    /// Life of a certificate, in seconds.
    pub ttl: u64,
    /// Life of a JWT-SVID, in seconds.
    pub jwt_ttl: u64,
    /// DNS names of a certificate.
    pub dns: Vec<String>,
    /// Audiences of tokens.
    pub audiences: Vec<String>,
    /// Scopes of tokens.
    pub scopes: Vec<String>,
    /// Further identities of the same workload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<GrantedAlso>,
}

/// A further identity. Lives are those of the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedAlso {
    /// The identity.
    pub spiffe_id: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// DNS names of a certificate.
    pub dns: Vec<String>,
    /// Audiences of tokens.
    pub audiences: Vec<String>,
    /// Scopes of tokens.
    pub scopes: Vec<String>,
    /// Why it is left out all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

impl Issuing {
    /// What the rules make of given facts, or of what evidence proves.
    pub(super) async fn explain(
        &self,
        asked: &ExplainRequest,
        now: SystemTime,
    ) -> Result<ExplainAnswer, Denied> {
        let bad = |why: &str| Denied::new(ErrorCode::BadRequest, why);
        let (mut attestors, mut bound) = (vec![], None);
        let of = match (&asked.attestor, &asked.evidence) {
            (Some(attestor), None) => {
                if !self.attestors.has(attestor) {
                    return Err(bad(&format!("there is no attestor {attestor:?}")));
                }
                check(&asked.facts)?;
                Some((attestor.clone(), asked.facts.clone()))
            }
            (None, Some(evidence)) if asked.facts.is_empty() => {
                let examined = self.attestors.examine(evidence, &*self.store, now).await;
                let verdicts = examined.verdicts.into_iter();
                attestors = verdicts
                    .map(|(name, refused)| OfAttestor { name, refused })
                    .collect();
                examined.taken.map(|taken| {
                    bound = Some(taken.bound_to.map_or(Bound::Nothing, Bound::Key));
                    (taken.proven.attestor, taken.proven.facts)
                })
            }
            _ => return Err(bad("expected `attestor` and `facts`, or `evidence` alone")),
        };
        let Some((attestor, facts)) = of else {
            return Ok(ExplainAnswer {
                attestors,
                bound,
                attestor: None,
                facts: Facts::new(),
                rules: vec![],
                granted: None,
                revoked: None,
            });
        };
        let grants = self.rules.decide(&attestor, &facts).ok();
        let revoked = grants.as_ref().and_then(|grants| {
            let provenance = self.provenance(&grants.first, &attestor, &facts, None);
            let refused = self.refuse_revoked(&provenance);
            refused.err().map(|why| why.message)
        });
        let rules = self
            .rules
            .explain(&attestor, &facts)
            .into_iter()
            .enumerate();
        Ok(ExplainAnswer {
            attestors,
            bound,
            rules: rules
                .map(|(rule, (id, outcome))| OfRule { rule, id, outcome })
                .collect(),
            granted: grants.map(|grants| self.granted_by(grants)),
            revoked,
            attestor: Some(attestor),
            facts,
        })
    }
}

impl Issuing {
    fn granted_by(&self, Grants { first, further }: Grants) -> Granted {
        let also = further.into_iter().map(|grant| {
            let spiffe_id = grant.spiffe_id.to_string();
            let revoked = self.refuse_revoked_id(&spiffe_id).err();
            GrantedAlso {
                spiffe_id,
                hint: grant.hint,
                dns: grant.dns,
                audiences: grant.audiences,
                scopes: grant.scopes,
                revoked: revoked.map(|why| why.message),
            }
        });
        Granted {
            rule: first.rule,
            spiffe_id: first.spiffe_id.to_string(),
            ttl: first.ttl.as_secs(),
            jwt_ttl: first.jwt_ttl.as_secs(),
            dns: first.dns,
            audiences: first.audiences,
            scopes: first.scopes,
            also: also.collect(),
        }
    }
}

/// Facts as an attestor could prove them.
fn check(facts: &Facts) -> Result<(), Denied> {
    let bytes: usize = facts
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let wrong = facts.keys().find(|name| !is_fact_name(name));
    match (wrong, bytes) {
        (Some(name), _) => Err(Denied::new(
            ErrorCode::BadRequest,
            format!("{name:?} is no fact; their names have lower-case letters, digits and \"_\""),
        )),
        (None, bytes) if bytes > MAX_FACTS => Err(Denied::new(
            ErrorCode::BadRequest,
            format!("the facts have {bytes} bytes; no attestor proves more than {MAX_FACTS}"),
        )),
        _ => Ok(()),
    }
}

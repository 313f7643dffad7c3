//! Facts that show a problem, as an operator would write them.

use std::{collections::BTreeMap, fmt};

use crate::config::authority::facts::{
    ACCOUNT, CLUSTER, CLUSTER_ACCOUNT, CLUSTER_REGION, NAMESPACE, PARTITION, ROLE, SERVICE_ACCOUNT,
};

/// Whom a rule gives an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The rule, counted from 0.
    pub rule: usize,
    /// Which of its further identities, counted from 0; `None` for its first.
    pub also: Option<usize>,
    /// Whose facts.
    pub attestor: String,
    /// The facts.
    pub facts: BTreeMap<String, String>,
}

/// A value for `fact`, one of two that differ. Later variants are less telling, and likelier to be no other
/// rule's.
pub(super) fn sample(fact: &str, which: usize, variant: usize) -> &'static str {
    let pair = match (fact, variant) {
        (ACCOUNT | CLUSTER_ACCOUNT, _) => ["111111111111", "222222222222"],
        (PARTITION, _) => ["aws", "aws-cn"],
        (CLUSTER_REGION, _) => ["eu-west-1", "us-east-1"],
        (NAMESPACE, 0) => ["shop", "blog"],
        (CLUSTER, 0) => ["blue", "green"],
        (ROLE | SERVICE_ACCOUNT, 0) => ["orders", "payments"],
        (_, 0) => ["x", "y"],
        (_, 1) => ["u7", "v7"],
        _ => ["q-q0q", "z-z0z"],
    };
    let [one, other] = pair;
    if which == 0 { one } else { other }
}

impl Example {
    /// What gives it, as an operator finds it.
    pub(super) fn origin(&self) -> String {
        match self.also {
            None => format!("rules[{}]", self.rule),
            Some(also) => format!("rules[{}].also[{also}]", self.rule),
        }
    }
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts: Vec<String> = self
            .facts
            .iter()
            .map(|(fact, value)| format!("{fact}: {value}"))
            .collect();
        write!(f, "{} with {{{}}}", self.attestor, facts.join(", "))
    }
}

//! A rule, as far as it matters to whom its identities go.

use std::collections::BTreeMap;

use super::example::sample;
use crate::config::{
    authority::{
        Attestor, Rule,
        facts::{
            self, ACCOUNT, CLUSTER, CLUSTER_ACCOUNT, CLUSTER_ARN, CLUSTER_REGION, NAMESPACE,
            PARTITION,
        },
    },
    value::{Glob, template::Piece},
};

/// One rule.
#[derive(Debug)]
pub(super) struct Side<'a> {
    /// Which, counted from 0.
    pub(super) number: usize,
    pub(super) rule: &'a Rule,
    pub(super) realm: Realm<'a>,
    /// The facts which tell two accounts, clusters or namespaces of the realm apart.
    pub(super) scope: Vec<&'static str>,
    /// What holds of the facts it decides on; nothing of those that are not here.
    pub(super) demands: BTreeMap<&'a str, Demand<'a>>,
    /// Facts of which the attestor admits a few values only, and which.
    admitted: BTreeMap<&'static str, Vec<&'a str>>,
}

/// Within which facts of one name mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Realm<'a> {
    /// AWS, by whichever attestor.
    Aws,
    /// A cluster, by its issuer.
    Cluster(&'a str),
    /// What one attestor says, by its name.
    Attestor(&'a str),
}

/// What a rule demands of a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Demand<'a> {
    Is(String),
    Like(&'a Glob),
}

impl<'a> Side<'a> {
    /// `None` for a rule that decides nothing: its attestor is unknown or has no such account.
    pub(super) fn new(
        number: usize,
        rule: &'a Rule,
        attestors: &'a BTreeMap<String, Attestor>,
    ) -> Option<Self> {
        let attestor = attestors.get(&rule.attestor)?;
        let mut side = Self {
            number,
            rule,
            realm: Realm::of(&rule.attestor, attestor),
            scope: vec![],
            demands: rule
                .r#match
                .iter()
                .map(|(fact, glob)| (&**fact, Demand::of(glob)))
                .collect(),
            admitted: BTreeMap::new(),
        };
        match attestor {
            Attestor::JoinToken | Attestor::Oidc(_) => {}
            Attestor::Kubernetes(_) => side.scope.push(NAMESPACE),
            Attestor::AwsWebIdentity(aws) => {
                side.admits(PARTITION, &aws.partitions)?;
                side.admits(ACCOUNT, aws.issuers.keys())?;
                if side.named().any(|fact| facts::OF_PODS.contains(&fact)) {
                    side.of_pods();
                }
            }
            Attestor::AwsCallerIdentity(aws) => {
                side.admits(PARTITION, &aws.partitions)?;
                side.admits(ACCOUNT, &aws.accounts)?;
            }
        }
        Some(side)
    }

    /// What it demands of a fact.
    pub(super) fn demand(&self, fact: &str) -> Option<&Demand<'a>> {
        self.demands.get(fact)
    }

    /// Whether whoever it decides on has this fact.
    pub(super) fn proves(&self, fact: &str) -> bool {
        self.demands.contains_key(fact) || self.named().any(|named| named == fact)
    }

    /// Values that `fact` may have, as far as the configuration says; the first ones differ.
    pub(super) fn values(&self, fact: &str, variant: usize) -> [String; 2] {
        let fits = |value: &str| self.demand(fact).is_none_or(|demand| demand.admits(value));
        let admitted = self.admitted.get(fact).into_iter().flatten();
        let mut admitted = admitted.filter(|value| fits(value));
        if let Some(first) = admitted.next() {
            return [*first, *admitted.next().unwrap_or(first)].map(str::to_owned);
        }
        match self.demand(fact) {
            Some(Demand::Is(value)) => [value.clone(), value.clone()],
            Some(Demand::Like(glob)) if glob.as_str() != "*" => {
                ["x", "y"].map(|some| glob.as_str().replace('*', some))
            }
            _ => [0, 1].map(|which| sample(fact, which, variant).to_owned()),
        }
    }

    /// The facts of its templates.
    fn in_templates(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        // Of all its identities: one that can't be filled in makes the rule refuse.
        let templates = self.rule.templates();
        let pieces = templates.flat_map(|(_, id, dns)| {
            let labels = dns.iter().flat_map(|name| name.labels());
            id.segments().iter().chain(labels)
        });
        let pieces: Vec<&'a Piece> = pieces.collect();
        pieces.into_iter().filter_map(|piece| piece.fact.as_deref())
    }

    /// The facts it names.
    fn named(&self) -> impl Iterator<Item = &'a str> {
        self.rule
            .r#match
            .keys()
            .map(String::as_str)
            .chain(self.in_templates())
    }

    /// `fact` tells scopes apart, and is one of `admitted`. `None` if the rule demands none of them.
    fn admits(
        &mut self,
        fact: &'static str,
        admitted: impl IntoIterator<Item = &'a String>,
    ) -> Option<()> {
        self.scope.push(fact);
        let admitted: Vec<&str> = admitted.into_iter().map(String::as_str).collect();
        let fits = |value: &&&str| self.demand(fact).is_none_or(|demand| demand.admits(value));
        let mut fitting = admitted.iter().filter(fits);
        let first = *fitting.next()?;
        if fitting.next().is_none() {
            self.demands.insert(fact, Demand::Is(first.to_owned()));
        }
        self.admitted.insert(fact, admitted);
        Some(())
    }

    fn of_pods(&mut self) {
        self.scope
            .extend([CLUSTER, CLUSTER_REGION, CLUSTER_ACCOUNT, NAMESPACE]);
        let Some(Demand::Is(arn)) = self.demand(CLUSTER_ARN) else {
            return;
        };
        let arn = arn.clone();
        // arn:PARTITION:eks:REGION:ACCOUNT:cluster/NAME
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let [_, _, _, region, account, cluster] = parts.as_slice() else {
            return;
        };
        let name = cluster.strip_prefix("cluster/").unwrap_or(cluster);
        for (fact, value) in [
            (CLUSTER, name),
            (CLUSTER_REGION, *region),
            (CLUSTER_ACCOUNT, *account),
        ] {
            self.demands
                .entry(fact)
                .or_insert_with(|| Demand::Is(value.to_owned()));
        }
    }
}

impl<'a> Realm<'a> {
    fn of(name: &'a str, attestor: &'a Attestor) -> Self {
        match attestor {
            Attestor::AwsWebIdentity(_) | Attestor::AwsCallerIdentity(_) => Self::Aws,
            Attestor::Kubernetes(cluster) => Self::Cluster(&cluster.issuer),
            Attestor::Oidc(_) | Attestor::JoinToken => Self::Attestor(name),
        }
    }
}

impl<'a> Demand<'a> {
    fn of(glob: &'a Glob) -> Self {
        match glob.literal() {
            Some(value) => Self::Is(value.to_owned()),
            None => Self::Like(glob),
        }
    }

    pub(super) fn admits(&self, value: &str) -> bool {
        match self {
            Self::Is(only) => only == value,
            Self::Like(glob) => glob.matches(value),
        }
    }

    /// Whether all it admits is of `glob`. `false` may also mean that this is not obvious.
    pub(super) fn is_within(&self, glob: &Glob) -> bool {
        match self {
            Self::Is(value) => glob.matches(value),
            Self::Like(narrower) => glob.covers(narrower),
        }
    }
}

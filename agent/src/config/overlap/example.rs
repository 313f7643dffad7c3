//! Facts that show a problem, as an operator would write them.

use std::{collections::BTreeMap, fmt};

use super::{Entry, Known, Why, pattern::Pattern, side::Side};
use crate::config::{
    authority::{
        Rule,
        facts::{
            ACCOUNT, CLUSTER, CLUSTER_ACCOUNT, CLUSTER_REGION, NAMESPACE, PARTITION, ROLE,
            SERVICE_ACCOUNT,
        },
    },
    value::template::Piece,
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

/// Less telling ones each: see [`sample`].
const VARIANTS: usize = 3;

/// Facts for both sides that come out alike, and as what.
pub(super) fn of<'a>(
    one: &Entry<'a>,
    other: &Entry<'a>,
    known: &[Known<'a>; 2],
    why: &Why,
    sides: &[Side<'_>],
) -> Option<(String, [Example; 2])> {
    // Where two facts change places, one workload with both alike would be the example: so each segment in turn is
    // another text than it is at first.
    let others = || std::iter::once(None).chain((0..one.pieces.len()).map(Some));
    let all = || {
        others().flat_map(|at| {
            (0..VARIANTS).filter_map(move |variant| make(one, other, known, why, variant, at))
        })
    };
    let are_two = |(_, [one, other]): &(String, [Example; 2])| {
        one.attestor != other.attestor || one.facts != other.facts
    };
    // No earlier rule takes either, if that is easily found: it can be tried with `explain`.
    let are_asked = |(_, examples): &(String, [Example; 2])| {
        examples.iter().all(|example| {
            let mut deciding = sides.iter().filter(|side| example.fits(side.rule));
            deciding
                .next()
                .is_some_and(|side| side.number == example.rule)
        })
    };
    all()
        .find(|found| are_two(found) && are_asked(found))
        .or_else(|| all().find(are_two))
        .or_else(|| all().next())
}

/// `at` is the segment that is another text than its first.
fn make<'a>(
    one: &Entry<'a>,
    other: &Entry<'a>,
    known: &[Known<'a>; 2],
    why: &Why,
    variant: usize,
    at: Option<usize>,
) -> Option<(String, [Example; 2])> {
    let mut facts: [BTreeMap<String, String>; 2] = Default::default();
    let mut parts = Vec::new();
    for (index, (mine, theirs)) in one.pieces.iter().zip(&other.pieces).enumerate() {
        let text = text([(one, mine), (other, theirs)], variant, at == Some(index))?;
        for (facts, (piece, _)) in facts.iter_mut().zip([mine, theirs]) {
            if let Some(fact) = &piece.fact {
                facts.insert(fact.clone(), piece.fact_in(&text)?);
            }
        }
        parts.push(text);
    }
    let differs = match why {
        Why::Fact(fact) => Some(*fact),
        Why::Workload(fact) => Some(&**fact),
        Why::Kind | Why::Attestor => None,
    };
    for (facts, known) in facts.iter_mut().zip(known) {
        let fixed = known.fixed.iter();
        facts.extend(fixed.map(|(fact, value)| ((*fact).to_owned(), value.clone())));
    }
    let [mine, theirs] = &mut facts;
    let [known_mine, known_theirs] = known;
    known_mine.complete(mine, differs, theirs, variant);
    known_theirs.complete(theirs, differs, mine, variant);
    let [mine, theirs] = facts;
    let example = |entry: &Entry<'_>, facts| Example {
        rule: entry.side.number,
        also: entry.also,
        attestor: entry.side.rule.attestor.clone(),
        facts,
    };
    let identity = one.identity(&parts);
    Some((identity, [example(one, mine), example(other, theirs)]))
}

/// What a segment of both comes out as: a telling value if both admit it, else whatever both do; or `another` than that, if
/// there is one.
fn text(
    both: [(&Entry<'_>, &(&Piece, Pattern)); 2],
    variant: usize,
    another: bool,
) -> Option<String> {
    let [(_, (_, pattern)), (_, (_, their_pattern))] = both;
    let mut telling = both
        .into_iter()
        .filter_map(|(entry, (piece, _))| {
            let values = entry.side.values(piece.fact.as_deref()?, variant);
            Some(values.map(|value| format!("{}{value}{}", piece.prefix, piece.suffix)))
        })
        .flatten()
        .filter(|text| pattern.contains(text) && their_pattern.contains(text));
    let first = telling.next().or_else(|| pattern.meet(their_pattern))?;
    if !another {
        return Some(first);
    }
    let second = telling
        .find(|text| *text != first)
        .or_else(|| pattern.meet_again(their_pattern, &first));
    Some(second.unwrap_or(first))
}

impl Known<'_> {
    /// Adds the facts that the template does not say. `differs` is unlike that of the other side, if it can be.
    fn complete(
        &self,
        facts: &mut BTreeMap<String, String>,
        differs: Option<&str>,
        theirs: &BTreeMap<String, String>,
        variant: usize,
    ) {
        let demanded = self.side.demands.keys().copied();
        // Where no one fact differs, what a pod has and a role has not does.
        let scope = self.side.scope.iter().copied();
        let scope = scope.filter(|_| differs.is_none());
        for fact in demanded.chain(differs).chain(scope) {
            let [first, second] = self.side.values(fact, variant);
            let is_taken = differs == Some(fact) && theirs.get(fact) == Some(&first);
            facts
                .entry(fact.to_owned())
                .or_insert(if is_taken { second } else { first });
        }
    }
}

impl Example {
    fn fits(&self, rule: &Rule) -> bool {
        rule.attestor == self.attestor
            && rule.r#match.iter().all(|(fact, glob)| {
                let value = self.facts.get(fact);
                value.is_some_and(|value| glob.matches(value))
            })
    }

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

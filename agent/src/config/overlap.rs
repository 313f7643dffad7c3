//! Which rules could give one identity to two accounts, clusters or namespaces (S18). Pure; why it is decided as
//! it is: `docs/adr/0013-one-identity-one-scope.md`.
//!
//! Two identities are equal where their templates come out alike segment by segment. So for every pair of
//! rules (and each rule with itself) the segments are unified, under what `match` demands; what follows
//! from that about the facts on either side says whether they are of one scope:
//!
//! ```text
//! rules[0]  /{role}       account: "1…1"     ┐ alike if role = role; nothing makes the accounts equal:
//! rules[1]  /{role}       account: "2…2"     ┘ refused
//! rules[0]  /{account}/x  account: "*"       ┐ alike if account = account: one scope
//! rules[1]  /{account}/x  account: "*"       ┘
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    authority::{
        Attestor, Rule,
        facts::{ACCOUNT, CLUSTER, CLUSTER_ACCOUNT, CLUSTER_REGION, NAMESPACE, PARTITION},
    },
    value::template::{Piece, is_label_character, is_path_character},
};

mod example;
mod pattern;
mod side;
#[cfg(test)]
mod tests;

pub use example::Example;
use pattern::Pattern;
use side::{Demand, Side};

/// Most that are reported: a template that is wrong is often wrong in many rules.
const MOST: usize = 20;

/// Two sets of facts that would get one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The later of the two rules, counted from 0.
    pub rule: usize,
    /// Which of its further identities, counted from 0; `None` for its first.
    pub also: Option<usize>,
    /// Which of the identity's DNS names; `None` for its SPIFFE ID.
    pub dns: Option<usize>,
    /// What both would get.
    pub identity: String,
    /// One set, which an earlier rule, or the same, is for.
    pub one: Example,
    /// The other.
    pub other: Example,
    why: Why,
}

/// How the two differ.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// In a fact that tells scopes apart.
    Fact(&'static str),
    /// One is of the pod, the other of the role or account.
    Kind,
    /// They are of two attestors that have nothing to do with each other.
    Attestor,
    /// In another fact, within one scope, and at least one is not written out.
    Workload(String),
}

/// A template of a rule.
#[derive(Debug)]
struct Entry<'a> {
    side: &'a Side<'a>,
    /// `None` for the first identity, or which of the further ones.
    also: Option<usize>,
    /// `None` for the SPIFFE ID, or which of the DNS names.
    dns: Option<usize>,
    /// Segments, or labels from the last to the first.
    pieces: Vec<(&'a Piece, Pattern)>,
    /// What everything that comes of it begins with.
    prefix: String,
}

/// What is known of one side where two templates come out alike.
struct Known<'a> {
    side: &'a Side<'a>,
    /// Facts that can have one value only.
    fixed: BTreeMap<&'a str, String>,
}

/// Every such pair, at most one for a template and twenty in all.
pub fn find(rules: &[Rule], attestors: &BTreeMap<String, Attestor>) -> Vec<Overlap> {
    let sides = rules.iter().enumerate();
    let sides: Vec<Side<'_>> = sides
        .filter_map(|(number, rule)| Side::new(number, rule, attestors))
        .collect();
    let ids = sides.iter().flat_map(Entry::ids).collect();
    let names = sides.iter().flat_map(Entry::names).collect();
    let mut found = among(ids, &sides);
    found.extend(among(names, &sides));
    found.sort_by_key(|found| (found.rule, found.also, found.dns));
    found.truncate(MOST);
    found
}

/// The pairs among templates of one kind.
fn among<'a>(mut entries: Vec<Entry<'a>>, sides: &'a [Side<'a>]) -> Vec<Overlap> {
    // Two come out alike only if what one begins with, the other begins with too; sorted, these follow it.
    entries.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    let mut reported = BTreeSet::new();
    let mut found = Vec::new();
    for (at, one) in entries.iter().enumerate() {
        let rest = entries.iter().skip(at);
        for other in rest.take_while(|other| other.prefix.starts_with(&one.prefix)) {
            let (one, other) = if one.place() <= other.place() {
                (one, other)
            } else {
                (other, one)
            };
            if reported.contains(&other.place()) {
                continue;
            }
            if let Some(overlap) = overlap(one, other, sides) {
                reported.insert(other.place());
                found.push(overlap);
                if found.len() == MOST {
                    return found;
                }
            }
        }
    }
    found
}

fn overlap<'a>(one: &Entry<'a>, other: &Entry<'a>, sides: &'a [Side<'a>]) -> Option<Overlap> {
    let same_template = one.place() == other.place();
    let same_rule = one.side.number == other.side.number;
    // What one rule writes is meant for every scope it matches, but not for one workload's first identity and
    // another's further one.
    let shared = one.side.rule.shared && other.side.rule.shared;
    if (shared && (same_template || !same_rule)) || one.pieces.len() != other.pieces.len() {
        return None;
    }
    let pairs = || one.pieces.iter().zip(&other.pieces);
    if !pairs().all(|((_, one), (_, other))| one.meet(other).is_some()) {
        return None;
    }
    let known = [Known::new(one, other)?, Known::new(other, one)?];
    // Whether `fact` is equal on both sides.
    let equal = |fact: &str| {
        let [one, other] = &known;
        let fixed = (one.fixed.get(fact), other.fixed.get(fact));
        matches!(fixed, (Some(one), Some(other)) if one == other)
            || pairs()
                .any(|((one, _), (other, _))| one.fact.as_deref() == Some(fact) && one == other)
    };
    let differs = |fact: &&&'static str| !shared && !equal(fact);
    let why = if one.side.realm != other.side.realm {
        Why::Attestor
    } else if one.side.scope != other.side.scope {
        Why::Kind
    } else if let Some(fact) = one.side.scope.iter().find(differs) {
        Why::Fact(fact)
    } else {
        // One scope. The operator may write two facts one identity, or one; but not write one that
        // a template makes of other facts as well.
        let named = || {
            pairs()
                .flat_map(|((one, _), (other, _))| [&one.fact, &other.fact])
                .flatten()
        };
        if one.dns.is_some() || same_template || named().next().is_none() {
            return None;
        }
        Why::Workload(named().find(|fact| !equal(fact))?.clone())
    };
    if known.iter().any(|known| known.is_never_asked(sides)) {
        return None;
    }
    let (identity, [first, second]) = example::of(one, other, &known, &why, sides)?;
    Some(Overlap {
        rule: other.side.number,
        also: other.also,
        dns: other.dns,
        identity,
        one: first,
        other: second,
        why,
    })
}

impl<'a> Entry<'a> {
    /// The SPIFFE IDs of a rule.
    fn ids(side: &'a Side<'a>) -> impl Iterator<Item = Self> {
        side.rule.templates().filter_map(move |(also, id, _)| {
            let segments = id.segments().iter().collect();
            Self::new(side, (also, None), segments, is_path_character)
        })
    }

    /// The DNS names of a rule.
    fn names(side: &'a Side<'a>) -> impl Iterator<Item = Self> {
        side.rule.templates().flat_map(move |(also, _, dns)| {
            dns.iter().enumerate().filter_map(move |(index, name)| {
                let labels = name.labels().iter().rev().collect();
                Self::new(side, (also, Some(index)), labels, is_label_character)
            })
        })
    }

    /// `None` if it can't be filled.
    fn new(
        side: &'a Side<'a>,
        (also, dns): (Option<usize>, Option<usize>),
        pieces: Vec<&'a Piece>,
        allowed: fn(char) -> bool,
    ) -> Option<Self> {
        let pattern = |piece: &'a Piece| {
            let demand = piece.fact.as_deref().and_then(|fact| side.demand(fact));
            (piece, Pattern::new(piece, demand))
        };
        let pieces: Vec<(&Piece, Pattern)> = pieces.into_iter().map(pattern).collect();
        let mut prefix = String::new();
        for (_, pattern) in &pieces {
            prefix.push_str(&pattern.prefix());
            if pattern.constant().is_none() {
                break;
            }
            prefix.push('/');
        }
        let possible = pieces
            .iter()
            .all(|(_, pattern)| pattern.is_possible(allowed));
        possible.then_some(Self {
            side,
            also,
            dns,
            pieces,
            prefix,
        })
    }

    fn place(&self) -> (usize, Option<usize>, Option<usize>) {
        (self.side.number, self.also, self.dns)
    }

    fn identity(&self, parts: &[String]) -> String {
        match self.dns {
            None => format!("/{}", parts.join("/")),
            Some(_) => parts
                .iter()
                .rev()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join("."),
        }
    }
}

impl<'a> Known<'a> {
    /// What follows for `of` from coming out like `like`. `None` if that can't be.
    fn new(of: &Entry<'a>, like: &Entry<'_>) -> Option<Self> {
        let side = of.side;
        let mut fixed = BTreeMap::new();
        for (fact, demand) in &side.demands {
            if let Demand::Is(value) = demand {
                fixed.insert(*fact, value.clone());
            }
        }
        for ((piece, _), (_, pattern)) in of.pieces.iter().zip(&like.pieces) {
            if let (Some(fact), Some(text)) = (&piece.fact, pattern.constant()) {
                fixed.insert(fact, piece.fact_in(&text)?);
            }
        }
        Some(Self { side, fixed })
    }

    /// Whether an earlier rule decides in all these cases.
    fn is_never_asked(&self, sides: &[Side<'_>]) -> bool {
        let demand = |fact: &str| {
            let fixed = self.fixed.get(fact).cloned().map(Demand::Is);
            fixed.or_else(|| self.side.demand(fact).cloned())
        };
        let decides = |earlier: &&Side<'_>| {
            let mut demands = earlier.rule.r#match.iter();
            earlier.rule.attestor == self.side.rule.attestor
                && demands.all(|(fact, glob)| match demand(fact) {
                    Some(demand) => demand.is_within(glob),
                    None => glob.as_str() == "*" && self.side.proves(fact),
                })
        };
        let mut earlier = sides
            .iter()
            .take_while(|side| side.number < self.side.number);
        earlier.any(|side| decides(&side))
    }
}

impl Piece {
    /// The fact's value where the piece came out as `text`.
    fn fact_in(&self, text: &str) -> Option<String> {
        let value = text
            .strip_prefix(&self.prefix)?
            .strip_suffix(&self.suffix)?;
        Some(value.to_owned())
    }
}

impl Overlap {
    /// The field of the rule that is reported, such as `id` or `also[0].dns[1]`.
    pub fn field(&self) -> String {
        let also = self
            .also
            .map(|also| format!("also[{also}]."))
            .unwrap_or_default();
        match self.dns {
            None => format!("{also}id"),
            Some(dns) => format!("{also}dns[{dns}]"),
        }
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, other) = (&self.one, &self.other);
        let what = if self.dns.is_none() {
            "SPIFFE ID"
        } else {
            "DNS name"
        };
        let to_two = match &self.why {
            Why::Fact(ACCOUNT) => "two accounts",
            Why::Fact(PARTITION) => "two partitions",
            Why::Fact(NAMESPACE) => "two namespaces",
            Why::Fact(_) => "two clusters",
            Why::Kind => "pods and a whole account",
            Why::Attestor => "what two attestors prove",
            Why::Workload(_) => "two workloads",
        };
        write!(
            f,
            "one {what} for {to_two}: {} for {one} ({}) and for {other} ({}); ",
            self.identity,
            one.origin(),
            other.origin()
        )?;
        let rules = match one.rule == other.rule {
            true => "the rule",
            false => "both rules",
        };
        let templates = match (one.rule, one.also) == (other.rule, other.also) {
            true => "the template",
            false => "both templates",
        };
        match &self.why {
            Why::Fact(CLUSTER | CLUSTER_REGION | CLUSTER_ACCOUNT) => write!(
                f,
                "match one cluster_arn, or put {{{CLUSTER}}}, {{{CLUSTER_REGION}}} and {{{CLUSTER_ACCOUNT}}} into {templates}"
            )?,
            Why::Fact(fact) if one.rule == other.rule => {
                write!(f, "match one {fact}, or put {{{fact}}} into {templates}")?;
            }
            Why::Fact(fact) => write!(
                f,
                "put {{{fact}}} into {templates}, or let them differ in a segment"
            )?,
            Why::Kind | Why::Attestor => {
                f.write_str(
                    "let the templates differ, in a first segment of their own for example",
                )?;
            }
            Why::Workload(fact) => write!(
                f,
                "let the templates differ in a segment, or exclude one by what is matched of {fact}"
            )?,
        }
        if one.rule == other.rule && matches!(self.why, Why::Workload(_)) {
            // Whom a rule is shared by are scopes.
            return Ok(());
        }
        write!(
            f,
            "; write shared: true in {rules} if one is meant for both"
        )
    }
}

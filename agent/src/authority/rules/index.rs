//! Which rules may match some facts, without asking every rule.
//!
//! A rule that demands a literal value (`account: "123456789012"`), or a beginning (`role: svc-*`), is filed under
//! it, or under the rarest of them where it demands several; one that demands neither is asked always. Facts
//! then lead to the few rules filed under their values.

use std::collections::{BTreeSet, HashMap};

use super::{Compiled, Facts};

/// Rules by attestor and by what they demand.
#[derive(Debug, Default)]
pub(super) struct Index(HashMap<String, OfAttestor>);

#[derive(Debug, Default)]
struct OfAttestor {
    facts: HashMap<String, OfFact>,
    /// Rules that are asked whatever the facts are.
    always: Vec<usize>,
}

#[derive(Debug, Default)]
struct OfFact {
    literals: HashMap<String, Vec<usize>>,
    prefixes: HashMap<String, Vec<usize>>,
    /// The lengths of the prefixes.
    lengths: BTreeSet<usize>,
}

/// What a rule can be filed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key<'a> {
    Literal(&'a str, &'a str),
    Prefix(&'a str, &'a str),
}

impl Index {
    pub(super) fn new(rules: &[Compiled]) -> Self {
        let mut filed_under = HashMap::<(&str, Key<'_>), usize>::new();
        for rule in rules {
            for key in keys(rule) {
                *filed_under.entry((&rule.attestor, key)).or_default() += 1;
            }
        }
        let mut index = Self::default();
        for (number, rule) in rules.iter().enumerate() {
            let rarest =
                keys(rule).min_by_key(|key| filed_under.get(&(rule.attestor.as_str(), *key)));
            let of = index.0.entry(rule.attestor.clone()).or_default();
            match rarest {
                None => of.always.push(number),
                Some(Key::Literal(fact, value)) => {
                    let of = of.facts.entry(fact.to_owned()).or_default();
                    of.literals
                        .entry(value.to_owned())
                        .or_default()
                        .push(number);
                }
                Some(Key::Prefix(fact, start)) => {
                    let of = of.facts.entry(fact.to_owned()).or_default();
                    of.prefixes
                        .entry(start.to_owned())
                        .or_default()
                        .push(number);
                    of.lengths.insert(start.len());
                }
            }
        }
        index
    }

    /// The first rule, by its number, for which `matches` holds. Only rules that can match are asked.
    pub(super) fn first(
        &self,
        attestor: &str,
        facts: &Facts,
        matches: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let of = self.0.get(attestor)?;
        let mut best: Option<usize> = None;
        // Numbers rise in each list, so one that is past the best ends it.
        let mut ask = |numbers: &[usize]| {
            let mut better = numbers
                .iter()
                .copied()
                .take_while(|number| best.is_none_or(|best| *number < best));
            if let Some(number) = better.find(|number| matches(*number)) {
                best = Some(number);
            }
        };
        for (fact, value) in facts {
            let Some(of) = of.facts.get(fact) else {
                continue;
            };
            if let Some(numbers) = of.literals.get(value) {
                ask(numbers);
            }
            for length in of.lengths.range(..=value.len()) {
                if let Some(numbers) = value
                    .get(..*length)
                    .and_then(|start| of.prefixes.get(start))
                {
                    ask(numbers);
                }
            }
        }
        ask(&of.always);
        best
    }
}

fn keys(rule: &Compiled) -> impl Iterator<Item = Key<'_>> {
    rule.matches
        .iter()
        .filter_map(|(fact, glob)| match (glob.literal(), glob.prefix()) {
            (Some(value), _) => Some(Key::Literal(fact, value)),
            (None, "") => None,
            (None, start) => Some(Key::Prefix(fact, start)),
        })
}

//! `*` stands for any characters, none included; everything else for itself.

use std::{borrow::Cow, fmt};

use super::text::{Kind, reads_from_text};

/// A pattern for a fact's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

/// Longest pattern, in bytes: above any ARN, and far below what would make matching slow.
const MAX: usize = 512;

reads_from_text!(Glob);

impl Kind for Glob {
    type Value = Self;
    const NAME: &'static str = "Glob";
    const EXPECTED: &'static str =
        "a pattern for a fact, such as orders or svc-*, where * is any characters";

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        match (1..=MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("it has 1 to {MAX} bytes, and no control characters").into()),
        }
    }
}

impl Glob {
    /// The text it was read from.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one value it matches, if it has no `*`.
    pub fn literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    /// What everything it matches begins with.
    pub fn prefix(&self) -> &str {
        self.0.split_once('*').map_or(&self.0, |(start, _)| start)
    }

    /// Whether it matches all that `other` matches. `false` may also mean that this is not obvious.
    pub(in crate::config) fn covers(&self, other: &Self) -> bool {
        // A star of ours may stand for one of theirs, and for whatever that stands for.
        self.matches(&other.0)
    }

    /// Whether `value` is of this pattern. Linear in their product at worst, without recursion.
    pub fn matches(&self, value: &str) -> bool {
        let Some((start, rest)) = self.0.split_once('*') else {
            return self.0 == value;
        };
        let Some(mut value) = value.strip_prefix(start) else {
            return false;
        };
        // Every piece between stars at its first place: if that fails, no other place helps.
        let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
        for piece in middle.split('*') {
            match value.find(piece) {
                Some(at) => value = value.get(at + piece.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        value.ends_with(end)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_any_characters_and_the_rest_is_literal() {
        for (pattern, value, expected) in [
            ("shop", "shop", true),
            ("shop", "shopper", false),
            ("svc-*", "svc-orders", true),
            ("svc-*", "svc-", true),
            ("svc-*", "svc", false),
            ("*-prod", "orders-prod", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXc", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
            ("a.c", "abc", false),
            ("[ab]", "a", false),
        ] {
            assert_eq!(
                Glob(pattern.into()).matches(value),
                expected,
                "{pattern} {value}"
            );
        }
    }

    /// The definition, exponential and plain.
    fn slow(pattern: &[u8], value: &[u8]) -> bool {
        match (pattern.split_first(), value.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=value.len()).any(|at| slow(rest, &value[at..])),
            (Some((p, pattern)), Some((v, value))) => p == v && slow(pattern, value),
            _ => false,
        }
    }

    #[test]
    fn what_a_pattern_is_made_of() {
        let glob = |text: &str| text.parse::<Glob>().unwrap();
        assert_eq!(glob("orders").literal(), Some("orders"));
        assert_eq!(
            (glob("svc-*-x").literal(), glob("svc-*-x").prefix()),
            (None, "svc-")
        );
        assert!("".parse::<Glob>().is_err() && "a\nb".parse::<Glob>().is_err());
        assert!("x".repeat(MAX + 1).parse::<Glob>().is_err());
    }

    proptest! {
        #[test]
        fn what_covers_another_matches_all_of_it(
            ours in "[ab*]{1,5}", theirs in "[ab*]{1,5}", value in "[ab]{0,8}",
        ) {
            let (ours, theirs) = (Glob(ours), Glob(theirs));
            let both = ours.covers(&theirs) && theirs.matches(&value);
            prop_assert!(!both || ours.matches(&value), "{} {} {}", ours, theirs, value);
        }

        #[test]
        fn agrees_with_the_definition(pattern in "[ab*]{0,6}", value in "[ab]{0,8}") {
            prop_assert_eq!(
                Glob(pattern.clone()).matches(&value),
                slow(pattern.as_bytes(), value.as_bytes())
            );
        }
    }
}

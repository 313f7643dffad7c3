//! `*` stands for any characters, none included; everything else for itself.

use std::fmt;

/// A pattern for a fact's value.
#[derive(Debug)]
pub(super) struct Glob(String);

impl Glob {
    pub(super) fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// Whether `value` is of this pattern. Linear in their product at worst, without recursion.
    pub(super) fn matches(&self, value: &str) -> bool {
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
                Glob::new(pattern).matches(value),
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

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*]{0,6}", value in "[ab]{0,8}") {
            prop_assert_eq!(
                Glob::new(&pattern).matches(&value),
                slow(pattern.as_bytes(), value.as_bytes())
            );
        }
    }
}

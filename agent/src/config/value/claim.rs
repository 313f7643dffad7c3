//! What a claim must say.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::Value;

/// A value of a claim. Numbers are equal where they are the same number, `1` and `1.0` too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClaimValue {
    /// A string.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Another number, by its bits: it is never NaN.
    Fraction(u64),
}

/// Values of which a claim must have one: alone, or in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnyOf(pub Vec<ClaimValue>);

/// Beyond this two whole numbers may be the same as a fraction.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

impl ClaimValue {
    /// What a claim of this value is compared as; `None` for one that equals nothing that can be wanted.
    pub fn of(claim: &Value) -> Option<Self> {
        match claim {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Number(number) if number.is_f64() => number.as_f64().and_then(Self::of_f64),
            Value::Number(number) => number.as_i64().map(Self::Integer),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Whether `claim` is this value.
    pub fn equals(&self, claim: &Value) -> bool {
        match (self, claim) {
            (Self::Text(wanted), Value::String(text)) => wanted == text,
            (Self::Text(_), _) | (_, Value::String(_)) => false,
            _ => Self::of(claim).as_ref() == Some(self),
        }
    }

    fn of_f64(value: f64) -> Option<Self> {
        let whole = value.fract() == 0.0;
        match value.abs() < MAX_EXACT {
            // Exact: it is whole, and below 2^53.
            #[expect(
                clippy::cast_possible_truncation,
                reason = "it is whole, and below 2^53"
            )]
            true if whole => Some(Self::Integer(value as i64)),
            true => Some(Self::Fraction(value.to_bits())),
            false => None,
        }
    }
}

impl fmt::Display for ClaimValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Fraction(bits) => f64::from_bits(*bits).fmt(f),
        }
    }
}

impl fmt::Display for AnyOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, value) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { ", " };
            write!(f, "{between}{value}")?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for ClaimValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(One)
    }
}

impl<'de> Deserialize<'de> for AnyOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Many)
    }
}

struct One;

impl Visitor<'_> for One {
    type Value = ClaimValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, or true or false")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Text(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<ClaimValue, E> {
        i64::try_from(value)
            .map(ClaimValue::Integer)
            .map_err(|_| too_large())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<ClaimValue, E> {
        ClaimValue::of_f64(value).ok_or_else(too_large)
    }
}

fn too_large<E: de::Error>() -> E {
    E::custom("this number is too large to be compared exactly")
}

struct Many;

impl<'de> Visitor<'de> for Many {
    type Value = AnyOf;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true or false, or a list of them of which one is enough")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<AnyOf, E> {
        One.visit_str(text).map(just)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<AnyOf, E> {
        One.visit_bool(value).map(just)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<AnyOf, E> {
        One.visit_i64(value).map(just)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<AnyOf, E> {
        One.visit_u64(value).map(just)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<AnyOf, E> {
        One.visit_f64(value).map(just)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<AnyOf, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element()? {
            values.push(value);
        }
        Ok(AnyOf(values))
    }
}

fn just(value: ClaimValue) -> AnyOf {
    AnyOf(vec![value])
}

impl JsonSchema for AnyOf {
    fn schema_name() -> Cow<'static, str> {
        "AnyOf".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = json_schema!({"type": ["string", "number", "boolean"]});
        json_schema!({
            "description": "a text, a number, true or false, or a list of them of which one is enough",
            "anyOf": [one, {"type": "array", "items": one, "minItems": 1}],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers_and_nothing_else_as_one() {
        let one = ClaimValue::Integer(1);
        for (claim, equal) in [
            (json!(1), true),
            (json!(1.0), true),
            (json!("1"), false),
            (json!(true), false),
            (json!(1.5), false),
            (json!(null), false),
            (json!([1]), false),
        ] {
            assert_eq!(one.equals(&claim), equal, "{claim}");
        }
        assert!(ClaimValue::of_f64(0.5).unwrap().equals(&json!(0.5)));
        assert!(ClaimValue::Integer(i64::MAX).equals(&json!(i64::MAX)));
        // The same as fractions, and so not comparable.
        assert!(!ClaimValue::Integer(i64::MAX).equals(&json!(9_223_372_036_854_775_807.0)));
        assert_eq!(ClaimValue::of(&json!(u64::MAX)), None);
    }
}

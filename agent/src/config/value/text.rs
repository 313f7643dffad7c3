//! How a value is read from text, and how its errors and its schema describe it.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A kind of text: what it is read into, and what a reader is told about it.
pub(in crate::config) trait Kind {
    /// What the text means.
    type Value;
    /// Its name in the JSON Schema.
    const NAME: &'static str;
    /// What is expected, with an example: "a duration such as 30s".
    const EXPECTED: &'static str;
    /// A regular expression for editors that check the JSON Schema; the parser may be stricter.
    const PATTERN: Option<&'static str> = None;
    /// Never shown in an error.
    const SECRET: bool = false;

    /// Reads the text. The error says why it can't be, beyond [`Kind::EXPECTED`]; it may be empty.
    fn parse(text: &str) -> Result<Self::Value, Cow<'static, str>>;

    /// [`Kind::parse`], with an error that says everything.
    fn read(text: &str) -> Result<Self::Value, ValueError> {
        Self::parse(text).map_err(|why| {
            let mut what = format!("expected {}", Self::EXPECTED);
            if !Self::SECRET {
                what += &format!(", found {:?}", shortened(text));
            }
            if !why.is_empty() {
                what += &format!(": {why}");
            }
            ValueError(what)
        })
    }
}

/// What was expected, what was found, and why that is not it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub(super) String);

/// A value of kind `K`, for serde and schemars.
pub(in crate::config) struct As<K: Kind>(pub(in crate::config) K::Value);

/// Reads one value where serde gives a key, and not a value.
pub(in crate::config) fn read<K: Kind>(text: &str) -> Result<K::Value, ValueError> {
    K::read(text)
}

/// `deserialize_with` for one value.
pub(in crate::config) fn one<'de, K: Kind, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<K::Value, D::Error> {
    Ok(As::<K>::deserialize(deserializer)?.0)
}

/// `deserialize_with` for one that may be absent.
pub(in crate::config) fn option<'de, K: Kind, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<K::Value>, D::Error> {
    Ok(Option::<As<K>>::deserialize(deserializer)?.map(|value| value.0))
}

/// `deserialize_with` for a list.
pub(in crate::config) fn list<'de, K: Kind, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<K::Value>, D::Error> {
    let values = Vec::<As<K>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|value| value.0).collect())
}

/// `deserialize_with` for the values of a mapping.
pub(in crate::config) fn map<'de, K: Kind, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, K::Value>, D::Error> {
    let values = BTreeMap::<String, As<K>>::deserialize(deserializer)?;
    Ok(values
        .into_iter()
        .map(|(key, value)| (key, value.0))
        .collect())
}

/// What an error quotes of a value.
pub(in crate::config) fn shortened(text: &str) -> Cow<'_, str> {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        None => text.into(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
    }
}

impl<'de, K: Kind> Deserialize<'de> for As<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KindVisitor(PhantomData))
    }
}

struct KindVisitor<K>(PhantomData<K>);

impl<K: Kind> Visitor<'_> for KindVisitor<K> {
    type Value = As<K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(K::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<As<K>, E> {
        K::read(text).map(As).map_err(E::custom)
    }
}

impl<K: Kind> JsonSchema for As<K> {
    fn schema_name() -> Cow<'static, str> {
        K::NAME.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({"type": "string", "description": K::EXPECTED});
        if let Some(pattern) = K::PATTERN {
            schema.insert("pattern".to_owned(), pattern.into());
        }
        schema
    }
}

/// Gives a type that is its own [`Kind`] the traits that read it.
macro_rules! reads_from_text {
    ($($kind:ty),+ $(,)?) => {$(
        impl std::str::FromStr for $kind {
            type Err = super::ValueError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                <Self as super::text::Kind>::read(text)
            }
        }

        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                super::text::one::<Self, D>(deserializer)
            }
        }

        impl schemars::JsonSchema for $kind {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                <super::text::As<Self> as schemars::JsonSchema>::schema_name()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <super::text::As<Self> as schemars::JsonSchema>::json_schema(generator)
            }
        }
    )+};
}
pub(super) use reads_from_text;

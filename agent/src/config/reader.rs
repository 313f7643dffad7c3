//! A serde deserializer over [`Node`]s that finds *every* mistake of a file, not only the first.
//!
//! serde ends at an error. So a value that is wrong is noted and left out, and the file is read again
//! without it, until nothing new is found. An error that only follows from something left out (a
//! missing field, say) is not reported: what holds it is left out in turn.

use std::{cell::RefCell, collections::HashSet, fmt};

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, Expected, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
    value::{BorrowedStrDeserializer, StringDeserializer},
};

use super::{
    error::ConfigError,
    node::{Key, Node, Path, Value},
    suggest::nearest,
};

/// More mistakes than anyone reads at once.
const MAX_ERRORS: usize = 50;

/// What later versions do. Named here so that a file written for one of them gets a plain answer.
const LATER: &[&str] = &[
    "acm-pca",
    "alb",
    "aws-caller-identity",
    "aws-kms",
    "aws-web-identity",
    "aws_credentials",
    "bundle_url",
    "cognito-access",
    "dynamodb",
    "federation",
    "kubernetes",
    "local",
    "oauth",
    "oidc",
    "revocation",
    "secretsmanager",
    "source",
    "tls",
    "workload_api",
];

/// Reads a `T`, or says everything that is wrong.
pub(super) fn read<T: DeserializeOwned>(root: &Node) -> Result<T, Vec<ConfigError>> {
    let shared = Shared::default();
    loop {
        let reader = Reader {
            node: root,
            path: Path::default(),
            shared: &shared,
        };
        let before = shared.left_out.borrow().len();
        let result = reader.note(T::deserialize(reader.again()));
        // A file is read again only if something more was left out, so this ends.
        let progress = shared.left_out.borrow().len() > before && !shared.is_left_out(root);
        let found = shared.errors.borrow().len();
        match result {
            Ok(value) if found == 0 => return Ok(value),
            Err(_) if progress && found < MAX_ERRORS => {}
            _ => break,
        }
    }
    Err(shared
        .errors
        .into_inner()
        .into_iter()
        .map(|found| ConfigError {
            at: Some(found.at.unwrap_or_else(|| root.position(&found.path))),
            field: found.path.to_string(),
            what: found.what,
        })
        .collect())
}

#[derive(Default)]
struct Shared {
    /// Nodes that are wrong, or lack something that is.
    left_out: RefCell<HashSet<*const Node>>,
    /// Maps with unknown keys, which were noted. One of them may stand for what is missing.
    misspelt: RefCell<HashSet<*const Node>>,
    errors: RefCell<Vec<Found>>,
}

struct Found {
    at: Option<super::error::Position>,
    path: Path,
    what: String,
}

impl Shared {
    fn is_left_out(&self, node: &Node) -> bool {
        self.left_out.borrow().contains(&std::ptr::from_ref(node))
    }

    /// Whether something directly below `node` was left out, and so `node` may lack it.
    fn is_incomplete(&self, node: &Node) -> bool {
        if self.misspelt.borrow().contains(&std::ptr::from_ref(node)) {
            return true;
        }
        match &node.value {
            Value::Map(entries) => entries.iter().any(|(_, child)| self.is_left_out(child)),
            Value::List(items) => items.iter().any(|item| self.is_left_out(item)),
            _ => false,
        }
    }
}

/// Why reading stopped.
#[derive(Debug)]
enum Stop {
    /// Not noted yet, and about the innermost node that is being read.
    Wrong(String),
    /// Noted.
    Noted,
}

impl std::error::Error for Stop {}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(what) => f.write_str(what),
            Self::Noted => f.write_str("noted"),
        }
    }
}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::Wrong(what.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = match expected.to_string() {
            rust if rust == "usize" => "a whole number".to_owned(),
            rust if rust == "a boolean" => "true or false".to_owned(),
            plain => plain,
        };
        Self::Wrong(format!("expected {expected}, found {}", describe(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Wrong(format!("{field:?} is missing; it is required here"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::Wrong(unknown("value", variant, expected))
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("{value} (in quotes it would be text)"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value} (in quotes it would be text)"),
        Unexpected::Str(value) => format!("{:?}", super::value::shortened(value)),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping (key: value)".to_owned(),
        other => other.to_string(),
    }
}

/// What to say of a word that is none of `known`.
fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let word = super::value::shortened(word);
    let list = known.join(", ");
    if LATER.contains(&&*word) {
        return format!("{word:?} is not supported by this version; supported here: {list}");
    }
    match nearest(&word, known) {
        Some(near) => {
            format!("unknown {what} {word:?}, did you mean {near:?}? Expected one of: {list}")
        }
        None => format!("unknown {what} {word:?}; expected one of: {list}"),
    }
}

struct Reader<'a> {
    node: &'a Node,
    path: Path,
    shared: &'a Shared,
}

impl<'a> Reader<'a> {
    fn again(&self) -> Self {
        self.at(self.node, self.path.clone())
    }

    fn at(&self, node: &'a Node, path: Path) -> Self {
        Self {
            node,
            path,
            shared: self.shared,
        }
    }

    /// Reads this node with `seed`; an error is noted here, and the node left out from now on.
    fn seed<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop>
    where
        'a: 'de,
    {
        let result = seed.deserialize(self.again());
        self.note(result)
    }

    fn note<T>(&self, result: Result<T, Stop>) -> Result<T, Stop> {
        result.map_err(|stop| {
            let incomplete = self.shared.is_incomplete(self.node);
            match stop {
                // A block that lacks a part goes as a whole, silently: the part was noted.
                Stop::Wrong(_) if incomplete => {
                    self.leave_out();
                }
                Stop::Wrong(what) => {
                    self.shared.errors.borrow_mut().push(Found {
                        at: None,
                        path: self.path.clone(),
                        what,
                    });
                    self.leave_out();
                }
                Stop::Noted => {}
            }
            Stop::Noted
        })
    }

    fn leave_out(&self) {
        let node = std::ptr::from_ref(self.node);
        self.shared.left_out.borrow_mut().insert(node);
    }

    fn wrong<T>(&self, expected: &dyn Expected) -> Result<T, Stop> {
        let found = match &self.node.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Integer(value) => Unexpected::Signed(*value),
            Value::Float(value) => Unexpected::Float(*value),
            Value::Text { text, .. } => Unexpected::Str(text),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        };
        Err(de::Error::invalid_type(found, expected))
    }

    /// Notes the keys of `entries` that are none of `fields`; once per map.
    fn check_keys(&self, entries: &[(Key, Node)], fields: &[&str]) {
        let map = std::ptr::from_ref(self.node);
        if self.shared.misspelt.borrow().contains(&map) {
            return;
        }
        for (key, _) in entries {
            if !fields.contains(&key.text.as_str()) {
                self.shared.misspelt.borrow_mut().insert(map);
                self.shared.errors.borrow_mut().push(Found {
                    at: Some(key.at),
                    path: self.path.clone(),
                    what: unknown("key", &key.text, fields),
                });
            }
        }
    }
}

impl<'de> de::Deserializer<'de> for Reader<'de> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text { text, .. } => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items {
                reader: &self,
                rest: items.iter().enumerate(),
            }),
            Value::Map(entries) => visitor.visit_map(Entries {
                reader: &self,
                rest: entries.iter(),
                fields: None,
                value: None,
            }),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Text {
                text,
                expanded: true,
            } => match text.parse() {
                Ok(value) => visitor.visit_i64(value),
                Err(_) => self.wrong(&visitor),
            },
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Text {
                text,
                expanded: true,
            } => match text.as_str() {
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                _ => self.wrong(&visitor),
            },
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::List(_) => self.deserialize_any(visitor),
            _ => self.wrong(&"a list ([a, b])"),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Map(_) => self.deserialize_any(visitor),
            _ => self.wrong(&"a mapping (key: value)"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let Value::Map(entries) = &self.node.value else {
            let expected = format!("a mapping with the keys {}", fields.join(", "));
            return self.wrong(&expected.as_str());
        };
        self.check_keys(entries, fields);
        visitor.visit_map(Entries {
            reader: &self,
            rest: entries.iter(),
            fields: Some(fields),
            value: None,
        })
    }

    /// `variant`, or `variant: {…}` with one key.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let (name, content) = match &self.node.value {
            Value::Text { text, .. } => (text, None),
            Value::Map(entries) => match entries.as_slice() {
                [(key, content)] => (&key.text, Some(content)),
                _ => {
                    let expected = format!("exactly one of the keys {}", variants.join(", "));
                    let found = entries.iter().map(|(key, _)| key.text.as_str());
                    let found: Vec<_> = found.collect();
                    return Err(Stop::Wrong(format!(
                        "expected {expected}; found {}",
                        found.join(", ")
                    )));
                }
            },
            _ => return self.wrong(&format!("one of {}", variants.join(", ")).as_str()),
        };
        if !variants.contains(&name.as_str()) {
            return Err(de::Error::unknown_variant(name, variants));
        }
        visitor.visit_enum(Variant {
            reader: &self,
            name,
            content,
        })
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_i64(visitor)
    }
}

struct Items<'r, 'de> {
    reader: &'r Reader<'de>,
    rest: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        for (index, item) in self.rest.by_ref() {
            if !self.reader.shared.is_left_out(item) {
                let reader = self.reader.at(item, self.reader.path.index(index));
                return reader.seed(seed).map(Some);
            }
        }
        Ok(None)
    }
}

struct Entries<'r, 'de> {
    reader: &'r Reader<'de>,
    rest: std::slice::Iter<'de, (Key, Node)>,
    /// Of a struct; other keys were noted, and are passed over.
    fields: Option<&'static [&'static str]>,
    value: Option<(&'de Key, &'de Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        for (key, value) in self.rest.by_ref() {
            let known = self
                .fields
                .is_none_or(|fields| fields.contains(&key.text.as_str()));
            if known && !self.reader.shared.is_left_out(value) {
                self.value = Some((key, value));
                return seed
                    .deserialize(BorrowedStrDeserializer::new(&key.text))
                    .map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        let Some((key, value)) = self.value.take() else {
            return Err(Stop::Wrong("a value without a key".to_owned()));
        };
        let reader = self.reader.at(value, self.reader.path.key(&key.text));
        reader.seed(seed)
    }
}

struct Variant<'r, 'de> {
    reader: &'r Reader<'de>,
    name: &'de String,
    content: Option<&'de Node>,
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stop> {
        let name: StringDeserializer<Stop> =
            de::IntoDeserializer::into_deserializer(self.name.clone());
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> Variant<'_, 'de> {
    fn content(&self) -> Result<Reader<'de>, Stop> {
        let Some(content) = self.content else {
            return Err(Stop::Wrong(format!(
                "{:?} needs its settings: write {{{}: {{…}}}}",
                self.name, self.name
            )));
        };
        if self.reader.shared.is_left_out(content) {
            return Err(Stop::Wrong("left out".to_owned()));
        }
        Ok(self.reader.at(content, self.reader.path.key(self.name)))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(Stop::Wrong(format!(
                "{:?} has no settings: write it alone",
                self.name
            ))),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        self.content()?.seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Stop> {
        let content = self.content()?;
        let result = de::Deserializer::deserialize_seq(content.again(), visitor);
        content.note(result)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let content = self.content()?;
        let result =
            de::Deserializer::deserialize_struct(content.again(), "variant", fields, visitor);
        content.note(result)
    }
}

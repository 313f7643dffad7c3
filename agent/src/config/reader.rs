//! A serde deserializer over [`Node`]s that finds *every* mistake of a file, not only the first.
//!
//! serde ends at an error. So a value that is wrong is noted and left out, and the file is read again
//! without it, until nothing new is found. An error that only follows from something left out (a
//! missing field, say) is not reported: what holds it is left out in turn.

mod walk;

use std::{cell::RefCell, collections::HashSet, fmt};

use serde::de::{self, DeserializeOwned, DeserializeSeed, Expected, Unexpected};

use super::{
    error::ConfigError,
    node::{Key, Node, Path, Value},
    suggest::nearest,
};

/// More mistakes than anyone reads at once.
const MAX_ERRORS: usize = 50;

/// What later versions do, each beside a word of today's that says where: elsewhere the same word is a mistake. Named
/// here so that a file written for one of them gets a plain answer.
pub(super) const LATER: &[(&str, &str)] = &[("bundle_url", "root_spki_sha256")];

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

    /// Whether `node` has `key` with a value that was left out, or a key that may be `key` misspelt.
    fn may_have_had(&self, node: &Node, key: &str) -> bool {
        let Value::Map(entries) = &node.value else {
            return false;
        };
        self.misspelt.borrow().contains(&std::ptr::from_ref(node))
            || entries.iter().any(|(name, _)| name.text == key)
    }
}

/// Why reading stopped.
#[derive(Debug)]
enum Stop {
    /// Not noted yet, and about the innermost node that is being read.
    Wrong(String),
    /// As that, for want of this key.
    Missing(&'static str),
    /// Noted.
    Noted,
}

impl std::error::Error for Stop {}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(what) => f.write_str(what),
            Self::Missing(key) => write!(f, "{key:?} is missing; it is required here"),
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
        Self::Missing(field)
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
    let is_later = |(later, beside): &(&str, &str)| *later == word && known.contains(beside);
    if LATER.iter().any(is_later) {
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
            let follows = match &stop {
                Stop::Noted => return Stop::Noted,
                // A block that lacks a part goes as a whole, silently: the part was noted.
                Stop::Wrong(_) => self.shared.is_incomplete(self.node),
                Stop::Missing(key) => self.shared.may_have_had(self.node, key),
            };
            if !follows {
                self.shared.errors.borrow_mut().push(Found {
                    at: None,
                    path: self.path.clone(),
                    what: stop.to_string(),
                });
            }
            self.leave_out();
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

//! A YAML file as a tree whose every node knows its place, with `${ENV}` expanded.

mod build;

use std::fmt;

use super::error::{ConfigError, Position};

/// The deepest file we write is 8 levels; a deeper one than this is a mistake or an attack.
const MAX_DEPTH: usize = 32;
/// A file of [`super::MAX_FILE_SIZE`] with a value every few bytes stays below.
const MAX_EVENTS: usize = 500_000;
/// Anchors are for repeating a block a few times, not for making a large file of a small one.
const MAX_ALIASES: usize = 256;
const MAX_REPLAYED_EVENTS: usize = 10_000;

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text {
        text: String,
        /// Came from the environment: it may stand for a number too.
        expanded: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) at: Position,
    pub(super) text: String,
}

/// The way from the root to a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Parses one YAML document. Duplicate keys, tags, further documents, and more depth or aliases than
/// a configuration needs are errors.
pub(super) fn parse(text: &str) -> Result<Node, ConfigError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_events: MAX_EVENTS,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED_EVENTS,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        merge_keys: serde_saphyr::MergeKeyPolicy::Merge,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Node>(text, options).map_err(|error| malformed(&error))
}

fn malformed(error: &serde_saphyr::Error) -> ConfigError {
    use serde_saphyr::{DefaultMessageFormatter, Error, MessageFormatter};
    let error = error.without_snippet();
    let what = match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key {key:?} is given twice; keep one")
        }
        Error::DuplicateMappingKey { .. } => "a key is given twice; keep one".to_owned(),
        Error::MultipleDocuments { .. } => {
            "expected one YAML document, found a second (---)".to_owned()
        }
        _ => format!(
            "not valid YAML: {}",
            DefaultMessageFormatter.format_message(error)
        ),
    };
    ConfigError {
        at: error.location().and_then(position),
        field: String::new(),
        what,
    }
}

fn position(location: serde_saphyr::Location) -> Option<Position> {
    (location.line() > 0).then(|| Position {
        line: location.line(),
        column: location.column(),
    })
}

impl Node {
    /// Replaces `${NAME}` in every string value by what `env` says. The result is never parsed as
    /// YAML. `$${` stands for `${`.
    pub(super) fn expand(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        self.expand_at(&Path::default(), env, &mut errors);
        errors
    }

    /// The place of the node at `path`, or of the nearest that exists above it.
    pub(super) fn position(&self, path: &Path) -> Position {
        let mut node = self;
        let mut at = self.at;
        for step in &path.0 {
            let next = match (step, &node.value) {
                (Step::Key(key), Value::Map(entries)) => entries
                    .iter()
                    .find(|(candidate, _)| candidate.text == *key)
                    .map(|(key, child)| (key.at, child)),
                (Step::Index(index), Value::List(items)) => {
                    items.get(*index).map(|item| (item.at, item))
                }
                _ => None,
            };
            let Some((place, child)) = next else {
                return at;
            };
            // A scalar is where it stands; a block is where its key is, which is what one looks for.
            at = match child.value {
                Value::List(_) | Value::Map(_) => place,
                _ => child.at,
            };
            node = child;
        }
        at
    }

    fn expand_at(
        &mut self,
        path: &Path,
        env: &dyn Fn(&str) -> Option<String>,
        errors: &mut Vec<ConfigError>,
    ) {
        match &mut self.value {
            Value::Text { text, expanded } => match expand(text, env) {
                Ok(None) => {}
                Ok(Some(new)) => {
                    *text = new;
                    *expanded = true;
                }
                Err(what) => errors.push(ConfigError {
                    at: Some(self.at),
                    field: path.to_string(),
                    what,
                }),
            },
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.expand_at(&path.index(index), env, errors);
                }
            }
            Value::Map(entries) => {
                for (key, child) in entries {
                    child.expand_at(&path.key(&key.text), env, errors);
                }
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {}
        }
    }
}

/// `None` when there is nothing to expand.
fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            return Err("expected a closing } after ${; write $${ for a literal ${".to_owned());
        };
        if !is_variable_name(name) {
            return Err(format!(
                "expected the name of an environment variable in ${{…}}, such as ${{HOSTNAME}}, found \
                 {name:?}; write $${{ for a literal ${{"
            ));
        }
        let value = env(name).ok_or_else(|| {
            format!("the environment variable {name} is not set; set it, or write $${{ for a literal ${{")
        })?;
        out.push_str(&value);
        rest = after;
    }
    out.push_str(rest);
    Ok(Some(out))
}

fn is_variable_name(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(word)
        && name
            .bytes()
            .next()
            .is_some_and(|byte| !byte.is_ascii_digit())
}

impl Path {
    pub(super) fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if index == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "POD").then(|| "orders: [1]".to_owned())
    }

    #[test]
    fn every_node_knows_its_place() {
        let root = parse("a: 1\nb:\n- x\n-   {c: yes, d: ~}\n").unwrap();
        let at = |path: Path| {
            let at = root.position(&path);
            (at.line, at.column)
        };
        let root_path = Path::default();
        assert_eq!(at(root_path.key("a")), (1, 4));
        assert_eq!(at(root_path.key("b")), (2, 1));
        assert_eq!(at(root_path.key("b").index(0)), (3, 3));
        assert_eq!(at(root_path.key("b").index(1).key("c")), (4, 9));
        // What is missing is at what it is missing from.
        assert_eq!(at(root_path.key("b").index(1).key("zzz")), (4, 5));
    }

    #[test]
    fn an_expanded_value_is_never_parsed_as_yaml() {
        let mut root = parse("a: ${POD}\nb: x-${POD}-$${POD}-$5\n").unwrap();
        assert!(root.expand(&env).is_empty());
        let Value::Map(entries) = &root.value else {
            panic!("{root:?}")
        };
        let texts: Vec<_> = entries
            .iter()
            .map(|(_, node)| match &node.value {
                Value::Text { text, .. } => text.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(texts, ["orders: [1]", "x-orders: [1]-${POD}-$5"]);
    }

    #[test]
    fn what_cannot_be_expanded_is_an_error_at_its_place() {
        let mut root = parse("a: [ok, '${NOPE}']\nb: ${open\nc: ${1x}\n").unwrap();
        let errors = root.expand(&env);
        let fields: Vec<_> = errors
            .iter()
            .map(|e| (e.field.as_str(), e.at.unwrap().line))
            .collect();
        assert_eq!(fields, [("a[1]", 1), ("b", 2), ("c", 3)]);
        assert!(
            errors[0]
                .what
                .contains("environment variable NOPE is not set")
        );
    }

    #[test]
    fn s14_a_yaml_bomb_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let previous = format!("*a{}, ", n - 1).repeat(10);
            bomb += &format!("a{n}: &a{n} [{previous}]\n");
        }
        assert!(parse(&bomb).is_err());
        assert!(parse(&"[".repeat(10_000)).is_err());
        assert!(parse(&format!("{}1{}", "[".repeat(40), "]".repeat(40))).is_err());
    }

    #[test]
    fn tags_and_second_documents_are_refused() {
        assert!(parse("a: !!python/object x").is_err());
        assert!(parse("a: 1\n---\nb: 2\n").is_err());
    }
}

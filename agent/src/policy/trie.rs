//! Patterns of `/`-separated segments, found by what they match.

use std::collections::HashMap;

use crate::config::value::Segment;

/// Values filed under patterns. A visit touches the patterns that fit and little else.
#[derive(Debug)]
pub(super) struct Trie<T> {
    literal: HashMap<Box<str>, Trie<T>>,
    one: Option<Box<Trie<T>>>,
    /// For patterns that end here.
    here: Option<T>,
    /// For patterns that end here with `**`.
    rest: Option<T>,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self {
            literal: HashMap::new(),
            one: None,
            here: None,
            rest: None,
        }
    }
}

impl<T: Default> Trie<T> {
    /// The value filed under `pattern`; a new one where there is none.
    pub(super) fn at(&mut self, pattern: &[Segment]) -> &mut T {
        match pattern.split_first() {
            None => self.here.get_or_insert_default(),
            Some((Segment::Rest, _)) => self.rest.get_or_insert_default(),
            Some((Segment::One, more)) => self.one.get_or_insert_default().at(more),
            Some((Segment::Literal(text), more)) => self
                .literal
                .entry(text.as_str().into())
                .or_default()
                .at(more),
        }
    }
}

impl<T> Trie<T> {
    /// Whether nothing is filed.
    pub(super) fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.one.is_none() && self.here.is_none() && self.rest.is_none()
    }

    /// Shows `found` every value whose pattern matches `path`: `a/b`, or empty for no segments.
    /// Recursion is as deep as the longest pattern, whatever the path.
    pub(super) fn visit(&self, path: &str, found: &mut impl FnMut(&T)) {
        self.descend((!path.is_empty()).then_some(path), found);
    }

    fn descend(&self, path: Option<&str>, found: &mut impl FnMut(&T)) {
        let Some(path) = path else {
            return self.here.iter().for_each(found);
        };
        self.rest.iter().for_each(&mut *found);
        if self.literal.is_empty() && self.one.is_none() {
            return;
        }
        let (segment, more) = match path.split_once('/') {
            Some((segment, more)) => (segment, Some(more)),
            None => (path, None),
        };
        if let Some(next) = self.literal.get(segment) {
            next.descend(more, found);
        }
        if let Some(next) = &self.one {
            next.descend(more, found);
        }
    }
}

/// Whether one pattern matches `path` (`/a/b`, or empty).
pub(super) fn matches(pattern: &[Segment], path: &str) -> bool {
    let mut segments = path
        .strip_prefix('/')
        .unwrap_or(path)
        .split('/')
        .filter(|s| !s.is_empty());
    for expected in pattern {
        let fits = match (expected, segments.next()) {
            (Segment::Rest, segment) => return segment.is_some(),
            (Segment::One, segment) => segment.is_some(),
            (Segment::Literal(text), segment) => segment == Some(text.as_str()),
        };
        if !fits {
            return false;
        }
    }
    segments.next().is_none()
}

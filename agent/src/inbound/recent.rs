//! What was asked for lately, in bounded room.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, mem};

/// A map that forgets. Two halves stand in for an order of use: what is asked for moves to the young one, and when
/// that is full the old one is forgotten.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    half: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// For up to `half` entries in each half.
    pub(super) fn new(half: usize) -> Self {
        Self {
            half,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// What is known of `key`, where it is `good` still.
    pub(super) fn find<Q>(&mut self, key: &Q, good: impl FnOnce(&V) -> bool) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            if !good(&value) {
                return None;
            }
            return Some(self.keep(key, value));
        }
        self.young.get(key).filter(|value| good(value))
    }

    /// Remembers `value`.
    pub(super) fn keep(&mut self, key: K, value: V) -> &V {
        if self.young.len() >= self.half {
            self.old = mem::take(&mut self.young);
        }
        self.young.entry(key).insert_entry(value).into_mut()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

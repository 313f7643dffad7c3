//! A set of header names that is cheap to ask about names which are not in it.

/// Buckets by first character: `a`–`z`, and one for all others.
const BUCKETS: usize = 27;

/// Header names compared with everything that is neither letter nor digit read as `-`.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// Which lengths (63: or more) occur among names with this first character: the answer for most headers.
    lengths: [u64; BUCKETS],
    /// Every name, with whether only its variants are meant.
    names: Vec<(Box<str>, bool)>,
    prefixes: &'static [&'static str],
}

impl Names {
    /// The names that begin with one of `prefixes`, all of which begin with `x`.
    pub(super) fn new(prefixes: &'static [&'static str]) -> Self {
        debug_assert!(prefixes.iter().all(|prefix| prefix.starts_with('x')));
        Self {
            lengths: [0; BUCKETS],
            names: Vec::new(),
            prefixes,
        }
    }

    /// Adds lower-case names.
    pub(super) fn extend<'a>(&mut self, names: impl IntoIterator<Item = &'a &'a str>) {
        names.into_iter().for_each(|name| self.add(name, false));
    }

    /// Adds every spelling of `names` but themselves.
    pub(super) fn extend_variants(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.add(name, true));
    }

    fn add(&mut self, name: &str, variants_only: bool) {
        if let Some(lengths) = self.lengths.get_mut(bucket(name)) {
            *lengths |= length_bit(name);
        }
        self.names.push((name.into(), variants_only));
    }

    /// The names that were added; not those that only begin like them.
    pub(super) fn exact(&self) -> impl Iterator<Item = &str> {
        let exact = self
            .names
            .iter()
            .filter(|(_, variants_only)| !variants_only);
        exact.map(|(name, _)| &**name)
    }

    /// Whether the lower-case `name` is one of these.
    pub(super) fn contains(&self, name: &str) -> bool {
        let lengths = self.lengths.get(bucket(name)).copied().unwrap_or_default();
        if lengths & length_bit(name) != 0
            && self.names.iter().any(|(ours, variants_only)| {
                alike(ours, name) && !(*variants_only && **ours == *name)
            })
        {
            return true;
        }
        name.starts_with('x')
            && self.prefixes.iter().any(|prefix| {
                name.get(..prefix.len())
                    .is_some_and(|start| alike(prefix, start))
            })
    }
}

fn bucket(name: &str) -> usize {
    match name.as_bytes().first() {
        Some(letter @ b'a'..=b'z') => usize::from(letter - b'a'),
        _ => BUCKETS - 1,
    }
}

fn length_bit(name: &str) -> u64 {
    1 << name.len().min(63)
}

fn alike(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes()
            .zip(b.bytes())
            .all(|(a, b)| folded(a) == folded(b))
}

fn folded(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte
    } else {
        b'-'
    }
}

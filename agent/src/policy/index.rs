//! Which rules may hold, without asking every rule.
//!
//! A rule is filed under one of the values it demands: the one that the fewest other rules demand, so that a
//! thousand rules for one caller that differ in a claim are found by the claim. Under that value it is filed by
//! the paths of its targets. A request then leads to the few rules filed under what it has.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use http::HeaderName;
use serde_json::Value;

use super::{
    RuleName,
    rule::{Ask, Part, Rule, Way},
    trie::Trie,
};
use crate::config::value::{Cidr, ClaimValue, IdPattern, Segment};

/// Rules of one effect.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// In the order of the file.
    rules: Vec<Rule>,
    peers: ByCaller,
    subjects: ByCaller,
    roles: ByRole,
    claims: HashMap<Box<str>, ByValue>,
    scopes: HashMap<Box<str>, Bucket>,
    issuers: HashMap<Box<str>, Bucket>,
    headers: HashMap<HeaderName, HashMap<Box<[u8]>, Bucket>>,
    sources: BySource,
    /// Rules that demand nothing to be found by.
    others: Bucket,
}

/// By SPIFFE ID: by trust domain, then path.
#[derive(Debug, Default)]
struct ByCaller(HashMap<Box<str>, TrustDomainRules>);

#[derive(Debug, Default)]
struct TrustDomainRules {
    exact: HashMap<Box<str>, Bucket>,
    patterns: Trie<Bucket>,
}

/// By role, or by what its text begins with.
#[derive(Debug, Default)]
struct ByRole {
    exact: HashMap<Box<str>, Bucket>,
    prefixes: HashMap<Box<str>, Bucket>,
    /// The lengths of the prefixes.
    lengths: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct ByValue {
    texts: HashMap<Box<str>, Bucket>,
    others: HashMap<ClaimValue, Bucket>,
}

#[derive(Debug, Default)]
struct BySource {
    ranges: HashMap<Cidr, Bucket>,
    /// How many bits they have: so many look-ups find an address.
    bits: BTreeSet<u8>,
}

/// The rules under one value, by path.
#[derive(Debug, Default)]
struct Bucket {
    by_path: Trie<Vec<Entry>>,
    any_path: Vec<Entry>,
}

/// What is left to ask when value and path fit.
#[derive(Debug)]
struct Entry {
    rule: usize,
    /// The part that holds, as the rule was found by it.
    proven: Option<usize>,
    way: Way,
}

/// What a rule can be filed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key<'a> {
    Peer(&'a IdPattern),
    Subject(&'a IdPattern),
    Role(&'a str),
    RolePrefix(&'a str),
    Claim(&'a str, &'a ClaimValue),
    Scope(&'a str),
    Issuer(&'a str),
    Header(&'a HeaderName, &'a str),
    Source(Cidr),
}

impl Index {
    pub(super) fn new(rules: impl Iterator<Item = Rule>) -> Self {
        let rules: Vec<Rule> = rules.collect();
        let mut filed_under = HashMap::<Key<'_>, usize>::new();
        for key in rules.iter().flat_map(|rule| &rule.parts).flat_map(keys) {
            *filed_under.entry(key).or_default() += 1;
        }
        let mut index = Self::default();
        for (number, rule) in rules.iter().enumerate() {
            // A rule with several values of a part is filed under each; the most crowded counts.
            let crowd = |keys: &[Key<'_>]| {
                keys.iter()
                    .filter_map(|key| filed_under.get(key))
                    .max()
                    .copied()
            };
            let parts = rule.parts.iter().enumerate();
            let filed = parts
                .map(|(place, part)| (place, keys(part)))
                .filter(|(_, keys)| !keys.is_empty())
                .min_by_key(|(_, keys)| crowd(keys));
            let Some((place, keys)) = filed else {
                index.others.file(rule, number, None);
                continue;
            };
            for key in keys {
                let proven = key.proves().then_some(place);
                index.bucket(key).file(rule, number, proven);
            }
        }
        index.rules = rules;
        index
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The first rule of the file that holds.
    pub(super) fn first(&self, ask: &Ask<'_>) -> Option<RuleName> {
        let mut best = self.rules.len();
        self.visit(ask, &mut |bucket| {
            bucket.search(ask, &self.rules, &mut best)
        });
        self.rules.get(best).map(|rule| rule.name.clone())
    }

    /// Whether rules were found by what the caller or the request has, whatever else they demand.
    pub(super) fn knows(&self, ask: &Ask<'_>) -> bool {
        let mut known = false;
        self.visit(ask, &mut |bucket| known |= !bucket.is_empty());
        known
    }

    /// Shows `found` the rules under every value the request has.
    fn visit(&self, ask: &Ask<'_>, found: &mut impl FnMut(&Bucket)) {
        if self.rules.is_empty() {
            return;
        }
        if let Some((domain, path)) = ask.peer_id() {
            self.peers.visit(domain, path, found);
        }
        if let Some((domain, path)) = ask.subject_id() {
            self.subjects.visit(domain, path, found);
        }
        if let Some(role) = &ask.evidence.role {
            self.roles.visit(role, found);
        }
        self.visit_claims(ask, found);
        if !self.scopes.is_empty() {
            let scopes = ask.caller.scopes().iter();
            let buckets = scopes.filter_map(|scope| self.scopes.get(scope.as_str()));
            buckets.for_each(&mut *found);
        }
        let accept = ask.evidence.accept.as_deref();
        if let Some(bucket) = accept.and_then(|name| self.issuers.get(name)) {
            found(bucket);
        }
        self.visit_headers(ask, found);
        self.visit_sources(ask, found);
        found(&self.others);
    }

    /// By the claims the caller has or by those that rules name, whichever are fewer.
    fn visit_claims(&self, ask: &Ask<'_>, found: &mut impl FnMut(&Bucket)) {
        let claims = &ask.evidence.claims;
        if self.claims.len() <= claims.len() {
            for (name, values) in &self.claims {
                if let Some(claim) = claims.get(&**name) {
                    values.visit(claim, found);
                }
            }
        } else {
            for (name, claim) in claims {
                if let Some(values) = self.claims.get(name.as_str()) {
                    values.visit(claim, found);
                }
            }
        }
    }

    /// The same for headers.
    fn visit_headers(&self, ask: &Ask<'_>, found: &mut impl FnMut(&Bucket)) {
        let headers = ask.request.headers;
        if self.headers.len() <= headers.keys_len() {
            for (name, values) in &self.headers {
                let lines = headers.get_all(name).iter();
                let buckets = lines.filter_map(|line| values.get(line.as_bytes()));
                buckets.for_each(&mut *found);
            }
        } else {
            for (name, line) in headers {
                let values = self.headers.get(name);
                if let Some(bucket) = values.and_then(|values| values.get(line.as_bytes())) {
                    found(bucket);
                }
            }
        }
    }

    fn visit_sources(&self, ask: &Ask<'_>, found: &mut impl FnMut(&Bucket)) {
        match ask.request.source {
            Some(address) => self.sources.visit(address, found),
            // Any of them may hold.
            None => self.sources.ranges.values().for_each(found),
        }
    }

    fn bucket(&mut self, key: Key<'_>) -> &mut Bucket {
        match key {
            Key::Peer(pattern) => self.peers.of(pattern),
            Key::Subject(pattern) => self.subjects.of(pattern),
            Key::Role(role) => self.roles.exact.entry(role.into()).or_default(),
            Key::RolePrefix(start) => {
                self.roles.lengths.insert(start.len());
                self.roles.prefixes.entry(start.into()).or_default()
            }
            Key::Claim(name, value) => {
                let values = self.claims.entry(name.into()).or_default();
                match value {
                    ClaimValue::Text(text) => values.texts.entry(text.as_str().into()).or_default(),
                    other => values.others.entry(other.clone()).or_default(),
                }
            }
            Key::Scope(scope) => self.scopes.entry(scope.into()).or_default(),
            Key::Issuer(name) => self.issuers.entry(name.into()).or_default(),
            Key::Header(name, value) => {
                let values = self.headers.entry(name.clone()).or_default();
                values.entry(value.as_bytes().into()).or_default()
            }
            Key::Source(range) => {
                self.sources.bits.insert(range.bits());
                self.sources.ranges.entry(range).or_default()
            }
        }
    }
}

/// What a rule with this part can be filed under: under all of them.
fn keys(part: &Part) -> Vec<Key<'_>> {
    match part {
        Part::Peer(pattern) => vec![Key::Peer(pattern)],
        Part::SpiffeId(pattern) => vec![Key::Subject(pattern)],
        Part::Role(_, text) => match text.split_once('*') {
            None => vec![Key::Role(text)],
            Some((start, _)) => vec![Key::RolePrefix(start)],
        },
        Part::Claim(name, wanted) => wanted.0.iter().map(|it| Key::Claim(name, it)).collect(),
        Part::Scope(scope) => vec![Key::Scope(scope)],
        Part::Issuer(name) => vec![Key::Issuer(name)],
        Part::Header(name, wanted) => wanted.iter().map(|it| Key::Header(name, it)).collect(),
        Part::Source(ranges) => ranges.iter().copied().map(Key::Source).collect(),
        Part::Subject | Part::When(_) => Vec::new(),
    }
}

impl Key<'_> {
    /// Whether being found by it says all that the part demands.
    fn proves(&self) -> bool {
        // Of a header every line counts; an unknown source finds every rule.
        !matches!(
            self,
            Self::RolePrefix(_) | Self::Header(..) | Self::Source(_)
        )
    }
}

impl ByCaller {
    fn of(&mut self, pattern: &IdPattern) -> &mut Bucket {
        let rules = self
            .0
            .entry(pattern.trust_domain.as_str().into())
            .or_default();
        let mut path = String::new();
        for segment in &pattern.segments {
            let Segment::Literal(text) = segment else {
                return rules.patterns.at(&pattern.segments);
            };
            path.push('/');
            path.push_str(text);
        }
        rules.exact.entry(path.into()).or_default()
    }

    fn visit(&self, trust_domain: &str, path: &str, found: &mut impl FnMut(&Bucket)) {
        let Some(rules) = self.0.get(trust_domain) else {
            return;
        };
        if let Some(bucket) = rules.exact.get(path) {
            found(bucket);
        }
        let segments = path.strip_prefix('/').unwrap_or(path);
        rules.patterns.visit(segments, found);
    }
}

impl ByRole {
    fn visit(&self, role: &str, found: &mut impl FnMut(&Bucket)) {
        if let Some(bucket) = self.exact.get(role) {
            found(bucket);
        }
        for length in self.lengths.range(..=role.len()) {
            let start = role.get(..*length);
            if let Some(bucket) = start.and_then(|start| self.prefixes.get(start)) {
                found(bucket);
            }
        }
    }
}

impl ByValue {
    fn visit(&self, claim: &Value, found: &mut impl FnMut(&Bucket)) {
        match claim {
            Value::Array(items) => items.iter().for_each(|item| self.visit_one(item, found)),
            claim => self.visit_one(claim, found),
        }
    }

    fn visit_one(&self, claim: &Value, found: &mut impl FnMut(&Bucket)) {
        let bucket = match claim {
            Value::String(text) => self.texts.get(text.as_str()),
            other => ClaimValue::of(other).and_then(|value| self.others.get(&value)),
        };
        if let Some(bucket) = bucket {
            found(bucket);
        }
    }
}

impl BySource {
    fn visit(&self, address: IpAddr, found: &mut impl FnMut(&Bucket)) {
        for bits in &self.bits {
            let range = Cidr::of(address, *bits);
            if let Some(bucket) = range.and_then(|range| self.ranges.get(&range)) {
                found(bucket);
            }
        }
    }
}

impl Bucket {
    fn file(&mut self, rule: &Rule, number: usize, proven: Option<usize>) {
        let entry = |way: &Way| Entry {
            rule: number,
            proven,
            way: way.clone(),
        };
        match &rule.targets {
            None => self.any_path.push(entry(&Way::ANY)),
            Some(targets) => {
                for target in targets {
                    self.by_path.at(&target.segments).push(entry(&target.way));
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.by_path.is_empty() && self.any_path.is_empty()
    }

    /// Lowers `best` to the first rule here that holds.
    fn search(&self, ask: &Ask<'_>, rules: &[Rule], best: &mut usize) {
        // Numbers rise in each list, so one that is past the best ends it.
        let mut among = |entries: &[Entry]| {
            let better = entries.iter().take_while(|entry| entry.rule < *best);
            let mut better = better.filter(|entry| entry.holds(ask, rules));
            if let Some(entry) = better.next() {
                *best = entry.rule;
            }
        };
        among(&self.any_path);
        self.by_path
            .visit(ask.segments, &mut |entries| among(entries));
    }
}

impl Entry {
    fn holds(&self, ask: &Ask<'_>, rules: &[Rule]) -> bool {
        let Some(rule) = rules.get(self.rule) else {
            return false;
        };
        let mut parts = rule.parts.iter().enumerate();
        self.way.fits(ask)
            && parts.all(|(place, part)| self.proven == Some(place) || part.holds(ask, rule.effect))
    }
}

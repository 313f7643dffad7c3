//! The list, as it is asked for every request.

use std::{collections::HashSet, fmt};

use serde::{Deserialize, Serialize};

use super::{Provenance, Published};

/// What a credential can be revoked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Everything that goes back to one attestation.
    Lineage,
    /// Everything with this SPIFFE ID.
    SpiffeId,
    /// Everything that an AWS role attested: `ACCOUNT:role/NAME`. Published as its SHA-256.
    Role,
    /// Everything signed by a key: the SHA-256 of a CA certificate's SubjectPublicKeyInfo (hex), or the
    /// `kid` of a token's key.
    IssuerKey,
    /// One token, by its `jti`.
    TokenId,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Lineage,
        Self::SpiffeId,
        Self::Role,
        Self::IssuerKey,
        Self::TokenId,
    ];

    /// As it is written: `lineage`, `spiffe-id`, `role`, `issuer-key`, `token-id`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lineage => "lineage",
            Self::SpiffeId => "spiffe-id",
            Self::Role => "role",
            Self::IssuerKey => "issuer-key",
            Self::TokenId => "token-id",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A list, made for looking things up in it. The default one is number 0 and empty: nothing was ever
/// revoked, as far as we know.
#[derive(Debug, Clone, Default)]
pub struct List {
    number: u64,
    /// By [`Kind`], in the order of [`Kind::ALL`].
    values: [HashSet<Box<str>>; 5],
}

impl List {
    /// From what was published.
    pub fn new(published: &Published) -> Self {
        let mut list = Self {
            number: published.number,
            ..Self::default()
        };
        for (kind, value) in &published.entries {
            list.of(*kind).insert(value.as_str().into());
        }
        list
    }

    /// Counts up with every change.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.values.iter().map(HashSet::len).sum()
    }

    /// Whether nothing is revoked: what a request asks first, and nearly always last.
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(HashSet::is_empty)
    }

    /// By what `it` is revoked, if it is.
    pub fn revokes(&self, it: &Provenance) -> Option<Kind> {
        let [lineages, ids, roles, keys, tokens] = &self.values;
        let has =
            |set: &HashSet<Box<str>>, value: Option<&str>| value.is_some_and(|v| set.contains(v));
        if has(lineages, it.lineage.as_deref()) {
            Some(Kind::Lineage)
        } else if has(ids, it.spiffe_id.as_deref()) {
            Some(Kind::SpiffeId)
        } else if has(roles, it.role.as_deref()) {
            Some(Kind::Role)
        } else if it.issuers.iter().any(|key| keys.contains(key)) {
            Some(Kind::IssuerKey)
        } else if has(tokens, it.token_id.as_deref()) {
            Some(Kind::TokenId)
        } else {
            None
        }
    }

    /// Whether a CA key (the SHA-256 of its SubjectPublicKeyInfo) is revoked.
    pub fn revokes_issuer(&self, spki_sha256: &str) -> bool {
        let [_, _, _, keys, _] = &self.values;
        keys.contains(spki_sha256)
    }

    fn of(&mut self, kind: Kind) -> &mut HashSet<Box<str>> {
        let [lineages, ids, roles, keys, tokens] = &mut self.values;
        match kind {
            Kind::Lineage => lineages,
            Kind::SpiffeId => ids,
            Kind::Role => roles,
            Kind::IssuerKey => keys,
            Kind::TokenId => tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn list(entries: &[(Kind, &str)]) -> List {
        List::new(&Published {
            number: 7,
            as_of: SystemTime::UNIX_EPOCH,
            entries: entries.iter().map(|(k, v)| (*k, (*v).into())).collect(),
        })
    }

    fn orders() -> Provenance {
        Provenance {
            spiffe_id: Some("spiffe://example.org/orders".into()),
            lineage: Some("l1".into()),
            role: Some("00ff".into()),
            issuers: vec!["aa".into(), "bb".into()],
            token_id: Some("t1".into()),
        }
    }

    #[test]
    fn each_kind_matches_its_own_field_and_no_other() {
        let values = ["l1", "spiffe://example.org/orders", "00ff", "bb", "t1"];
        for (kind, value) in Kind::ALL.into_iter().zip(values) {
            let list = list(&[(kind, value)]);
            assert_eq!(list.revokes(&orders()), Some(kind));
            assert_eq!((list.number(), list.len()), (7, 1));
            for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
                let list = self::list(&[(other, value)]);
                assert_eq!(list.revokes(&orders()), None, "{value} as {other}");
            }
        }
    }

    #[test]
    fn what_says_nothing_of_itself_is_revoked_by_nothing() {
        let list = list(&Kind::ALL.map(|kind| (kind, "x")));
        assert_eq!(list.revokes(&Provenance::default()), None);
        assert!(!list.is_empty() && List::default().is_empty());
    }

    #[test]
    fn another_spelling_or_a_longer_value_is_another_value() {
        let list = list(&[(Kind::SpiffeId, "spiffe://example.org/orders/")]);
        assert_eq!(list.revokes(&orders()), None);
        let list = self::list(&[(Kind::Lineage, "L1"), (Kind::IssuerKey, "b")]);
        assert_eq!(list.revokes(&orders()), None);
    }
}

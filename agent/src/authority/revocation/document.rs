//! The document in the store: what is revoked, since when, until when and why. Pure.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use warifu::SpiffeId;

use crate::{
    authority::{record::unix, settings::Settings, state::MAX_DOCUMENT},
    revocation::{Kind, Origin, Published},
};

/// The version of this layout.
const LAYOUT: u32 = 1;
/// Longest reason, in bytes: a sentence and the number of a ticket.
const MAX_REASON: usize = 256;
/// Longest value but a SPIFFE ID's, in bytes: twice an issuer's longest `kid` or `jti` that we have seen.
const MAX_VALUE: usize = 256;
/// Longest SPIFFE ID (SPIFFE-ID specification §2.3).
const MAX_SPIFFE_ID: usize = 2048;
/// Hex digits of a SHA-256.
const HASH: usize = 64;

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::authority) struct Document {
    layout: u32,
    /// Counts up with every change, and is never below the time of the change (Unix seconds): a list that
    /// is begun anew after the store was lost is not older than the lost one.
    pub(in crate::authority) number: u64,
    pub(in crate::authority) entries: Vec<Entry>,
}

/// Something revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// By what.
    pub kind: Kind,
    /// Which one.
    pub value: String,
    /// Since when, Unix seconds.
    pub revoked_at: u64,
    /// Until when, Unix seconds; until it is taken back where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Why, for people; not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A change of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// By what.
    pub kind: Kind,
    /// Which one.
    pub value: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For how long, in seconds; until nothing that is revoked can be alive where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Take it back.
    #[serde(default)]
    pub undo: bool,
}

/// Why the list was not changed, or can't be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ListError {
    /// Not a value of its kind.
    #[error("{value:?} is no {kind}; expected {expected}")]
    Value {
        /// The kind.
        kind: Kind,
        /// What was given.
        value: String,
        /// What the kind takes.
        expected: &'static str,
    },
    /// A reason nobody would read.
    #[error("the reason has {0} bytes; expected at most {MAX_REASON}, without control characters")]
    Reason(usize),
    /// Zero, or beyond the calendar.
    #[error("revoking for {0} s makes no sense; expected 1 s to 100 years")]
    Span(u64),
    /// Nothing to take back.
    #[error("{kind} {value:?} is not revoked; `warifu authority revoke --list` says what is")]
    NotRevoked {
        /// The kind.
        kind: Kind,
        /// The value.
        value: String,
    },
    /// Over the bound of every store.
    #[error(
        "the revocation list is full: {entries} entries of {MAX_DOCUMENT} bytes together; take back what is no longer \
         needed, or revoke by role, SPIFFE ID or issuer key what many entries stand for"
    )]
    Full {
        /// How many there are.
        entries: usize,
    },
    /// Not JSON of ours.
    #[error("the revocation list in the state store is damaged: {0}; restore it from backup")]
    Damaged(String),
    /// Written by a newer version.
    #[error(
        "the revocation list has layout {0}, and this version knows {LAYOUT}; run the version that wrote it or newer"
    )]
    Newer(u32),
}

impl Default for Document {
    fn default() -> Self {
        Self {
            layout: LAYOUT,
            number: 0,
            entries: Vec::new(),
        }
    }
}

impl Document {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ListError> {
        #[derive(Deserialize)]
        struct Layout {
            layout: u32,
        }
        let damaged = |why: serde_json::Error| ListError::Damaged(why.to_string());
        let Layout { layout } = serde_json::from_slice(bytes).map_err(damaged)?;
        if layout > LAYOUT {
            return Err(ListError::Newer(layout));
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }

    /// The bytes, if the store takes as many.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, ListError> {
        let bytes = serde_json::to_vec(self).map_err(|why| ListError::Damaged(why.to_string()))?;
        if bytes.len() > MAX_DOCUMENT {
            let entries = self.entries.len();
            return Err(ListError::Full { entries });
        }
        Ok(bytes)
    }

    /// Does what `change` says; returns the entry it leaves or takes away.
    pub(super) fn apply(
        &mut self,
        change: &Change,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Entry, ListError> {
        let value = canonical(change.kind, &change.value)?;
        let place = self
            .entries
            .iter()
            .position(|entry| entry.kind == change.kind && entry.value == value);
        if change.undo {
            let kind = change.kind;
            return match place {
                Some(place) => Ok(self.entries.remove(place)),
                None => Err(ListError::NotRevoked { kind, value }),
            };
        }
        let entry = Entry {
            kind: change.kind,
            value,
            revoked_at: unix(now),
            until: until(change, settings, now)?,
            reason: reason(change.reason.as_deref())?,
        };
        match place.and_then(|place| self.entries.get_mut(place)) {
            Some(kept) => *kept = entry.clone(),
            None => self.entries.push(entry.clone()),
        }
        Ok(entry)
    }

    /// Forgets entries whose time is over; whether there were any.
    pub(super) fn sweep(&mut self, now: SystemTime) -> bool {
        let before = self.entries.len();
        let now = unix(now);
        self.entries
            .retain(|entry| entry.until.is_none_or(|until| until > now));
        self.entries.len() < before
    }

    /// The number of the next list.
    pub(super) fn count_up(&mut self, now: SystemTime) {
        self.number = self.number.saturating_add(1).max(unix(now));
    }

    /// What agents are told: no reasons, no times, and of roles a hash.
    pub(super) fn published(&self, as_of: SystemTime) -> Published {
        let entry = |entry: &Entry| {
            let value = match entry.kind {
                Kind::Role => Origin::hash_of_role(&entry.value),
                _ => entry.value.clone(),
            };
            (entry.kind, value)
        };
        Published {
            number: self.number,
            as_of,
            entries: self.entries.iter().map(entry).collect(),
        }
    }
}

/// The one spelling of a value.
fn canonical(kind: Kind, value: &str) -> Result<String, ListError> {
    let refused = |expected| ListError::Value {
        kind,
        value: value.chars().take(MAX_VALUE).collect(),
        expected,
    };
    let is_plain = |value: &str| {
        (1..=MAX_VALUE).contains(&value.len()) && value.chars().all(|c| c.is_ascii_graphic())
    };
    match kind {
        Kind::Lineage if is_plain(value) => Ok(value.to_owned()),
        Kind::Lineage => Err(refused("a `lineage` of the audit log")),
        Kind::TokenId if is_plain(value) => Ok(value.to_owned()),
        Kind::TokenId => Err(refused("a `jti` of the audit log")),
        Kind::IssuerKey if value.len() == HASH && value.chars().all(|c| c.is_ascii_hexdigit()) => {
            Ok(value.to_ascii_lowercase())
        }
        Kind::IssuerKey if is_plain(value) => Ok(value.to_owned()),
        Kind::IssuerKey => Err(refused(
            "the SHA-256 of a CA certificate's public key (64 hex digits), or the `kid` of a token's key",
        )),
        Kind::Role if is_role(value) => Ok(value.to_owned()),
        Kind::Role => Err(refused(
            "ACCOUNT:role/NAME, such as 123456789012:role/batch, without the role's path",
        )),
        Kind::SpiffeId => spiffe_id(value).ok_or_else(|| {
            refused("a workload's SPIFFE ID, such as spiffe://example.org/orders, and none under /warifu/")
        }),
    }
}

/// A workload's, of any trust domain: federated ones call here, too.
fn spiffe_id(value: &str) -> Option<String> {
    if value.len() > MAX_SPIFFE_ID {
        return None;
    }
    let id = SpiffeId::new(value).ok()?;
    let path = id.path();
    let reserved = path == "/warifu" || path.starts_with("/warifu/");
    (!path.is_empty() && !reserved && id.to_string() == value).then(|| value.to_owned())
}

/// IAM: 12 digits, then up to 64 of `\w+=,.@-`.
fn is_role(value: &str) -> bool {
    let Some((account, name)) = value.split_once(":role/") else {
        return false;
    };
    account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

fn reason(reason: Option<&str>) -> Result<Option<String>, ListError> {
    match reason {
        Some(text) if text.len() > MAX_REASON || text.chars().any(char::is_control) => {
            Err(ListError::Reason(text.len()))
        }
        reason => Ok(reason.map(str::to_owned)),
    }
}

/// So late that nothing of what is revoked is alive then. What a stolen key can sign, and who a role or
/// SPIFFE ID comes back as, has no such end: those are revoked until somebody takes it back.
fn until(change: &Change, settings: &Settings, now: SystemTime) -> Result<Option<u64>, ListError> {
    const CENTURY: u64 = 100 * 365 * 24 * 3600;
    let life = match (change.seconds, change.kind) {
        (Some(seconds), _) if !(1..=CENTURY).contains(&seconds) => {
            return Err(ListError::Span(seconds));
        }
        (Some(seconds), _) => Some(Duration::from_secs(seconds)),
        (None, Kind::Lineage) => Some(settings.lineage_outlives()),
        (None, Kind::TokenId) => Some(settings.token_outlives()),
        (None, Kind::SpiffeId | Kind::Role | Kind::IssuerKey) => None,
    };
    Ok(life.map(|life| unix(now + life)))
}

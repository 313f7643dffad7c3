//! What replicas must agree on: small versioned documents, join tokens, and who uses what can be used
//! once. Losing the store stops rotation and whatever is used once, not issuing.
//!
//! [`Memory`] and [`Sqlite`] are for one replica, [`DynamoDb`] is for any number.

use std::{
    fmt,
    pin::Pin,
    time::{Duration, SystemTime},
};

use thiserror::Error;

use super::rules::Facts;

mod dynamodb;
mod memory;
mod sqlite;

pub use dynamodb::DynamoDb;
pub use memory::Memory;
pub use sqlite::Sqlite;

/// Most join tokens kept at once. Each is below 10 KiB; an operator who needs more has another problem.
pub const MAX_JOIN_TOKENS: usize = 100_000;

/// Most claims kept at once, in a store of one machine. Only proven evidence that a rule admits makes one,
/// of below 250 bytes; 10,000 agents that show a new token every hour, each good for a day, make 240,000.
pub const MAX_CLAIMS: usize = 1_000_000;

/// Largest document. DynamoDB takes items of 400 KB, names included; a document beyond this, in any store,
/// has outgrown what it was made for.
pub const MAX_DOCUMENT: usize = 350 * 1024;

/// A join token is remembered this long after its expiry, so that its late user reads "expired" and not
/// "unknown".
const REMEMBER: Duration = Duration::from_secs(24 * 3600);

/// A claim is kept this much longer than asked: a replica whose clock is behind may still take the
/// evidence for good.
const CLOCKS: Duration = Duration::from_secs(60);

/// An answer of the store.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Where state lives. Every operation is atomic, also between processes that share the store.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The document, if there is one; what was swapped last, by whichever replica.
    fn load(&self, which: Document) -> Pending<'_, Option<Versioned>>;

    /// Replaces the document of version `expected` (`None`: there must be none yet) by `bytes`, at most
    /// [`MAX_DOCUMENT`]. False if it was not of that version any more.
    fn compare_and_swap(
        &self,
        which: Document,
        expected: Option<i64>,
        bytes: Vec<u8>,
    ) -> Pending<'_, bool>;

    /// Keeps a join token, and forgets those that expired long before `now`.
    fn put_join_token(&self, token: JoinToken, now: SystemTime) -> Pending<'_, ()>;

    /// The join token with this hash, if there is one. Says nothing about whether it may be used.
    fn join_token(&self, hash: TokenHash) -> Pending<'_, Option<JoinToken>>;

    /// Gives what can be used once to `claim.holder`, unless another has it (S15). Whether it may be used
    /// at all, the caller has found out before.
    fn claim(&self, claim: Claim, now: SystemTime) -> Pending<'_, Claimed>;
}

/// A document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Document {
    /// Roots, slots, keys (wrapped), the bundle's sequence.
    CaState,
    /// What is revoked.
    Revocations,
    /// The bundles of other trust domains.
    Federation,
}

impl Document {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CaState, Self::Revocations, Self::Federation];

    /// What it goes by in every store.
    pub fn name(self) -> &'static str {
        match self {
            Self::CaState => "ca_state",
            Self::Revocations => "revocations",
            Self::Federation => "federation",
        }
    }
}

/// A document with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Counts up from 1 with every change. Signed because SQL's integers are.
    pub version: i64,
    /// The bytes.
    pub document: Vec<u8>,
}

/// SHA-256 of a join token: the token itself is kept nowhere.
pub type TokenHash = [u8; 32];

/// A join token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Its hash.
    pub hash: TokenHash,
    /// Whose facts these are.
    pub attestor: String,
    /// What it attests.
    pub facts: Facts,
    /// The lineage of everything it leads to.
    pub lineage: String,
    /// From then on nobody may use it. Kept in whole milliseconds.
    pub expires_at: SystemTime,
}

/// A wish to be the one who uses what can be used once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What: a hash of it.
    pub id: [u8; 32],
    /// Who: the thumbprint of a renewal key.
    pub holder: String,
    /// From then on the thing is worth nothing by itself, and the claim may be forgotten.
    pub until: SystemTime,
}

impl Claim {
    /// The claim is kept until then. A claim on what has expired meanwhile is kept for a moment too.
    fn kept_until(&self, now: SystemTime) -> SystemTime {
        self.until.max(now) + CLOCKS
    }
}

/// What became of a [`Claim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It is the holder's, now or already before.
    Yours,
    /// Another has it.
    Another,
}

/// Why the store did not answer.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The medium failed.
    #[error("the state store: {0}")]
    Failed(String),
    /// It would not, and will not until somebody changes something.
    #[error("the state store: {0}")]
    Refused(String),
    /// What is on the medium is not what was written there.
    #[error("the state store: {0}; nothing was changed: restore it from backup")]
    Damaged(String),
    /// Over [`MAX_JOIN_TOKENS`].
    #[error("there are {MAX_JOIN_TOKENS} join tokens already; wait until some expire")]
    Full,
    /// Over [`MAX_CLAIMS`]: what can be used once is not given out, as nobody could remember to whom.
    #[error(
        "the state store: {MAX_CLAIMS} used join tokens and tokens are remembered already; some expire soon, and state: dynamodb has no such limit"
    )]
    TooManyClaims,
    /// Over [`MAX_DOCUMENT`].
    #[error(
        "the state store: the document {document} would have {size} bytes, and at most {MAX_DOCUMENT} fit; nothing was changed"
    )]
    TooLarge {
        /// Its name.
        document: &'static str,
        /// Its size.
        size: usize,
    },
    /// Another process has the database.
    #[error(
        "the state store: {0} is in use by another process, and state: sqlite is for one replica; end the other one, or use state: dynamodb"
    )]
    InUse(String),
    /// Written by a newer version.
    #[error(
        "the state store has schema {found}, and this version knows up to {known}; run the version that wrote it or newer"
    )]
    Newer {
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
}

/// Refuses a document that would not fit everywhere.
fn check_size(which: Document, bytes: &[u8]) -> Result<(), StoreError> {
    let (document, size) = (which.name(), bytes.len());
    match size {
        ..=MAX_DOCUMENT => Ok(()),
        _ => Err(StoreError::TooLarge { document, size }),
    }
}

/// What a store that counts keeps at most.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    join_tokens: usize,
    claims: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            join_tokens: MAX_JOIN_TOKENS,
            claims: MAX_CLAIMS,
        }
    }
}

/// Unix milliseconds.
fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// From Unix milliseconds.
fn from_millis(millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

impl StoreError {
    /// Whether it may pass by itself.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

#[cfg(test)]
mod tests;

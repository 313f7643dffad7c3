//! What replicas must agree on: one small versioned document (`ca_state`) and
//! the join tokens. Losing the store stops rotation and single-use tokens, not issuing.

use std::{fmt, pin::Pin, time::SystemTime};

use thiserror::Error;

use super::rules::Facts;

mod memory;
mod sqlite;

pub use memory::Memory;
pub use sqlite::Sqlite;

/// Most join tokens kept at once. Each is below 10 KiB; an operator who needs more has another problem.
pub const MAX_JOIN_TOKENS: usize = 100_000;

/// An answer of the store.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Where state lives. Every operation is atomic, also between processes that share the store.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The document, if there is one.
    fn load(&self) -> Pending<'_, Option<Versioned>>;

    /// Replaces the document of version `expected` (`None`: there must be none yet). False if it was
    /// not of that version any more.
    fn compare_and_swap(&self, expected: Option<i64>, document: Vec<u8>) -> Pending<'_, bool>;

    /// Keeps a join token, and forgets those that expired long before `now`.
    fn put_join_token(&self, token: JoinToken, now: SystemTime) -> Pending<'_, ()>;

    /// The join token with this hash, if there is one. Says nothing about whether it may be used.
    fn join_token(&self, hash: TokenHash) -> Pending<'_, Option<JoinToken>>;

    /// Gives the join token to the renewal key with `thumbprint`, unless another key has it (S15).
    fn consume_join_token(
        &self,
        hash: TokenHash,
        thumbprint: String,
        now: SystemTime,
    ) -> Pending<'_, Consumption>;
}

/// SHA-256 of a join token: the token itself is kept nowhere.
pub type TokenHash = [u8; 32];

/// The document with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Counts up from 1 with every change. Signed because SQL's integers are.
    pub version: i64,
    /// The bytes.
    pub document: Vec<u8>,
}

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
    /// From then on nobody may use it.
    pub expires_at: SystemTime,
}

/// What became of an attempt to use a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumption {
    /// It belongs to this key, now or already before.
    Yours,
    /// Another key used it.
    Another,
    /// Nobody may use it any more.
    Expired,
    /// There is no such token.
    Unknown,
}

/// Why the store did not answer.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The medium failed.
    #[error("the state store: {0}")]
    Failed(String),
    /// What is on the medium is not what was written there.
    #[error("the state store: {0}; nothing was changed: restore it from backup")]
    Damaged(String),
    /// Over [`MAX_JOIN_TOKENS`].
    #[error("there are {MAX_JOIN_TOKENS} join tokens already; wait until some expire")]
    Full,
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

#[cfg(test)]
mod tests;

//! The tables, and how older ones become today's.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{super::CLOCKS, StoreError};

/// `user_version` of [`TABLES`].
const SCHEMA: i64 = 2;

const TABLES: &str = "
    CREATE TABLE documents (
        name     TEXT PRIMARY KEY,
        version  INTEGER NOT NULL,
        document BLOB NOT NULL
    ) STRICT;
    CREATE TABLE join_tokens (
        hash       BLOB PRIMARY KEY,
        attestor   TEXT NOT NULL,
        facts      TEXT NOT NULL,
        lineage    TEXT NOT NULL,
        expires_at INTEGER NOT NULL -- Unix milliseconds
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX join_tokens_by_expiry ON join_tokens (expires_at);
    CREATE TABLE claims (
        id         BLOB PRIMARY KEY,
        holder     TEXT NOT NULL,   -- thumbprint of a renewal key
        kept_until INTEGER NOT NULL -- Unix milliseconds
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX claims_by_end ON claims (kept_until);
    -- Counting a million rows takes milliseconds, and every claim asks.
    CREATE TABLE counted (claims INTEGER NOT NULL) STRICT;
    INSERT INTO counted VALUES (0);
    CREATE TRIGGER claim_made AFTER INSERT ON claims
        BEGIN UPDATE counted SET claims = claims + 1; END;
    CREATE TRIGGER claim_forgotten AFTER DELETE ON claims
        BEGIN UPDATE counted SET claims = claims - 1; END;
";

/// Makes the tables, or brings older ones up to date: whole, or not at all.
pub(super) fn prepare(db: &mut Connection) -> Result<(), StoreError> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        SCHEMA => return Ok(()),
        0 => transaction.execute_batch(TABLES)?,
        1 => from_1(&transaction)?,
        found => {
            return Err(StoreError::Newer {
                found,
                known: SCHEMA,
            });
        }
    }
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()?;
    Ok(())
}

/// Schema 1 had one document, and a join token's user beside the token.
fn from_1(db: &Transaction<'_>) -> Result<(), StoreError> {
    db.execute_batch(
        "ALTER TABLE join_tokens RENAME TO old_join_tokens; DROP INDEX join_tokens_by_expiry;",
    )?;
    db.execute_batch(TABLES)?;
    db.execute_batch(
        "INSERT INTO documents SELECT 'ca_state', version, document FROM ca_state;
         INSERT INTO join_tokens SELECT hash, attestor, facts, lineage, expires_at FROM old_join_tokens;",
    )?;
    let clocks = i64::try_from(CLOCKS.as_millis()).unwrap_or(i64::MAX);
    db.execute(
        "INSERT INTO claims SELECT hash, used_by, expires_at + ?1 FROM old_join_tokens
         WHERE used_by IS NOT NULL",
        params![clocks],
    )?;
    db.execute_batch("DROP TABLE old_join_tokens; DROP TABLE ca_state;")?;
    Ok(())
}

//! One file, for one machine: SQLite in WAL mode, every commit synced.
//!
//! ```text
//! change ──▶ queue ──▶ thread of the writer: all that wait in one transaction, one sync ──▶ answers
//! question ─▶ queue ──▶ thread of the reader
//! ```

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::{
    Bounds, Claim, Claimed, Document, JoinToken, Pending, REMEMBER, Store, StoreError, TokenHash,
    Versioned, check_size, from_millis, millis,
};
use crate::config::private;

mod schema;
#[cfg(test)]
mod tests;
mod worker;

use worker::Worker;

/// How long to wait for somebody else's transaction: a backup under way, say.
const BUSY: Duration = Duration::from_secs(5);

/// How long to wait for a process that is ending: an orchestrator may start the next one a moment early.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often to look whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// Beside the database. A lock on the database itself would keep `.backup` out, and a lock is for a file
/// that nobody replaces.
const LOCK_SUFFIX: &str = ".lock";

/// Claims forgotten with each new one, so that sweeping keeps up and no claim waits for it.
const SWEEP: i64 = 16;

/// A database file, which no other process has. Clones share it.
#[derive(Debug, Clone)]
pub struct Sqlite {
    writer: Worker,
    reader: Worker,
    bounds: Bounds,
}

impl Sqlite {
    /// Opens or makes the file (0600). Blocks.
    ///
    /// # Errors
    /// When it can't be opened, is open to others, in use by another process, damaged, or was written by a
    /// newer version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, PATIENCE, Bounds::default())
    }

    /// Opens the file if it is a database of ours; `None` where there is no file, or an empty one,
    /// which stays as it is. Blocks.
    ///
    /// # Errors
    /// As [`Sqlite::open`].
    pub fn reopen(path: &Path) -> Result<Option<Self>, StoreError> {
        let version = || -> Result<i64, rusqlite::Error> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let db = Connection::open_with_flags(path, flags)?;
            db.query_row("PRAGMA user_version", [], |row| row.get(0))
        };
        if !path.exists() || version().map_err(|why| StoreError::from(why).at(path))? == 0 {
            return Ok(None);
        }
        Self::open(path).map(Some)
    }

    #[cfg(test)]
    pub(super) fn bounded(path: &Path, bounds: Bounds) -> Result<Self, StoreError> {
        Self::open_with(path, Duration::ZERO, bounds)
    }

    fn open_with(path: &Path, patience: Duration, bounds: Bounds) -> Result<Self, StoreError> {
        let lock = Arc::new(lock(path, patience)?);
        private::ensure_file(path).map_err(|why| StoreError::Failed(why.to_string()))?;
        let connected = || {
            let mut db = connect(path)?;
            // It stays in the file, so the reader has it too.
            db.pragma_update(None, "journal_mode", "WAL")?;
            // A consumed token must stay consumed after a power cut.
            db.pragma_update(None, "synchronous", "FULL")?;
            schema::prepare(&mut db)?;
            let start = |name, db, transactions| {
                Worker::start(name, db, transactions, Arc::clone(&lock))
                    .map_err(|why| StoreError::Failed(why.to_string()))
            };
            Ok(Self {
                writer: start("state-write", db, TransactionBehavior::Immediate)?,
                reader: start("state-read", connect(path)?, TransactionBehavior::Deferred)?,
                bounds,
            })
        };
        connected().map_err(|why: StoreError| why.at(path))
    }
}

impl Store for Sqlite {
    fn load(&self, which: Document) -> Pending<'_, Option<Versioned>> {
        self.reader.run(move |db| {
            let row = db.query_row(
                "SELECT version, document FROM documents WHERE name = ?1",
                [which.name()],
                |row| {
                    Ok(Versioned {
                        version: row.get(0)?,
                        document: row.get(1)?,
                    })
                },
            );
            Ok(row.optional()?)
        })
    }

    fn compare_and_swap(
        &self,
        which: Document,
        expected: Option<i64>,
        document: Vec<u8>,
    ) -> Pending<'_, bool> {
        if let Err(why) = check_size(which, &document) {
            return Box::pin(std::future::ready(Err(why)));
        }
        self.writer.run(move |db| {
            let changed = match expected {
                None => db.execute(
                    "INSERT INTO documents (name, version, document) VALUES (?1, 1, ?2)
                     ON CONFLICT DO NOTHING",
                    params![which.name(), document],
                )?,
                Some(version) => db.execute(
                    "UPDATE documents SET version = version + 1, document = ?3
                     WHERE name = ?1 AND version = ?2",
                    params![which.name(), version, document],
                )?,
            };
            Ok(changed == 1)
        })
    }

    fn put_join_token(&self, token: JoinToken, now: SystemTime) -> Pending<'_, ()> {
        let most = self.bounds.join_tokens;
        self.writer.run(move |db| {
            let facts = serde_json::to_string(&token.facts)
                .map_err(|why| StoreError::Failed(why.to_string()))?;
            let forgotten = now.checked_sub(REMEMBER).map_or(0, millis);
            db.execute(
                "DELETE FROM join_tokens WHERE expires_at <= ?1",
                params![forgotten],
            )?;
            let count: i64 =
                db.query_row("SELECT count(*) FROM join_tokens", [], |row| row.get(0))?;
            if usize::try_from(count).is_ok_and(|count| count >= most) {
                return Err(StoreError::Full);
            }
            db.execute(
                "INSERT INTO join_tokens (hash, attestor, facts, lineage, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    token.hash,
                    token.attestor,
                    facts,
                    token.lineage,
                    millis(token.expires_at)
                ],
            )?;
            Ok(())
        })
    }

    fn join_token(&self, hash: TokenHash) -> Pending<'_, Option<JoinToken>> {
        self.reader.run(move |db| {
            let row = db.query_row(
                "SELECT attestor, facts, lineage, expires_at FROM join_tokens WHERE hash = ?1",
                [hash],
                |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, String>(1)?,
                        row.get::<_, String>(2)?,
                        row.get::<_, i64>(3)?,
                    ))
                },
            );
            let Some((attestor, facts, lineage, expires_at)) = row.optional()? else {
                return Ok(None);
            };
            Ok(Some(JoinToken {
                hash,
                attestor,
                facts: serde_json::from_str(&facts)
                    .map_err(|why| StoreError::Failed(format!("a join token's facts: {why}")))?,
                lineage,
                expires_at: from_millis(expires_at),
            }))
        })
    }

    fn claim(&self, claim: Claim, now: SystemTime) -> Pending<'_, Claimed> {
        let most = self.bounds.claims;
        self.writer.run(move |db| decide(db, &claim, now, most))
    }
}

/// One writer, so what is read here stays true until the commit.
fn decide(
    db: &Connection,
    claim: &Claim,
    now: SystemTime,
    most: usize,
) -> Result<Claimed, StoreError> {
    let end = millis(claim.kept_until(now));
    let kept = db
        .query_row(
            "SELECT holder, kept_until FROM claims WHERE id = ?1",
            [claim.id],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)),
        )
        .optional()?;
    match kept {
        Some((holder, until)) if until > millis(now) && holder != claim.holder => {
            return Ok(Claimed::Another);
        }
        // A retry, or a token shown again: nothing to write.
        Some((holder, until)) if until >= end && holder == claim.holder => {
            return Ok(Claimed::Yours);
        }
        _ => {}
    }
    db.execute(
        "DELETE FROM claims WHERE id IN
         (SELECT id FROM claims WHERE kept_until <= ?1 ORDER BY kept_until LIMIT ?2)",
        params![millis(now), SWEEP],
    )?;
    let count: i64 = db.query_row("SELECT claims FROM counted", [], |row| row.get(0))?;
    if usize::try_from(count).is_ok_and(|count| count >= most) {
        return Err(StoreError::TooManyClaims);
    }
    db.execute(
        "INSERT INTO claims (id, holder, kept_until) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, kept_until = excluded.kept_until",
        params![claim.id, claim.holder, end],
    )?;
    Ok(Claimed::Yours)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    Ok(db)
}

/// Keeps other processes out for as long as the answer lives.
fn lock(path: &Path, patience: Duration) -> Result<File, StoreError> {
    let failed = |why: std::io::Error| StoreError::Failed(why.to_string()).at(path);
    let mut name = path.as_os_str().to_owned();
    name.push(LOCK_SUFFIX);
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(PathBuf::from(name))
        .map_err(failed)?;
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(POLL);
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(StoreError::InUse(path.display().to_string()));
            }
            Err(std::fs::TryLockError::Error(why)) => return Err(failed(why)),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(why: rusqlite::Error) -> Self {
        match why.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(why.to_string())
            }
            _ => Self::Failed(why.to_string()),
        }
    }
}

impl StoreError {
    fn at(self, path: &Path) -> Self {
        let opening = |why| format!("opening {}: {why}", path.display());
        match self {
            Self::Failed(why) => Self::Failed(opening(why)),
            Self::Damaged(why) => Self::Damaged(opening(why)),
            other => other,
        }
    }
}

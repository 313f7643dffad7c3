//! One file, for one machine: SQLite in WAL mode, every commit synced.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::{
    Consumption, JoinToken, MAX_JOIN_TOKENS, Pending, Store, StoreError, TokenHash, Versioned,
};

/// An expired token is remembered this long, so that its late user reads "expired" and not "unknown".
pub(super) const REMEMBER: Duration = Duration::from_secs(24 * 3600);

/// How long to wait for another process's transaction.
const BUSY: Duration = Duration::from_secs(5);

/// `user_version` of the schema below.
const SCHEMA: i64 = 1;

const TABLES: &str = "
    CREATE TABLE ca_state (
        id       INTEGER PRIMARY KEY CHECK (id = 1),
        version  INTEGER NOT NULL,
        document BLOB NOT NULL
    ) STRICT;
    CREATE TABLE join_tokens (
        hash       BLOB PRIMARY KEY,
        attestor   TEXT NOT NULL,
        facts      TEXT NOT NULL,
        lineage    TEXT NOT NULL,
        expires_at INTEGER NOT NULL, -- Unix milliseconds
        used_by    TEXT              -- thumbprint of the first renewal key
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX join_tokens_by_expiry ON join_tokens (expires_at);
";

/// A database file. Its work is done on threads that may block.
#[derive(Debug, Clone)]
pub struct Sqlite(Arc<Mutex<Connection>>);

impl Sqlite {
    /// Opens or makes the file (0600). Blocks.
    ///
    /// # Errors
    /// When it can't be opened, is damaged, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|why| StoreError::Failed(why.to_string()).at(path))?;
        let connected = || {
            let mut db = Connection::open(path)?;
            prepare(&mut db)?;
            Ok(Self(Arc::new(Mutex::new(db))))
        };
        connected().map_err(|why: StoreError| why.at(path))
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

    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<'static, T> {
        let db = Arc::clone(&self.0);
        Box::pin(async move {
            tokio::task::spawn_blocking(move || {
                work(&mut db.lock().unwrap_or_else(PoisonError::into_inner))
            })
            .await
            .map_err(|why| StoreError::Failed(why.to_string()))?
        })
    }
}

impl Store for Sqlite {
    fn load(&self) -> Pending<'_, Option<Versioned>> {
        self.run(|db| {
            let row = db
                .query_row("SELECT version, document FROM ca_state", [], |row| {
                    Ok(Versioned {
                        version: row.get(0)?,
                        document: row.get(1)?,
                    })
                })
                .optional()?;
            Ok(row)
        })
    }

    fn compare_and_swap(&self, expected: Option<i64>, document: Vec<u8>) -> Pending<'_, bool> {
        self.run(move |db| {
            let changed = match expected {
                None => db.execute(
                    "INSERT INTO ca_state (id, version, document) VALUES (1, 1, ?1)
                     ON CONFLICT DO NOTHING",
                    params![document],
                )?,
                Some(version) => db.execute(
                    "UPDATE ca_state SET version = version + 1, document = ?2 WHERE version = ?1",
                    params![version, document],
                )?,
            };
            Ok(changed == 1)
        })
    }

    fn put_join_token(&self, token: JoinToken, now: SystemTime) -> Pending<'_, ()> {
        self.run(move |db| {
            let facts = serde_json::to_string(&token.facts)
                .map_err(|why| StoreError::Failed(why.to_string()))?;
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let forgotten = now.checked_sub(REMEMBER).map_or(0, millis);
            transaction.execute(
                "DELETE FROM join_tokens WHERE expires_at <= ?1",
                params![forgotten],
            )?;
            let count: i64 =
                transaction.query_row("SELECT count(*) FROM join_tokens", [], |row| row.get(0))?;
            if usize::try_from(count).is_ok_and(|count| count >= MAX_JOIN_TOKENS) {
                return Err(StoreError::Full);
            }
            transaction.execute(
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
            transaction.commit()?;
            Ok(())
        })
    }

    fn join_token(&self, hash: TokenHash) -> Pending<'_, Option<JoinToken>> {
        self.run(move |db| {
            let row = db
                .query_row(
                    "SELECT attestor, facts, lineage, expires_at FROM join_tokens WHERE hash = ?1",
                    params![hash],
                    |row| {
                        Ok((
                            row.get::<_, String>(0)?,
                            row.get::<_, String>(1)?,
                            row.get::<_, String>(2)?,
                            row.get::<_, i64>(3)?,
                        ))
                    },
                )
                .optional()?;
            let Some((attestor, facts, lineage, expires_at)) = row else {
                return Ok(None);
            };
            Ok(Some(JoinToken {
                hash,
                attestor,
                facts: serde_json::from_str(&facts)
                    .map_err(|why| StoreError::Failed(format!("a join token's facts: {why}")))?,
                lineage,
                expires_at: SystemTime::UNIX_EPOCH
                    + Duration::from_millis(u64::try_from(expires_at).unwrap_or(0)),
            }))
        })
    }

    fn consume_join_token(
        &self,
        hash: TokenHash,
        thumbprint: String,
        now: SystemTime,
    ) -> Pending<'_, Consumption> {
        self.run(move |db| {
            // One statement decides; whoever comes second finds the row taken.
            let mine = db.execute(
                "UPDATE join_tokens SET used_by = ?2
                 WHERE hash = ?1 AND expires_at > ?3 AND (used_by IS NULL OR used_by = ?2)",
                params![hash, thumbprint, millis(now)],
            )?;
            if mine == 1 {
                return Ok(Consumption::Yours);
            }
            let expires_at: Option<i64> = db
                .query_row(
                    "SELECT expires_at FROM join_tokens WHERE hash = ?1",
                    params![hash],
                    |row| row.get(0),
                )
                .optional()?;
            Ok(match expires_at {
                None => Consumption::Unknown,
                Some(at) if at <= millis(now) => Consumption::Expired,
                Some(_) => Consumption::Another,
            })
        })
    }
}

fn prepare(db: &mut Connection) -> Result<(), StoreError> {
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // A consumed token must stay consumed after a power cut.
    db.pragma_update(None, "synchronous", "FULL")?;
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        0 => {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", SCHEMA)?;
        }
        SCHEMA => {}
        found => {
            return Err(StoreError::Newer {
                found,
                known: SCHEMA,
            });
        }
    }
    transaction.commit()?;
    Ok(())
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
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

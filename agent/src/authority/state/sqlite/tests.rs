use std::os::unix::fs::PermissionsExt;

use super::*;

/// What schema 1 looked like, with a document, a used token and one that nobody has used.
const SCHEMA_1: &str = "
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
    INSERT INTO ca_state VALUES (1, 7, x'0102');
    INSERT INTO join_tokens VALUES (zeroblob(32), 'join', '{\"service\":\"orders\"}', 'l1', 1800000600000, 'k1');
    INSERT INTO join_tokens VALUES (CAST(replace(hex(zeroblob(16)), '00', 'aa') AS BLOB), 'join', '{}', 'l2', 1800000600000, NULL);
    PRAGMA user_version = 1;
";

fn t0() -> SystemTime {
    from_millis(1_800_000_000_000)
}

fn block_on<T>(answer: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(answer)
}

fn claim(store: &Sqlite, id: [u8; 32], holder: &str) -> Claimed {
    let claim = Claim {
        id,
        holder: holder.to_owned(),
        until: t0() + Duration::from_secs(600),
    };
    block_on(store.claim(claim, t0())).unwrap()
}

#[test]
fn s15_a_join_token_that_was_used_under_schema_1_stays_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    private::ensure_file(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(SCHEMA_1).unwrap();
    drop(db);

    let store = Sqlite::reopen(&path).unwrap().unwrap();
    let document = block_on(store.load(Document::CaState)).unwrap().unwrap();
    assert_eq!((document.version, document.document), (7, vec![1, 2]));
    assert!(block_on(store.compare_and_swap(Document::CaState, Some(7), vec![3])).unwrap());
    let (used, unused) = ([0; 32], [b'a'; 32]);
    let token = block_on(store.join_token(used)).unwrap().unwrap();
    assert_eq!(token.facts["service"], "orders");
    assert_eq!(token.expires_at, t0() + Duration::from_secs(600));
    assert!(block_on(store.join_token(unused)).unwrap().is_some());
    assert_eq!(claim(&store, used, "k2"), Claimed::Another);
    assert_eq!(claim(&store, used, "k1"), Claimed::Yours);
    assert_eq!(claim(&store, unused, "k2"), Claimed::Yours);
    drop(store);
    // It is of today's schema now, and counts its claims.
    let store = Sqlite::reopen(&path).unwrap().unwrap();
    let counted = store.writer.run(|db| {
        let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        Ok(db.query_row("SELECT claims FROM counted", [], count)?)
    });
    assert_eq!(block_on(counted).unwrap(), 2);
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    private::ensure_file(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(SCHEMA_1).unwrap();
    // The last step of the migration can't find what it wants.
    db.execute_batch("DROP TABLE ca_state").unwrap();
    drop(db);
    Sqlite::open(&path).unwrap_err();
    let db = Connection::open(&path).unwrap();
    let count = |sql| db.query_row::<i64, _, _>(sql, [], |row| row.get(0));
    assert_eq!(count("PRAGMA user_version").unwrap(), 1);
    let used = count("SELECT count(*) FROM join_tokens WHERE used_by IS NOT NULL");
    assert_eq!(used.unwrap(), 1);
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    drop(Sqlite::open(&path).unwrap());
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let refused = Sqlite::open(&path).unwrap_err();
    assert!(
        matches!(refused, StoreError::Newer { found: 99, .. }),
        "{refused}"
    );
}

#[test]
fn what_is_no_database_of_ours_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    assert!(Sqlite::reopen(&path).unwrap().is_none());
    assert!(!path.exists());
    private::ensure_file(&path).unwrap();
    for content in [&b""[..], &[7; 8192]] {
        std::fs::write(&path, content).unwrap();
        let opened = Sqlite::reopen(&path);
        if content.is_empty() {
            assert!(opened.unwrap().is_none());
        } else {
            let refused = opened.unwrap_err().to_string();
            assert!(
                refused.contains("state.db: ") && refused.contains("backup"),
                "{refused}"
            );
        }
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    std::fs::remove_file(&path).unwrap();
    drop(Sqlite::open(&path).unwrap());
    assert!(Sqlite::reopen(&path).unwrap().is_some());
}

#[test]
fn s12_a_database_that_others_may_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    drop(Sqlite::open(&path).unwrap());
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let refused = Sqlite::open(&path).unwrap_err().to_string();
    assert!(refused.contains("chmod 600 "), "{refused}");
}

#[test]
fn a_second_process_on_the_same_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let first = Sqlite::open(&path).unwrap();
    let second = Sqlite::open_with(&path, Duration::ZERO, Bounds::default());
    let refused = second.unwrap_err().to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
    assert!(refused.contains("state: dynamodb"), "{refused}");
    let also_first = first.clone();
    drop(first);
    assert_eq!(claim(&also_first, [1; 32], "k1"), Claimed::Yours);
    drop(also_first);
    let next = Sqlite::open(&path).unwrap();
    assert_eq!(claim(&next, [1; 32], "k2"), Claimed::Another);
}

#[test]
fn what_fails_beside_others_takes_back_its_own_and_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&dir.path().join("state.db")).unwrap();
    let claim = |id: u8| Claim {
        id: [id; 32],
        holder: "k".to_owned(),
        until: t0(),
    };
    block_on(async {
        // Queued before the thread can have done the first: one batch, or several.
        let good = store.claim(claim(1), t0());
        let bad = store.writer.run::<()>(|db| {
            db.execute("DELETE FROM claims", [])?;
            Err(StoreError::Failed("on purpose".to_owned()))
        });
        let also_good = store.claim(claim(2), t0());
        let count = store.writer.run(|db| {
            let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            Ok(db.query_row("SELECT count(*) FROM claims", [], count)?)
        });
        assert_eq!(good.await.unwrap(), Claimed::Yours);
        bad.await.unwrap_err();
        assert_eq!(also_good.await.unwrap(), Claimed::Yours);
        assert_eq!(count.await.unwrap(), 2);
    });
}

#[test]
fn changes_that_wait_together_are_committed_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Sqlite::open(&path).unwrap();
    let (go, wait) = std::sync::mpsc::channel();
    let count = |db: &Connection| -> Result<i64, StoreError> {
        Ok(db.query_row("SELECT count(*) FROM claims", [], |row| row.get(0))?)
    };
    let (begun, begins) = std::sync::mpsc::channel();
    // It has a transaction to itself, and until it is done the others wait.
    let first = store.writer.run(move |_| {
        let _ = begun.send(());
        let told = wait.recv();
        told.map_err(|why| StoreError::Failed(why.to_string()))
    });
    begins.recv().unwrap();
    let others: Vec<_> = (1..=64)
        .map(|id| {
            let claim = Claim {
                id: [id; 32],
                holder: "k".to_owned(),
                until: t0(),
            };
            store.claim(claim, t0())
        })
        .collect();
    let last = store
        .writer
        .run(move |db| Ok((count(db)?, count(&connect(&path)?)?)));
    go.send(()).unwrap();
    block_on(async {
        first.await.unwrap();
        assert_eq!(last.await.unwrap(), (64, 0), "to others none is done yet");
        for other in others {
            assert_eq!(other.await.unwrap(), Claimed::Yours);
        }
    });
}

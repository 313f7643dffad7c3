//! One suite, run over every store.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use super::*;

fn t0() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn token(hash: u8) -> JoinToken {
    JoinToken {
        hash: [hash; 32],
        attestor: "join".into(),
        facts: Facts::from([("service".into(), "orders".into())]),
        lineage: "l1".into(),
        expires_at: t0() + Duration::from_secs(600),
    }
}

fn block_on<T>(answer: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(answer)
}

/// Runs `test` over every store; `again` opens another handle to the same one, as a second process would.
fn over_every_store(test: impl Fn(&dyn Fn() -> Arc<dyn Store>)) {
    let memory: Arc<dyn Store> = Arc::new(Memory::default());
    test(&|| Arc::clone(&memory));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    test(&|| Arc::new(Sqlite::open(&path).unwrap()));
}

fn consume(store: &dyn Store, hash: u8, key: &str, now: SystemTime) -> Consumption {
    block_on(store.consume_join_token([hash; 32], key.to_owned(), now)).unwrap()
}

#[test]
fn the_document_changes_only_from_the_version_one_knows() {
    over_every_store(|open| {
        let (one, other) = (open(), open());
        assert_eq!(block_on(one.load()).unwrap(), None);
        assert!(!block_on(one.compare_and_swap(Some(1), b"x".into())).unwrap());
        assert!(block_on(one.compare_and_swap(None, b"a".into())).unwrap());
        assert!(!block_on(other.compare_and_swap(None, b"b".into())).unwrap());
        let seen = block_on(other.load()).unwrap().unwrap();
        assert_eq!((seen.version, seen.document.as_slice()), (1, &b"a"[..]));
        assert!(block_on(other.compare_and_swap(Some(1), b"c".into())).unwrap());
        assert!(!block_on(one.compare_and_swap(Some(1), b"d".into())).unwrap());
        assert_eq!(block_on(one.load()).unwrap().unwrap().version, 2);
    });
}

#[test]
fn s15_a_join_token_belongs_to_the_first_key_which_may_retry() {
    over_every_store(|open| {
        let store = open();
        block_on(store.put_join_token(token(1), t0())).unwrap();
        assert_eq!(consume(&*store, 1, "k1", t0()), Consumption::Yours);
        assert_eq!(consume(&*store, 1, "k1", t0()), Consumption::Yours);
        assert_eq!(consume(&*store, 1, "k2", t0()), Consumption::Another);
        assert_eq!(consume(&*open(), 1, "k2", t0()), Consumption::Another);
        assert_eq!(consume(&*store, 2, "k1", t0()), Consumption::Unknown);
        let found = block_on(store.join_token([1; 32])).unwrap();
        assert_eq!(found, Some(token(1)));
    });
}

#[test]
fn s15_an_expired_join_token_is_nobodys() {
    over_every_store(|open| {
        let store = open();
        block_on(store.put_join_token(token(1), t0())).unwrap();
        let end = token(1).expires_at;
        assert_eq!(consume(&*store, 1, "k1", end), Consumption::Expired);
        assert_eq!(consume(&*store, 1, "k1", t0()), Consumption::Yours);
        assert_eq!(consume(&*store, 1, "k1", end), Consumption::Expired);
    });
}

#[test]
fn long_expired_join_tokens_are_forgotten() {
    over_every_store(|open| {
        let store = open();
        block_on(store.put_join_token(token(1), t0())).unwrap();
        let next_day = token(1).expires_at + sqlite::REMEMBER;
        block_on(store.put_join_token(token(2), next_day)).unwrap();
        assert_eq!(block_on(store.join_token([1; 32])).unwrap(), None);
        assert!(block_on(store.join_token([2; 32])).unwrap().is_some());
    });
}

#[test]
fn s15_of_two_keys_at_the_same_instant_exactly_one_gets_the_token() {
    const THREADS: usize = 16;
    over_every_store(|open| {
        for round in 0..8 {
            let store = open();
            block_on(store.put_join_token(token(round), t0())).unwrap();
            let start = Barrier::new(THREADS);
            let outcomes: Vec<(usize, Consumption)> = thread::scope(|scope| {
                let racers: Vec<_> = (0..THREADS)
                    .map(|i| {
                        // Every other racer with a handle of its own, as another process would.
                        let store = if i % 4 < 2 {
                            Arc::clone(&store)
                        } else {
                            open()
                        };
                        let start = &start;
                        scope.spawn(move || {
                            let key = format!("key-{}", i % 2);
                            start.wait();
                            (i % 2, consume(&*store, round, &key, t0()))
                        })
                    })
                    .collect();
                racers.into_iter().map(|r| r.join().unwrap()).collect()
            });
            let won = |key| {
                outcomes
                    .iter()
                    .filter(|(of, outcome)| *of == key && *outcome == Consumption::Yours)
                    .count()
            };
            let wins = (won(0), won(1));
            assert!(
                wins == (THREADS / 2, 0) || wins == (0, THREADS / 2),
                "one key has every win, the other none: {wins:?}"
            );
        }
    });
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    drop(Sqlite::open(&path).unwrap());
    let db = rusqlite::Connection::open(&path).unwrap();
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

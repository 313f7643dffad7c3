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

/// Runs `test` over every store that needs nothing but this process.
fn over_every_store(test: impl Fn(Arc<dyn Store>)) {
    test(Arc::new(Memory::default()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    test(Arc::new(Sqlite::open(&path).unwrap()));
}

fn claim(store: &dyn Store, id: u8, holder: &str, now: SystemTime) -> Claimed {
    block_on(store.claim(wish(id, holder), now)).unwrap()
}

fn wish(id: u8, holder: &str) -> Claim {
    Claim {
        id: [id; 32],
        holder: holder.to_owned(),
        until: t0() + Duration::from_secs(600),
    }
}

#[test]
fn a_document_changes_only_from_the_version_one_knows() {
    use Document::{CaState, Revocations};
    over_every_store(|store| {
        let load = |which| block_on(store.load(which)).unwrap();
        let swap = |expected, bytes: &[u8]| {
            block_on(store.compare_and_swap(CaState, expected, bytes.to_vec())).unwrap()
        };
        assert_eq!(load(CaState), None);
        assert!(!swap(Some(1), b"x"));
        assert!(swap(None, b"a"));
        assert!(!swap(None, b"b"));
        let seen = load(CaState).unwrap();
        assert_eq!((seen.version, seen.document.as_slice()), (1, &b"a"[..]));
        assert!(swap(Some(1), b"c"));
        assert!(!swap(Some(1), b"d"));
        assert_eq!(load(CaState).unwrap().version, 2);
        assert_eq!(load(Revocations), None, "documents are apart");
    });
}

#[test]
fn a_document_that_would_not_fit_everywhere_fits_nowhere() {
    over_every_store(|store| {
        let swap =
            |size| block_on(store.compare_and_swap(Document::Revocations, None, vec![0; size]));
        let refused = swap(MAX_DOCUMENT + 1).unwrap_err().to_string();
        assert!(
            refused.contains("revocations would have 358401 bytes"),
            "{refused}"
        );
        assert!(swap(MAX_DOCUMENT).unwrap());
    });
}

#[test]
fn s15_what_is_used_once_belongs_to_the_first_who_may_retry() {
    over_every_store(|store| {
        assert_eq!(claim(&*store, 1, "k1", t0()), Claimed::Yours);
        assert_eq!(claim(&*store, 1, "k1", t0()), Claimed::Yours);
        assert_eq!(claim(&*store, 1, "k2", t0()), Claimed::Another);
        assert_eq!(claim(&*store, 2, "k2", t0()), Claimed::Yours);
        assert_eq!(claim(&*store, 1, "k1", t0()), Claimed::Yours);
    });
}

#[test]
fn s15_a_claim_holds_until_its_end_and_a_little_longer_for_clocks_that_are_behind() {
    over_every_store(|store| {
        assert_eq!(claim(&*store, 1, "k1", t0()), Claimed::Yours);
        let end = wish(1, "k1").until + CLOCKS;
        let before = end - Duration::from_millis(1);
        assert_eq!(claim(&*store, 1, "k2", before), Claimed::Another);
        assert_eq!(claim(&*store, 1, "k2", end), Claimed::Yours);
        assert_eq!(claim(&*store, 1, "k1", end), Claimed::Another);
    });
}

#[test]
fn s14_a_full_table_of_claims_refuses_until_some_are_past() {
    let bounds = Bounds {
        claims: 3,
        ..Bounds::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let sqlite = Sqlite::bounded(&path, bounds).unwrap();
    for store in [&Memory::bounded(bounds) as &dyn Store, &sqlite] {
        for id in 0..3 {
            assert_eq!(claim(store, id, "k", t0()), Claimed::Yours);
        }
        let refused = block_on(store.claim(wish(3, "k"), t0())).unwrap_err();
        assert!(matches!(refused, StoreError::TooManyClaims), "{refused}");
        assert_eq!(claim(store, 2, "k", t0()), Claimed::Yours, "known before");
        assert_eq!(claim(store, 2, "j", t0()), Claimed::Another);
        let end = wish(0, "k").until + CLOCKS;
        for id in 3..6 {
            assert_eq!(claim(store, id, "k", end), Claimed::Yours);
        }
    }
}

#[test]
fn a_join_token_is_remembered_a_day_longer_than_it_is_good() {
    over_every_store(|store| {
        block_on(store.put_join_token(token(1), t0())).unwrap();
        assert_eq!(block_on(store.join_token([1; 32])).unwrap(), Some(token(1)));
        assert_eq!(block_on(store.join_token([2; 32])).unwrap(), None);
        let next_day = token(1).expires_at + REMEMBER;
        block_on(store.put_join_token(token(2), next_day)).unwrap();
        assert_eq!(block_on(store.join_token([1; 32])).unwrap(), None);
        assert!(block_on(store.join_token([2; 32])).unwrap().is_some());
    });
}

#[test]
fn s15_of_two_keys_at_the_same_instant_exactly_one_gets_it() {
    const THREADS: usize = 16;
    over_every_store(|store| {
        for round in 0..8 {
            let start = Barrier::new(THREADS);
            let outcomes: Vec<(usize, Claimed)> = thread::scope(|scope| {
                let racers: Vec<_> = (0..THREADS)
                    .map(|i| {
                        let (store, start) = (&store, &start);
                        scope.spawn(move || {
                            let key = format!("key-{}", i % 2);
                            start.wait();
                            (i % 2, claim(&**store, round, &key, t0()))
                        })
                    })
                    .collect();
                racers.into_iter().map(|r| r.join().unwrap()).collect()
            });
            let won = |key| {
                outcomes
                    .iter()
                    .filter(|(of, outcome)| *of == key && *outcome == Claimed::Yours)
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

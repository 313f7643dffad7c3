//! What stores of one machine count and forget. The suite for every store is in `tests/scenarios/state_stores`:
//! DynamoDB needs more than this process.

use std::{sync::Arc, time::Duration};

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

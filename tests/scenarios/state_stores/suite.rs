//! What every store promises, over two handles to one store.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::Barrier, task::JoinSet};
use warifu_agent::authority::state::{
    Claim, Claimed, Document, JoinToken, MAX_DOCUMENT, Store, StoreError,
};

/// Two handles, as two replicas hold them.
pub(super) type Replicas = [Arc<dyn Store>; 2];

/// Races for one thing.
const RACES: u32 = 1000;
/// Races under way at once: enough to keep both replicas busy.
const AT_ONCE: u32 = 20;
/// Writers who count one document up.
const COUNTERS: u64 = 8;

/// All of it. The store must be empty.
pub(super) async fn run(replicas: &Replicas) {
    a_document_changes_only_from_the_version_one_knows(replicas).await;
    a_document_that_would_not_fit_everywhere_fits_nowhere(replicas).await;
    no_change_of_a_document_is_lost(replicas).await;
    a_join_token_is_kept_as_it_was_made(replicas).await;
    what_is_used_once_belongs_to_the_first_who_may_retry(replicas).await;
    a_claim_holds_to_its_end_and_a_little_longer(replicas).await;
    of_two_who_race_exactly_one_wins_and_may_retry(replicas).await;
}

async fn a_document_changes_only_from_the_version_one_knows([one, other]: &Replicas) {
    use Document::{CaState, Revocations};
    let swap = async |store: &Arc<dyn Store>, expected, bytes: &[u8]| {
        let swapped = store.compare_and_swap(CaState, expected, bytes.to_vec());
        swapped.await.unwrap()
    };
    assert_eq!(one.load(CaState).await.unwrap(), None);
    assert!(!swap(one, Some(1), b"x").await);
    assert!(swap(one, None, b"a").await);
    assert!(!swap(other, None, b"b").await);
    let seen = other.load(CaState).await.unwrap().unwrap();
    assert_eq!((seen.version, seen.document.as_slice()), (1, &b"a"[..]));
    assert!(swap(other, Some(1), b"c").await);
    assert!(!swap(one, Some(1), b"d").await);
    // The same bytes again are a change too: others may have read them.
    assert!(!swap(one, Some(1), b"c").await);
    let seen = one.load(CaState).await.unwrap().unwrap();
    assert_eq!((seen.version, seen.document.as_slice()), (2, &b"c"[..]));
    assert_eq!(
        one.load(Revocations).await.unwrap(),
        None,
        "documents are apart"
    );
}

async fn a_document_that_would_not_fit_everywhere_fits_nowhere([store, _]: &Replicas) {
    let which = Document::Revocations;
    let swap = |size| store.compare_and_swap(which, None, vec![7; size]);
    let refused = swap(MAX_DOCUMENT + 1).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooLarge { .. }), "{refused}");
    assert_eq!(store.load(which).await.unwrap(), None);
    assert!(swap(MAX_DOCUMENT).await.unwrap());
    let kept = store.load(which).await.unwrap().unwrap();
    assert_eq!(kept.document.len(), MAX_DOCUMENT);
}

async fn no_change_of_a_document_is_lost(replicas: &Replicas) {
    let which = Document::CaState;
    let start = replicas[0].load(which).await.unwrap().unwrap().version;
    let mut counters = JoinSet::new();
    for counter in 0..COUNTERS {
        let store = Arc::clone(&replicas[usize::try_from(counter % 2).unwrap()]);
        counters.spawn(async move {
            loop {
                let found = store.load(which).await.unwrap().unwrap();
                let mut document = found.document;
                document.push(b'0' + u8::try_from(counter).unwrap());
                let swap = store.compare_and_swap(which, Some(found.version), document);
                if swap.await.unwrap() {
                    return;
                }
            }
        });
    }
    counters.join_all().await;
    let mut found = replicas[1].load(which).await.unwrap().unwrap();
    assert_eq!(found.version, start + i64::try_from(COUNTERS).unwrap());
    let mut counted = found.document.split_off(1);
    counted.sort_unstable();
    assert_eq!(counted, b"01234567");
}

async fn a_join_token_is_kept_as_it_was_made([one, other]: &Replicas) {
    let token = JoinToken {
        hash: [1; 32],
        attestor: "join".to_owned(),
        facts: BTreeMap::from([("service".to_owned(), "注文 \"orders\"".to_owned())]),
        lineage: "l1".to_owned(),
        expires_at: t0() + Duration::from_millis(600_001),
    };
    assert_eq!(one.join_token([1; 32]).await.unwrap(), None);
    one.put_join_token(token.clone(), t0()).await.unwrap();
    assert_eq!(
        other.join_token([1; 32]).await.unwrap(),
        Some(token.clone())
    );
    let after = token.expires_at + Duration::from_secs(3600);
    let another = JoinToken {
        hash: [2; 32],
        ..token.clone()
    };
    other.put_join_token(another, after).await.unwrap();
    let late = one.join_token([1; 32]).await.unwrap();
    assert_eq!(
        late,
        Some(token),
        "its late user is told that it has expired"
    );
}

async fn what_is_used_once_belongs_to_the_first_who_may_retry([one, other]: &Replicas) {
    assert_eq!(claim(one, 1, "k1", t0()).await, Claimed::Yours);
    assert_eq!(claim(other, 1, "k1", t0()).await, Claimed::Yours);
    assert_eq!(claim(other, 1, "k2", t0()).await, Claimed::Another);
    assert_eq!(claim(one, 1, "k2", t0()).await, Claimed::Another);
    assert_eq!(claim(one, 2, "k2", t0()).await, Claimed::Yours);
    assert_eq!(claim(one, 1, "k1", t0()).await, Claimed::Yours);
}

async fn a_claim_holds_to_its_end_and_a_little_longer([one, other]: &Replicas) {
    assert_eq!(claim(one, 3, "k1", t0()).await, Claimed::Yours);
    // A replica whose clock is behind may take the evidence for good still.
    let behind = END + Duration::from_secs(59);
    assert_eq!(claim(other, 3, "k2", t0() + behind).await, Claimed::Another);
    let over = t0() + END + Duration::from_secs(60);
    assert_eq!(claim(other, 3, "k2", over).await, Claimed::Yours);
    assert_eq!(claim(one, 3, "k1", over).await, Claimed::Another);
}

async fn of_two_who_race_exactly_one_wins_and_may_retry(replicas: &Replicas) {
    let mut wins = BTreeMap::<usize, u32>::new();
    for first in (1000..1000 + RACES).step_by(AT_ONCE as usize) {
        let mut races = JoinSet::new();
        for id in first..first + AT_ONCE {
            races.spawn(race(replicas.clone(), id));
        }
        for winner in races.join_all().await {
            *wins.entry(winner).or_default() += 1;
        }
    }
    println!("races won by each replica's writer: {wins:?}");
    assert_eq!(wins.values().sum::<u32>(), RACES);
}

/// Two writers want `id` at the same instant, each through a replica of its own; says which one has it.
async fn race(replicas: Replicas, id: u32) -> usize {
    let start = Arc::new(Barrier::new(2));
    let mut racers = JoinSet::new();
    // Who is woken first has a start of some microseconds: each is as often.
    let first = usize::try_from(id % 2).unwrap();
    for writer in [first, 1 - first] {
        let (start, store) = (Arc::clone(&start), Arc::clone(&replicas[writer]));
        racers.spawn(async move {
            start.wait().await;
            (writer, claim(&store, id, key(writer), t0()).await)
        });
    }
    let outcomes = racers.join_all().await;
    let won = |&&(_, outcome): &&(usize, Claimed)| outcome == Claimed::Yours;
    assert_eq!(outcomes.iter().filter(won).count(), 1, "{id}: {outcomes:?}");
    let (winner, _) = outcomes.iter().find(won).unwrap();
    // Whichever replica is asked from now on.
    let loser = 1 - winner;
    let again = claim(&replicas[loser], id, key(*winner), t0()).await;
    assert_eq!(again, Claimed::Yours, "{id}");
    if id.is_multiple_of(10) {
        let late = claim(&replicas[*winner], id, key(loser), t0()).await;
        assert_eq!(late, Claimed::Another, "{id}");
    }
    *winner
}

/// How long what is claimed here is worth something.
const END: Duration = Duration::from_secs(600);

fn t0() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn key(writer: usize) -> &'static str {
    ["key-of-one", "key-of-other"][writer]
}

async fn claim(store: &Arc<dyn Store>, id: u32, holder: &str, now: SystemTime) -> Claimed {
    let mut claim = Claim {
        id: [0; 32],
        holder: holder.to_owned(),
        until: t0() + END,
    };
    claim.id[..4].copy_from_slice(&id.to_be_bytes());
    store.claim(claim, now).await.unwrap()
}

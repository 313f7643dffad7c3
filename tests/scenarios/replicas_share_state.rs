//! Two authorities, each a process of its own, on one table: whichever is asked, it is one authority.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use warifu_agent::{
    attest::{Client, ClientError, wire::ErrorCode},
    authority::{Status, admin::client as admin},
};
use warifu_tests::{
    aws::{Cluster, Replica, Rival},
    mesh::until,
    ports::free_port,
    process::Sandbox,
};

/// Join tokens that two keys want at the same instant, each from another replica.
const RACES: usize = 1000;
/// Races under way at once: enough to keep both replicas busy.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_of_two_keys_that_race_with_one_token_at_two_replicas_one_wins_and_may_retry() {
    let two = Arc::new(Two::start().await);
    let mut races = JoinSet::new();
    let mut wins = [0; 2];
    for number in 0..RACES {
        races.spawn(race(Arc::clone(&two), number));
        if races.len() == AT_ONCE {
            wins[races.join_next().await.unwrap().unwrap()] += 1;
        }
    }
    for winner in races.join_all().await {
        wins[winner] += 1;
    }
    println!("races won at each replica: {wins:?}");
    assert_eq!(wins[0] + wins[1], RACES);
    assert!(wins[0] > 0 && wins[1] > 0, "they did not race: {wins:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_rotations_at_two_replicas_one_starts_and_both_publish_it() {
    let two = Two::start().await;
    let [one, other] = &two.replicas;
    let before = one.status().await;
    assert_eq!(before.roots.len(), 1);
    assert_eq!(
        other.status().await.roots[0].spki_sha256,
        before.roots[0].spki_sha256
    );

    let started = tokio::join!(admin::rotate(&one.socket), admin::rotate(&other.socket));
    let refused = match started {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused.to_string(),
        both => panic!("one starts it, the other finds it started: {both:?}"),
    };
    assert!(
        refused.contains("rotation of the root is under way"),
        "{refused}"
    );
    let published = until("both publish the same", async || {
        let (one, other) = (one.status().await, other.status().await);
        let alike = one.bundle_sequence == other.bundle_sequence && one.roots.len() == 2;
        alike.then_some((one, other))
    });
    let (one, other) = published.await;
    let pins = |status: &Status| -> Vec<String> {
        let roots = status.roots.iter();
        roots.map(|root| root.spki_sha256.clone()).collect()
    };
    assert_eq!(pins(&one), pins(&other));
    assert!(one.bundle_sequence > before.bundle_sequence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_one_database_is_refused_and_the_first_goes_on() {
    let sandbox = Sandbox::new();
    let first = sandbox.authority();
    let dir = sandbox.path("").display().to_string();
    let yaml = std::fs::read_to_string(sandbox.path("authority.yaml")).unwrap();
    let yaml = yaml.replace(
        &format!("{dir}authority.sock"),
        &format!("{dir}second.sock"),
    );
    sandbox.write("second.yaml", yaml);
    let second = sandbox
        .warifu(&["authority", "--config", "second.yaml"])
        .run();
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    let why = "ca/state.db is in use by another process, and state: sqlite is for one replica";
    assert!(second.stderr.contains(why), "{}", second.stderr);
    sandbox.join_token("orders");
    drop(first);
    // Killed, not ended: the system has given back its lock.
    sandbox
        .warifu(&["authority", "--config", "second.yaml"])
        .authority();
}

/// Two keys, one join token, two replicas; says at which it was won.
async fn race(two: Arc<Two>, number: usize) -> usize {
    // Made at either, used at either.
    let token = two.replicas[number % 2].join_token("orders").await;
    let rivals = [Rival::new(&token), Rival::new(&token)];
    let [one, other] = &two.clients;
    let outcomes = tokio::join!(rivals[0].attest(one), rivals[1].attest(other));
    let (winner, lost) = match outcomes {
        (Ok(_), Err(lost)) => (0, lost),
        (Err(lost), Ok(_)) => (1, lost),
        both => panic!("race {number}: {both:?}"),
    };
    was_beaten(&lost);
    // The winner's answer may have been lost on its way; the loser asks once more, too.
    let loser = 1 - winner;
    rivals[winner].attest(&two.clients[loser]).await.unwrap();
    let again = rivals[loser].attest(&two.clients[winner]).await;
    was_beaten(&again.unwrap_err());
    winner
}

fn was_beaten(why: &ClientError) {
    assert_eq!(why.refusal(), Some(ErrorCode::InvalidEvidence), "{why}");
    assert!(
        why.to_string()
            .contains("was used by another agent already"),
        "{why}"
    );
}

/// Two replicas, and a client of each.
struct Two {
    replicas: [Replica; 2],
    clients: [Client; 2],
    _cluster: Cluster,
}

impl Two {
    async fn start() -> Self {
        let cluster = Cluster::on_disk().await;
        let replicas = cluster.two([free_port(), free_port()], Duration::from_secs(3600));
        Self {
            clients: replicas.each_ref().map(Replica::client),
            replicas,
            _cluster: cluster,
        }
    }
}

//! A join token is for one key.

use std::fs;

use warifu_tests::mesh::{Mesh, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_of_two_agents_that_race_with_one_join_token_one_gets_the_identity() {
    for ca in ["memory", "disk"] {
        let mesh = Mesh::with(|authority| {
            if ca == "disk" {
                authority.on_disk()
            } else {
                authority
            }
        });
        let mesh = mesh.await;
        let token = mesh.authority.join_token("orders").await;
        let [mut one, mut other] = [
            mesh.agent("one").join_token(&token).prepare().await,
            mesh.agent("other").join_token(&token).prepare().await,
        ];
        tokio::join!(one.start_unready(), other.start_unready());
        let loser = until("one is ready, the other refused", async || {
            let missing = [&one, &other].map(|agent| agent.running().readiness.missing());
            match missing.each_ref().map(|missing| missing.first()) {
                [None, Some((_, why))] if why.contains("another agent") => Some(&other),
                [Some((_, why)), None] if why.contains("another agent") => Some(&one),
                [None, None] => panic!("both are ready, with one token"),
                _ => None,
            }
        });
        let loser = loser.await;
        let (status, text) = loser.probe("/readyz").await;
        assert_eq!(status, 503);
        assert!(text.contains("was used by another agent already"), "{text}");
        assert!(text.contains("warifu authority join-token"), "{text}");
        assert!(!text.contains(&token), "a token is a secret: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_the_agent_whose_token_it_is_may_present_it_again() {
    let mesh = Mesh::start().await;
    let mut orders = mesh.agent("orders").start().await;
    orders.stop();
    // As if the answer to its attestation had been lost: the key is there, the record is not.
    fs::remove_file(orders.dir.join("state/attested.json")).unwrap();
    orders.start().await;
    let attested = until("two attestations", async || {
        let lines = mesh.authority.audit("attest");
        (lines.len() == 2).then_some(lines)
    });
    for line in attested.await {
        assert_eq!(line["decision"], "issued", "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_restarted_without_its_state_becomes_ready_by_a_fresh_token_alone() {
    let mesh = Mesh::start().await;
    let mut orders = mesh.agent("orders").without_state_dir().start().await;
    orders.stop();
    orders.start_unready().await;
    until("the spent token is refused", async || {
        let text = orders.probe("/readyz").await.1;
        text.contains("was used by another agent already")
            .then_some(())
    })
    .await;
    let token = mesh.authority.join_token("orders").await;
    fs::write(orders.dir.join("join-token"), token).unwrap();
    orders.ready().await;
}

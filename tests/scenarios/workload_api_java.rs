//! java-spiffe as a client of the Workload API.

use warifu_tests::peers::Language::Java;

use super::workload_api_clients as clients;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_spiffe_lives_through_a_late_agent_its_drain_and_restart_and_an_outage_of_the_authority()
 {
    clients::lives_through_it(Java).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_programs_with_java_spiffe_call_one_another_through_rotations() {
    clients::call_one_another_through_rotations(Java).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_spiffe_has_the_bundles_of_federated_trust_domains() {
    clients::has_the_bundles_of_others(Java).await;
}

/// It doubles the time between its calls. Only what is newer than 0.8.17 may stop for good here, why nothing that may pass
/// is answered so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_spiffe_is_told_of_a_decided_refusal_and_asks_on_ever_more_seldom() {
    let (_mesh, agent, client, state) = clients::is_refused(Java).await;
    assert!(
        state["said"]
            .as_str()
            .unwrap()
            .contains("PERMISSION_DENIED"),
        "{state}"
    );
    clients::asks_on(&agent).await;
    let state = client.state().await;
    assert_eq!(state["ended"], "", "{state}");
}

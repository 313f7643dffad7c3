//! go-spiffe as a client of the Workload API.

use warifu_tests::peers::Language::Go;

use super::workload_api_clients as clients;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_spiffe_lives_through_a_late_agent_its_drain_and_restart_and_an_outage_of_the_authority()
{
    clients::lives_through_it(Go).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_programs_with_go_spiffe_call_one_another_through_rotations() {
    clients::call_one_another_through_rotations(Go).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_spiffe_has_the_bundles_of_federated_trust_domains() {
    clients::has_the_bundles_of_others(Go).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_spiffe_is_told_of_a_decided_refusal_and_asks_on_at_its_own_pace() {
    let (_mesh, agent, _client, state) = clients::is_refused(Go).await;
    assert!(
        state["said"].as_str().unwrap().contains("PermissionDenied"),
        "{state}"
    );
    assert_eq!(state["ended"], "");
    clients::asks_on(&agent).await;
}

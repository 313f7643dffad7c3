//! The Python client of SPIFFE, as an app uses it, through all that happens to an agent.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use warifu_tests::{
    mesh::{Mesh, until},
    peers::{self, Language::Python},
};

use super::workload_api_clients as clients;

/// A third of this is the time between two certificates.
const LIFE: Duration = Duration::from_secs(6);

/// The certificates an app was given so far.
struct Seen(PathBuf);

impl Seen {
    fn serials(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let serial = |event: Value| {
            assert_eq!(event["id"], "spiffe://example.org/orders", "{event}");
            event["serial"].as_str().unwrap().to_owned()
        };
        lines.map(serial).collect()
    }

    /// Waits for certificates that were not there before.
    async fn further(&self, count: usize, what: &str) {
        let before = self.serials().len();
        let more = async || (self.serials().len() >= before + count).then_some(());
        until(what, more).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_waits_for_the_agent_and_follows_it_through_all_that_happens_to_it() {
    let python = tokio::task::spawn_blocking(peers::python)
        .await
        .unwrap()
        .unwrap();
    let mut mesh = Mesh::with(|authority| authority.on_disk().ttl(LIFE)).await;
    let socket = mesh.dir().join("workload.sock").display().to_string();
    let local = format!("local: {{workload_api: {{listen: \"unix:{socket}\"}}}}");
    let mut agent = mesh.agent("orders").more(&local).prepare().await;
    let seen = Seen(mesh.dir().join("events"));
    let mut app = tokio::process::Command::new(python)
        .args([peers::script("workload_api.py").as_os_str()])
        .arg(&socket)
        .arg(&seen.0)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap();

    mesh.authority.stop();
    agent.start_unready().await;
    mesh.authority.start().await;
    seen.further(1, "the first certificate").await;
    seen.further(2, "rotations").await;
    agent.restart().await;
    seen.further(1, "a certificate after a crash").await;
    assert_eq!(agent.drain().await, 0, "connections were cut");
    agent.start().await;
    seen.further(1, "a certificate after a drain").await;
    // Until the last certificate has expired.
    mesh.authority.stop();
    let gone = async || agent.running().identity.borrow().is_none().then_some(());
    until("the identity expires", gone).await;
    mesh.authority.start().await;
    seen.further(1, "a certificate after an outage").await;

    drop(app.stdin.take());
    let ended = app.wait_with_output().await.unwrap();
    assert!(ended.status.success());
    let said: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(said["id"], "spiffe://example.org/orders");
    assert_eq!(said["audience"], json!(["payments"]));
    assert_eq!(said["closed"], json!([false, false]));
    assert_eq!(said["domains"], json!(["example.org"]));
    let other = said["other_audience"].as_str().unwrap();
    assert!(other.contains("aud"), "{other}");
}

/// With spiffe-tls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_programs_with_spiffe_tls_call_one_another_through_rotations() {
    clients::call_one_another_through_rotations(Python).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn py_spiffe_has_the_bundles_of_federated_trust_domains() {
    clients::has_the_bundles_of_others(Python).await;
}

/// It says nothing of calls that fail: what the agent counts shows that it asks on, and when.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn py_spiffe_that_is_refused_asks_on_at_its_own_pace() {
    let (_mesh, agent, client) = clients::of_a_stranger(Python).await;
    until("it is refused", async || {
        let name = "warifu_workload_api_answers_total";
        let refused = agent.metric_sum(name, "permission_denied").await;
        (refused > 0.0).then_some(())
    })
    .await;
    clients::asks_on(&agent).await;
    let state = client.state().await;
    assert_eq!(
        (&state["ready"], &state["ended"]),
        (&json!(false), &json!("")),
        "{state}"
    );
}

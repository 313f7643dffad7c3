//! A workload with several identities, of which clients choose: by hint where their library tells hints.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde_json::{Value, json};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Source, X509Svid, x509_source::SvidPicker};
use warifu_agent::{local::client, revocation::Kind};
use warifu_tests::{
    mesh::{Agent, Mesh, until},
    peers::{AUDIENCE, Choosing},
};

const ORDERS: &str = "spiffe://example.org/orders";
const REPORTS: &str = "spiffe://example.org/orders/reports";
const JOBS: &str = "spiffe://example.org/orders/jobs";

const RULES: &str = r#"
- attestor: bootstrap
  match: {service: "*"}
  id: "/{service}"
  audiences: ["*"]
  ttl: TTL
  jwt_ttl: JWT_TTL
  also:
  - {id: "/{service}/reports", hint: reports, audiences: ["*"]}
  - {id: "/{service}/jobs", hint: jobs, audiences: ["*"]}
"#;
/// The further identity that the rule loses.
const GRANT: &str = "  - {id: \"/{service}/reports\", hint: reports, audiences: [\"*\"]}\n";

/// A third of this is the time between two certificates.
const LIFE: Duration = Duration::from_secs(9);
const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    mesh: Mesh,
    agent: Agent,
    socket: PathBuf,
}

impl World {
    async fn open(life: Duration) -> Self {
        let mesh = Mesh::with(|authority| {
            let authority = authority.on_disk().rules(RULES).ttl(life);
            authority
                .more("bundle_refresh_hint: 1s")
                .ca("publish_ahead: 2s")
        })
        .await;
        let socket = mesh.dir().join("workload.sock");
        let local = format!(
            "local: {{workload_api: {{listen: \"unix:{}\"}}}}",
            socket.display()
        );
        let agent = mesh.agent("orders").more(&local).start().await;
        Self {
            mesh,
            agent,
            socket,
        }
    }

    fn endpoint(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    async fn client(&self) -> WorkloadApiClient {
        WorkloadApiClient::connect_to(&self.endpoint())
            .await
            .unwrap()
    }

    /// The SPIFFE IDs that the Workload API lists, in its order.
    async fn listed(&self) -> Vec<String> {
        let svids = self.client().await.fetch_all_x509_svids().await.unwrap();
        svids
            .iter()
            .map(|svid| svid.spiffe_id().to_string())
            .collect()
    }

    async fn until_listed(&self, expected: &[&str]) {
        until("these identities are listed", async || {
            (self.listed().await == expected).then_some(())
        })
        .await;
    }

    async fn token_of(&self, id: &str) -> Result<String, WorkloadApiError> {
        let id = id.parse().unwrap();
        let client = self.client().await;
        let token = client.fetch_jwt_svid([AUDIENCE], Some(&id)).await?;
        Ok(token.spiffe_id().to_string())
    }

    /// The authority with other rules.
    async fn change_rules(&mut self, change: impl FnOnce(String) -> String) {
        self.mesh.authority.stop();
        self.mesh.authority.configure(change);
        self.mesh.authority.start().await;
    }
}

#[derive(Debug)]
struct ByHint(&'static str);

impl SvidPicker for ByHint {
    fn pick_svid(&self, svids: &[Arc<X509Svid>]) -> Option<usize> {
        svids.iter().position(|svid| svid.hint() == Some(self.0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_choose_by_hint_or_id_and_follow_rotations_and_the_rule() {
    let mut world = World::open(LIFE).await;
    let dir = world.mesh.dir().to_owned();
    let source = X509Source::builder()
        .endpoint(world.endpoint())
        .picker(ByHint("reports"));
    let source = source.build().await.unwrap();
    let chosen = || source.svid().ok().map(|svid| svid.spiffe_id().to_string());
    assert_eq!(chosen().as_deref(), Some(REPORTS));
    let mut go = Choosing::go(&dir, &world.socket, "reports").await.unwrap();
    let mut python = Choosing::python(&dir, &world.socket, JOBS).await.unwrap();

    let all = json!(["", "reports", "jobs"]);
    let is_reports = |said: &Value| {
        [&said["id"], &said["token"], &said["named"]]
            .iter()
            .all(|id| **id == REPORTS)
            && said["hints"] == all
    };
    let is_jobs = |said: &Value| said["id"] == JOBS && said["named"] == JOBS;
    let by_go = go.says("go-spiffe chose by hint", is_reports).await;
    let by_python = python.says("Python chose by SPIFFE ID", is_jobs).await;
    assert_eq!(by_python["ids"], json!([ORDERS, REPORTS, JOBS]));
    let client = world.client().await;
    let by_hint = client
        .fetch_jwt_svid_by_hint([AUDIENCE], None, "jobs")
        .await;
    assert_eq!(by_hint.unwrap().spiffe_id().to_string(), JOBS);
    let first = client.fetch_jwt_svid([AUDIENCE], None).await.unwrap();
    assert_eq!(first.spiffe_id().to_string(), ORDERS);

    // Through a rotation.
    let other = |before: &Value| {
        let before = before["serial"].clone();
        move |said: &Value| said["serial"] != before && !said["serial"].is_null()
    };
    go.says("a rotation", other(&by_go)).await;
    python.says("a rotation", other(&by_python)).await;
    let fresh = go.says("the same choice", is_reports).await;
    assert_ne!(fresh["serial"], by_go["serial"]);

    // The rule grants it no more: tokens end at once, the certificate at the next renewal.
    world.change_rules(|text| text.replace(GRANT, "")).await;
    let refused = world.token_of(REPORTS).await;
    // One that was minted before is good to its end; a renewal takes the identity away, and the token with it.
    println!("right after the change: {refused:?}");
    world.until_listed(&[ORDERS, JOBS]).await;
    let refused = world.token_of(REPORTS).await;
    assert!(
        matches!(refused, Err(WorkloadApiError::NoIdentityIssued)),
        "{refused:?}"
    );
    let gone = |said: &Value| said["no_x509"].is_string() && said["no_token"].is_string();
    let said = go.says("go-spiffe has it no more", gone).await;
    assert_eq!(said["hints"], json!(["", "jobs"]));
    until("the Rust source has it no more", async || {
        chosen().is_none().then_some(())
    })
    .await;
    let still = |said: &Value| is_jobs(said) && said["ids"] == json!([ORDERS, JOBS]);
    python.says("the others are unharmed", still).await;

    // And again: sources that lost their identity find it.
    world
        .change_rules(|text| text.replace("  also:\n", &format!("  also:\n{GRANT}")))
        .await;
    world.until_listed(&[ORDERS, REPORTS, JOBS]).await;
    go.says("go-spiffe has it again", is_reports).await;
    until("the Rust source has it again", async || {
        (chosen().as_deref() == Some(REPORTS)).then_some(())
    })
    .await;
    python.says("the others are unharmed", is_jobs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_further_identity_that_is_revoked_is_served_no_more_and_the_others_are() {
    let world = World::open(Duration::from_secs(3600)).await;
    world.until_listed(&[ORDERS, REPORTS, JOBS]).await;
    assert_eq!(world.token_of(REPORTS).await.unwrap(), REPORTS);
    let mut go = Choosing::go(world.mesh.dir(), &world.socket, "reports")
        .await
        .unwrap();
    go.says("go-spiffe chose it", |said| said["id"] == REPORTS)
        .await;
    let before = world.client().await.fetch_x509_svid().await.unwrap();

    // Long before any renewal.
    world.mesh.authority.revoke(Kind::SpiffeId, REPORTS).await;
    world.until_listed(&[ORDERS, JOBS]).await;
    go.says("go-spiffe has it no more", |said| {
        said["no_x509"].is_string()
    })
    .await;
    let refused = world.token_of(REPORTS).await;
    assert!(
        matches!(refused, Err(WorkloadApiError::NoIdentityIssued)),
        "{refused:?}"
    );
    assert_eq!(world.token_of(JOBS).await.unwrap(), JOBS);
    let after = world.client().await.fetch_x509_svid().await.unwrap();
    assert_eq!(
        before.cert_chain(),
        after.cert_chain(),
        "nothing was renewed for it"
    );

    // By the same socket, as `warifu svid --spiffe-id` asks.
    let endpoint: client::Endpoint = world.endpoint().parse().unwrap();
    let jobs = JOBS.parse().unwrap();
    let issued = client::fetch_x509(&endpoint, Some(&jobs), PATIENCE)
        .await
        .unwrap();
    assert_eq!(issued.id, jobs);
    let reports = REPORTS.parse().unwrap();
    let refused = client::fetch_x509(&endpoint, Some(&reports), PATIENCE)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("this workload is not"),
        "{refused}"
    );

    // What the agent tells of itself.
    let status = world.agent.status().await;
    let further = &status["identity"]["further"];
    assert_eq!(further[0]["spiffe_id"], JOBS, "{status}");
    assert_eq!(further[0]["hint"], "jobs");
    assert!(
        further[0]["not_after"].is_string() && further[1].is_null(),
        "{status}"
    );
}

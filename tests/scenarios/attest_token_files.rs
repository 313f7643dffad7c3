//! Tokens of a cluster or an issuer, in files that somebody else replaces while the agent runs: each renewal presents
//! the one that is there now.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use warifu_tests::{
    kubernetes::{Cluster, Pod},
    mesh::{Agent, Mesh, until},
    oidc::{Algorithm, Issuer, claims, unix},
};

const AUDIENCE: &str = "warifu:example.org:attest";
/// Renewed every second or so.
const TTL: Duration = Duration::from_secs(4);

const CLUSTER_RULES: &str = r#"
- {attestor: prod, match: {namespace: shop}, id: "/{service_account}", ttl: TTL}
"#;
const CI_RULES: &str = r#"
- {attestor: ci, match: {repository: "shop-*"}, id: "/ci/{repository}", ttl: TTL}
"#;

/// As the kubelet does: a reader sees the old or the new.
fn replace(path: &Path, token: &str) {
    let new = path.with_extension("new");
    fs::write(&new, token).unwrap();
    fs::rename(&new, path).unwrap();
}

async fn further(mesh: &Mesh, event: &str, count: usize) -> Vec<Value> {
    let seen = mesh.authority.audit(event).len();
    let what = format!("{count} further of {event}");
    let lines = until(&what, async || {
        let lines = mesh.authority.audit(event);
        (lines.len() >= seen + count).then(|| lines[seen..].to_vec())
    });
    lines.await
}

fn lineage(lines: &[Value]) -> String {
    let mut lineages: Vec<&str> = lines
        .iter()
        .map(|it| it["lineage"].as_str().unwrap())
        .collect();
    lineages.dedup();
    assert_eq!(lineages.len(), 1, "{lines:#?}");
    lineages[0].to_owned()
}

async fn bridging(agent: &Agent) -> Value {
    agent.status().await["renewal"]["bridging"].clone()
}

/// A cluster, and an authority that believes it.
async fn with_cluster(dir: &Path) -> (Cluster, Mesh, PathBuf) {
    let cluster = Cluster::start().await;
    let ca = dir.join("cluster.pem");
    fs::write(&ca, cluster.issuer.ca_pem().unwrap()).unwrap();
    let attestor = format!(
        "{{kind: kubernetes, issuer: \"{}\", audience: \"{AUDIENCE}\", ca_file: {}}}",
        cluster.issuer.url(),
        ca.display()
    );
    let mesh = Mesh::with(|authority| {
        authority
            .attestor("prod", &attestor)
            .rules(CLUSTER_RULES)
            .ttl(TTL)
    })
    .await;
    (cluster, mesh, dir.join("token"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_accounts_token_is_read_anew_and_the_record_bridges_while_it_is_missing_or_expired()
 {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mesh, file) = with_cluster(dir.path()).await;
    let pod = Pod::of("shop", "orders");
    replace(&file, &cluster.token(&pod, AUDIENCE));
    let attestation = format!("{{kubernetes: {{token_file: {}}}}}", file.display());
    let agent = mesh.agent("orders").attestation(&attestation).start().await;
    // The same token attests again: it was used by the same key.
    let first = lineage(&further(&mesh, "attest", 2).await);

    fs::remove_file(&file).unwrap();
    let bridged = further(&mesh, "renew", 2).await;
    assert_eq!(lineage(&bridged), first);
    let why = bridging(&agent).await.to_string();
    assert!(
        why.contains("token_file") && why.contains("must exist"),
        "{why}"
    );

    let mut expired = pod.claims(&cluster.issuer, AUDIENCE);
    expired["exp"] = json!(unix(SystemTime::now()) - 60);
    replace(&file, &cluster.sign(&expired));
    further(&mesh, "renew", 2).await;
    let why = bridging(&agent).await.to_string();
    assert!(why.contains("expired at"), "{why}");

    // Another pod of the same service account, as after its state was moved: what the rules ask for is the same.
    replace(&file, &cluster.token(&Pod::of("shop", "orders"), AUDIENCE));
    let again = further(&mesh, "attest", 2).await;
    assert_eq!(lineage(&again[1..]), first);
    assert_eq!(bridging(&agent).await, Value::Null);
    assert_eq!(agent.probe("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_refused_is_not_bridged_and_its_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mesh, file) = with_cluster(dir.path()).await;
    let pod = Pod::of("shop", "orders");
    replace(&file, &cluster.token(&pod, AUDIENCE));
    let attestation = format!("{{kubernetes: {{token_file: {}}}}}", file.display());
    let agent = mesh.agent("orders").attestation(&attestation).start().await;

    replace(
        &file,
        &cluster.token(&pod, "https://kubernetes.default.svc"),
    );
    let told = until("the agent says why", async || {
        let why = agent.status().await["renewal"]["last_error"].to_string();
        why.contains("invalid_evidence").then_some(why)
    });
    let why = told.await;
    assert!(why.contains(&file.display().to_string()), "{why}");
    let renewed = mesh.authority.audit("renew").len();
    let ended = async || (agent.probe("/readyz").await.0 == 503).then_some(());
    until("the identity expires", ended).await;
    assert_eq!(
        mesh.authority.audit("renew").len(),
        renewed,
        "no record was used"
    );
    replace(&file, &cluster.token(&pod, AUDIENCE));
    agent.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_token_of_a_ci_system_attests_and_the_record_carries_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let issuer = Issuer::start().await;
    let attestor = format!(
        "{{kind: oidc, issuer: \"{}\", audience: \"{AUDIENCE}\", facts: {{repository: repository}}}}",
        issuer.url()
    );
    let mesh =
        Mesh::with(|authority| authority.attestor("ci", &attestor).rules(CI_RULES).ttl(TTL)).await;
    let mut said = claims(&issuer, "repo", AUDIENCE, json!({"repository": "shop-web"}));
    said["exp"] = json!(unix(SystemTime::now()) + 5);
    replace(&file, &issuer.sign(Algorithm::Rs256, &said));
    let attestation = format!("{{oidc: {{token_file: {}}}}}", file.display());
    let agent = mesh.agent("ci").attestation(&attestation).start().await;
    assert_eq!(agent.identity().svid.id().path(), "/ci/shop-web");
    let bridged = further(&mesh, "renew", 2).await;
    let mut all = mesh.authority.audit("attest");
    all.extend(bridged);
    lineage(&all);
    let why = bridging(&agent).await.to_string();
    assert!(why.contains("oidc") && why.contains("expired at"), "{why}");
}

//! What Envoy is not given, and how it learns why.

use warifu_tests::{
    mesh::{AgentBuilder, Mesh, until},
    peers::Envoy,
};

use super::sds_envoy::{Bootstrap, socket, with_socket};

/// Only orders is somebody.
const RULES: &str = r#"
- {attestor: bootstrap, match: {service: orders}, id: "/{service}", ttl: TTL, jwt_ttl: JWT_TTL}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decided_refusal_stands_in_envoys_log_with_its_reason_and_envoy_asks_on_without_spinning()
{
    let mesh = Mesh::with(|authority| authority.rules(RULES)).await;
    let stranger = with_socket(&mesh, mesh.agent("stranger"), "stranger");
    let stranger = stranger.start_unready().await;
    until("the authority refused", async || {
        let (_, text) = stranger.probe("/readyz").await;
        text.contains("rule").then_some(())
    })
    .await;
    let envoy = launch(&mesh, "stranger", |bootstrap| bootstrap).await;
    says(&envoy, "no identity issued").await;
    asks_on(&envoy).await;
    assert_ne!(envoy.state().await.as_deref(), Some("LIVE"));
    drop(stranger);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_envoy_under_a_user_that_is_not_listed_is_given_nothing() {
    let mesh = Mesh::start().await;
    let listen = socket(&mesh, "payments");
    // Nobody in this test runs as this user.
    let agent: AgentBuilder<'_> = mesh.agent("payments").more(&format!(
        "local: {{workload_api: {{listen: \"unix:{listen}\", clients: {{uids: [64999]}}}}}}"
    ));
    let agent = agent.start().await;
    let envoy = launch(&mesh, "payments", |bootstrap| bootstrap).await;
    says(&envoy, "no identity issued").await;
    asks_on(&envoy).await;
    let given = envoy.counter("sds.default.update_success").await;
    assert_eq!(given, 0);
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_another_workloads_is_refused_by_name_while_the_others_come() {
    let mesh = Mesh::start().await;
    let agent = with_socket(&mesh, mesh.agent("payments"), "payments")
        .start()
        .await;
    let envoy = launch(&mesh, "payments", |bootstrap| {
        bootstrap.with("name: default\n", "name: \"spiffe://example.org/orders\"\n")
    })
    .await;
    says(
        &envoy,
        "no secret \"spiffe://example.org/orders\" for spiffe://example.org/payments",
    )
    .await;
    until("the roots come all the same", async || {
        let came = envoy.counter("sds.ROOTCA.update_success").await;
        (came > 0).then_some(())
    })
    .await;
    assert_ne!(envoy.state().await.as_deref(), Some("LIVE"));
    drop(agent);
}

async fn launch(mesh: &Mesh, agent: &str, change: impl FnOnce(Bootstrap) -> Bootstrap) -> Envoy {
    let bootstrap = Bootstrap::of(mesh, agent).calls_nobody();
    change(bootstrap).launch(&mesh.dir().join("envoy")).await
}

async fn says(envoy: &Envoy, what: &str) {
    // Envoy shows the message as it travels (gRPC's percent-encoding).
    let said = || envoy.log().replace("%20", " ").replace("%22", "\"");
    until(what, async || said().contains(what).then_some(())).await;
}

/// It comes back, at the pace of its back-off and no faster: two secrets, each a stream.
async fn asks_on(envoy: &Envoy) {
    let asked = async || envoy.counter("cluster.warifu.upstream_rq_total").await;
    let before = asked().await;
    let began = std::time::Instant::now();
    until("Envoy asks again", async || {
        (asked().await >= before + 6).then_some(())
    })
    .await;
    let pace = 6.0 / began.elapsed().as_secs_f64();
    assert!(pace < 20.0, "{pace} streams a second");
}

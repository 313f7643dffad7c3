//! What every client library of the Workload API lives through, unmodified.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::Value;
use warifu_tests::{
    mesh::{Agent, AgentBuilder, Mesh, until},
    peers::{Language, WorkloadClient},
};

/// Only orders is somebody.
const RULES: &str = r#"
- {attestor: bootstrap, match: {service: orders}, id: "/{service}", ttl: TTL, jwt_ttl: JWT_TTL, audiences: ["*"]}
"#;

/// Clients wait a second and more between attempts: more failures a second are a spin. Each holds two to four streams.
const MOST_FAILURES_A_SECOND: f64 = 6.0;

/// The same, as the agent counts calls.
const MOST_CALLS_A_SECOND: f64 = MOST_FAILURES_A_SECOND;

/// For how long calls are counted: first back-offs have passed, and were they none, there would be thousands.
const WINDOW: Duration = Duration::from_secs(5);

fn socket(mesh: &Mesh, name: &str) -> PathBuf {
    mesh.dir().join(format!("{name}-api.sock"))
}

fn agent<'a>(mesh: &'a Mesh, name: &str) -> AgentBuilder<'a> {
    let listen = socket(mesh, name).display().to_string();
    mesh.agent(name).more(&format!(
        "local: {{workload_api: {{listen: \"unix:{listen}\"}}}}"
    ))
}

async fn start(language: Language, mesh: &Mesh, name: &str) -> WorkloadClient {
    let socket = socket(mesh, name);
    let client = WorkloadClient::start(language, mesh.dir(), &socket);
    client.await.unwrap()
}

async fn ready(client: &WorkloadClient) -> Value {
    until("the client has its sources", async || {
        let state = client.state().await;
        assert_eq!(state["ended"], "", "{state}");
        (state["ready"] == true).then_some(state)
    })
    .await
}

/// Waits for another certificate than `before`.
async fn renewed(client: &WorkloadClient, before: &Value) -> Value {
    until("the client has the next certificate", async || {
        let state = client.state().await;
        assert_eq!(state["ended"], "", "{state}");
        (state["serial"] != before["serial"]).then_some(state)
    })
    .await
}

async fn failed_again(client: &WorkloadClient, before: &Value) {
    until("the client notices", async || {
        let state = client.state().await;
        (state["failures"].as_u64() > before["failures"].as_u64()).then_some(())
    })
    .await;
}

/// How often clients call the agent, by its own metrics, while nothing changes.
pub(crate) async fn calls_a_second(agent: &Agent) -> f64 {
    let answered = async || {
        let name = "warifu_workload_api_answers_total";
        agent.metric_sum(name, "").await
    };
    let (began, before) = (Instant::now(), answered().await);
    // What must not happen can only be looked out for.
    tokio::time::sleep(WINDOW).await;
    (answered().await - before) / began.elapsed().as_secs_f64()
}

/// It calls on, and does not spin.
pub(crate) async fn asks_on(agent: &Agent) {
    let pace = calls_a_second(agent).await;
    println!("{pace} calls a second");
    assert!(
        pace > 0.0 && pace < MOST_CALLS_A_SECOND,
        "{pace} calls a second"
    );
}

/// Started before the agent; through drain, restart, and an outage of the authority.
pub(crate) async fn lives_through_it(language: Language) {
    let mut mesh = Mesh::with(|authority| authority.on_disk()).await;
    let mut orders: Agent = agent(&mesh, "orders").prepare().await;
    let began = Instant::now();
    let client = start(language, &mesh, "orders").await;
    failed_again(&client, &Value::Null).await;
    orders.start().await;
    let state = ready(&client).await;
    assert_eq!(state["id"], "spiffe://example.org/orders");
    works(&client).await;

    orders.drain().await;
    failed_again(&client, &state).await;
    assert_eq!(client.state().await["serial"], state["serial"]);
    orders.start().await;
    let state = renewed(&client, &state).await;
    works(&client).await;

    orders.restart().await;
    let state = renewed(&client, &state).await;
    works(&client).await;

    // The agent has nothing, and says that this may pass.
    mesh.authority.stop();
    orders.stop();
    orders.start_unready().await;
    failed_again(&client, &client.state().await).await;
    assert_eq!(client.state().await["serial"], state["serial"]);
    asks_on(&orders).await;
    mesh.authority.start().await;
    orders.ready().await;
    let state = renewed(&client, &state).await;
    works(&client).await;

    let failures = state["failures"].as_f64().unwrap();
    let pace = failures / began.elapsed().as_secs_f64();
    assert!(
        pace < MOST_FAILURES_A_SECOND,
        "{pace} failures a second: {state}"
    );
    println!("{failures} failures in {:?}", began.elapsed());
}

async fn works(client: &WorkloadClient) {
    let token = until("a token", async || client.token("payments").await.ok()).await;
    assert_eq!(token["subject"], "spiffe://example.org/orders");
    assert_eq!(token["audience"], serde_json::json!(["payments"]));
    until("the bundles", async || {
        client.bundle("example.org").await.ok()
    })
    .await;
}

/// Two clients of two agents call one another while their certificates and roots change, and while their agents are
/// gone; none is taken for another.
pub(crate) async fn call_one_another_through_rotations(language: Language) {
    const LEAVES: usize = 4;
    let mesh = Mesh::with(|authority| {
        authority
            .ttl(Duration::from_secs(9))
            .ca("publish_ahead: 3s, intermediate_ttl: 25s")
            .more("bundle_refresh_hint: 1s")
    })
    .await;
    let mut agents = [
        agent(&mesh, "orders").start().await,
        agent(&mesh, "payments").start().await,
    ];
    let caller = start(language, &mesh, "orders").await;
    let called = start(language, &mesh, "payments").await;
    ready(&caller).await;
    let to = ready(&called).await["serves"].as_str().unwrap().to_owned();
    let (mut servers, mut callers) = (BTreeSet::new(), BTreeSet::new());
    let (began, mut calls, mut rotated) = (Instant::now(), 0, false);
    while servers.len() < LEAVES || callers.len() < LEAVES {
        let answer = caller.call(&to, "spiffe://example.org/payments").await;
        let answer = answer.unwrap_or_else(|why| panic!("after {calls} calls: {why}"));
        assert_eq!(answer["told"]["peer"], "spiffe://example.org/orders");
        servers.insert(answer["server"].to_string());
        callers.insert(caller.state().await["serial"].to_string());
        calls += 1;
        if servers.len() > 1 && !rotated {
            mesh.authority.rotate().await;
            rotated = true;
        }
        let seen = (servers.len(), callers.len());
        assert!(
            began.elapsed() < Duration::from_secs(90),
            "certificates seen: {seen:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let wrong = caller.call(&to, "spiffe://example.org/billing").await;
    wrong.unwrap_err();
    // What they hold is theirs while their agents are gone; and then they follow again.
    let payments = "spiffe://example.org/payments";
    for agent in &mut agents {
        assert_eq!(agent.drain().await, 0, "connections were cut");
    }
    let held = caller.state().await;
    caller.call(&to, payments).await.unwrap();
    for agent in &mut agents {
        agent.start().await;
    }
    renewed(&caller, &held).await;
    caller.call(&to, payments).await.unwrap();
    println!("{calls} calls, each over a connection of its own");
}

/// The bundle of another trust domain reaches the client, and one that nobody federates with does not.
pub(crate) async fn has_the_bundles_of_others(language: Language) {
    let partner = Mesh::start().await;
    let bundle = partner
        .workload("somebody")
        .await
        .identity()
        .bundle
        .to_json();
    let file = partner.dir().join("partner.json");
    fs::write(&file, bundle).unwrap();
    let mesh = Mesh::with(|authority| {
        authority.more(&format!(
            "federation: [{{trust_domain: partner.example, profile: https_spiffe, \
              url: \"{}/v1/bundle\", endpoint_spiffe_id: \"spiffe://partner.example/authority\", \
              bundle: \"{}\"}}]",
            partner.authority.url(),
            file.display()
        ))
    })
    .await;
    let _orders = agent(&mesh, "orders").start().await;
    let client = start(language, &mesh, "orders").await;
    ready(&client).await;
    let has = async |trust_domain: &str| {
        let bundle = until("the bundle", async || {
            client.bundle(trust_domain).await.ok()
        });
        let bundle = bundle.await;
        (bundle["roots"].as_u64(), bundle["keys"].as_u64())
    };
    assert_eq!(has("example.org").await, (Some(1), Some(1)));
    assert_eq!(has("partner.example").await, (Some(1), Some(1)));
    client.bundle("stranger.example").await.unwrap_err();
}

/// A client of an agent that the authority refused.
pub(crate) async fn of_a_stranger(language: Language) -> (Mesh, Agent, WorkloadClient) {
    let mesh = Mesh::with(|authority| authority.rules(RULES)).await;
    let stranger = agent(&mesh, "stranger").start_unready().await;
    until("the authority refused", async || {
        let (_, text) = stranger.probe("/readyz").await;
        text.contains("no rule").then_some(())
    })
    .await;
    let client = start(language, &mesh, "stranger").await;
    (mesh, stranger, client)
}

/// A decided refusal reaches the client as one. Returns the client's state once it knows.
#[cfg(any(feature = "peers-go", feature = "peers-java"))]
pub(crate) async fn is_refused(language: Language) -> (Mesh, Agent, WorkloadClient, Value) {
    let (mesh, stranger, client) = of_a_stranger(language).await;
    let state = until("the client is refused", async || {
        let state = client.state().await;
        let said = format!("{} {}", state["said"], state["ended"]);
        said.contains("no identity issued").then_some(state)
    })
    .await;
    assert_eq!(state["ready"], false);
    (mesh, stranger, client, state)
}

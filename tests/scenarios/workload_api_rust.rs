//! The Rust client of SPIFFE (crate `spiffe`), as an app uses it, through all that happens to an agent.

use std::{fs, time::Duration};

use spiffe::{JwtSource, WorkloadApiClient, WorkloadApiError, X509Source};
use warifu_tests::mesh::{Agent, Mesh, until};

use super::workload_api_clients::asks_on;

const ID: &str = "spiffe://example.org/orders";

/// Certificates count in whole seconds; a third of this is the time between two.
const LIFE: Duration = Duration::from_secs(6);

/// Nothing in these tests may take longer.
const SOON: Duration = Duration::from_secs(30);

/// An agent to be that serves the Workload API, and where.
async fn agent(mesh: &Mesh) -> (Agent, String) {
    let socket = format!("unix:{}/workload.sock", mesh.dir().display());
    let local = format!("local: {{workload_api: {{listen: \"{socket}\", hint: internal}}}}");
    let agent = mesh.agent("orders").more(&local).prepare().await;
    (agent, socket)
}

async fn soon<T>(what: &str, it: impl Future<Output = T>) -> T {
    let it = tokio::time::timeout(SOON, it).await;
    it.unwrap_or_else(|_| panic!("waited {SOON:?} in vain: {what}"))
}

/// The client's own words for a call that is answered with an error.
async fn error(socket: &str) -> WorkloadApiError {
    let client = WorkloadApiClient::connect_to(socket).await.unwrap();
    client.fetch_x509_svid().await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_wait_for_the_agent_and_follow_it_through_rotations_restarts_outages_and_drains() {
    let mut mesh = Mesh::with(|authority| authority.on_disk().ttl(LIFE)).await;
    let (mut agent, socket) = agent(&mesh).await;
    // Before there is a socket, and then before there is an identity.
    let building = tokio::spawn({
        let (x509, jwt) = (
            X509Source::builder().endpoint(&socket),
            JwtSource::builder().endpoint(&socket),
        );
        async move { (x509.build().await.unwrap(), jwt.build().await.unwrap()) }
    });
    mesh.authority.stop();
    agent.start_unready().await;
    let told = error(&socket).await;
    assert!(matches!(told, WorkloadApiError::Transport(_)), "{told}");
    assert!(
        told.to_string().to_lowercase().contains("unavailable"),
        "{told}"
    );
    assert!(!building.is_finished());
    asks_on(&agent).await;
    mesh.authority.start().await;
    let (x509, jwt) = soon("the sources have an identity", building)
        .await
        .unwrap();
    let svid = x509.svid().unwrap();
    assert_eq!(svid.spiffe_id().to_string(), ID);
    assert_eq!(svid.hint(), Some("internal"));

    let mut updates = x509.updated();
    for _ in 0..2 {
        soon("a rotation", updates.changed()).await.unwrap();
    }
    let audiences = ["payments", "billing"];
    let token = soon("a token", jwt.fetch_jwt_svid(audiences))
        .await
        .unwrap();
    assert_eq!(token.spiffe_id().to_string(), ID);
    let client = WorkloadApiClient::connect_to(&socket).await.unwrap();
    for audience in audiences {
        let valid = client.validate_jwt_token(audience, token.token()).await;
        assert_eq!(valid.unwrap().spiffe_id().to_string(), ID);
    }
    client
        .validate_jwt_token("orders", token.token())
        .await
        .unwrap_err();

    // While the authority is away, what there is is served, to its end.
    mesh.authority.stop();
    let held = client.fetch_x509_svid().await.unwrap();
    assert_eq!(held.spiffe_id().to_string(), ID);
    let expired = async || client.fetch_x509_svid().await.err();
    let why = until("the identity expires", expired).await;
    assert!(
        why.to_string().to_lowercase().contains("unavailable"),
        "{why}"
    );
    mesh.authority.start().await;
    soon("the source follows again", updates.changed())
        .await
        .unwrap();
    assert!(x509.svid().is_ok());

    // A crash, and the end in order.
    agent.restart().await;
    soon("the source follows after a crash", updates.changed())
        .await
        .unwrap();
    let drained = soon("the drain waits for no stream", agent.drain()).await;
    assert_eq!(drained, 0, "connections were cut");
    let state = x509.state();
    assert!(!state.is_closed() && state.withdrawal().is_none());
    agent.start().await;
    soon("the source follows after a drain", updates.changed())
        .await
        .unwrap();
    assert!(jwt.is_healthy() && x509.is_healthy());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decided_refusal_is_one_to_the_client_and_only_while_it_is() {
    let mesh = Mesh::start().await;
    let (mut agent, socket) = agent(&mesh).await;
    let token = agent.dir.join("join-token");
    let good = fs::read_to_string(&token).unwrap();
    fs::write(&token, "not a token of this authority").unwrap();
    agent.start_unready().await;
    let refused = async || {
        let why = error(&socket).await;
        matches!(why, WorkloadApiError::NoIdentityIssued).then_some(())
    };
    until("the refusal reaches the client", refused).await;
    // A source waits for it to be revised, and the agent asks again.
    let source = X509Source::builder().endpoint(&socket).build();
    let source = tokio::spawn(source);
    asks_on(&agent).await;
    fs::write(&token, good).unwrap();
    let source = soon("the refusal is revised", source)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(source.svid().unwrap().spiffe_id().to_string(), ID);

    let client = WorkloadApiClient::connect_to(&socket).await.unwrap();
    let other = "spiffe://example.org/billing".parse().unwrap();
    let refused = client.fetch_jwt_svid(["payments"], Some(&other)).await;
    assert!(
        matches!(refused, Err(WorkloadApiError::NoIdentityIssued)),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audience_the_rule_does_not_grant_is_refused_in_the_authoritys_words() {
    let rules = r#"
- {attestor: bootstrap, match: {service: "*"}, id: "/{service}", audiences: [payments]}"#;
    let mesh = Mesh::with(|authority| authority.rules(rules)).await;
    let (mut agent, socket) = agent(&mesh).await;
    agent.start().await;
    let client = WorkloadApiClient::connect_to(&socket).await.unwrap();
    client.fetch_jwt_svid(["payments"], None).await.unwrap();
    for audiences in [&["billing"][..], &["payments", "billing"]] {
        let refused = client.fetch_jwt_svid(audiences, None).await;
        assert!(
            matches!(refused, Err(WorkloadApiError::NoIdentityIssued)),
            "{refused:?}"
        );
    }
}

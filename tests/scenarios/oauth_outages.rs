//! The OAuth 2.0 token endpoint while agent and authority come and go: refusals stay refusals, what may pass is 503 with
//! `Retry-After`, and a token in hand is given out to its end.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::task::JoinSet;
use warifu_tests::{
    mesh::{Agent, Mesh, until},
    oauth::{Endpoint, FORM},
};

async fn mesh(jwt_ttl: Duration) -> Mesh {
    Mesh::with(|authority| {
        let authority = authority.on_disk().jwt_ttl(jwt_ttl);
        authority.more("tokens: {access_token: {issuer: \"https://tokens.example.org\"}}")
    })
    .await
}

fn oauth(mesh: &Mesh) -> String {
    let socket = mesh.dir().join("oauth.sock");
    let socket = socket.display();
    format!("local: {{oauth: {{listen: \"unix:{socket}\", audiences: [payments, ledger]}}}}")
}

/// The token, or nothing for an answer that says to ask again.
async fn ask(agent: &Agent, form: &str) -> Option<Value> {
    let answer = Endpoint::of(agent).ask(&[], form).await;
    if answer.status == 200 {
        answer.token();
        return Some(answer.json());
    }
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.error(), "temporarily_unavailable");
    assert_eq!(answer.headers["retry-after"], "2");
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_concurrent_first_requests_make_one_mint() {
    const CLIENTS: usize = 1000;
    let mesh = mesh(Duration::from_secs(300)).await;
    let agent = mesh.agent("orders").more(&oauth(&mesh)).start().await;
    let endpoint = Endpoint::of(&agent);
    let form = format!("{FORM}&audience=ledger&scope=charges.read");
    let mut clients: JoinSet<String> = (0..CLIENTS)
        .map(|_| {
            let (endpoint, form) = (endpoint.clone(), form.clone());
            async move { endpoint.ask(&[], &form).await.token() }
        })
        .collect();
    let first = clients.join_next().await.unwrap().unwrap();
    while let Some(token) = clients.join_next().await {
        assert_eq!(token.unwrap(), first);
    }
    let minted = mesh.authority.audit("access-token").into_iter();
    let minted = minted.filter(|line| line["audiences"] == serde_json::json!(["ledger"]));
    assert_eq!(minted.count(), 1);
    let given = agent.metric("warifu_local_oauth_requests_total{outcome=\"given\"}");
    assert_eq!(given.await, CLIENTS as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_before_there_is_an_identity_is_told_to_ask_again_and_then_has_a_token()
{
    let mut mesh = mesh(Duration::from_secs(300)).await;
    let mut agent = mesh.agent("orders").more(&oauth(&mesh)).prepare().await;
    mesh.authority.stop();
    agent.start_unready().await;
    for audience in ["payments", "ledger"] {
        let form = format!("{FORM}&audience={audience}");
        assert!(ask(&agent, &form).await.is_none(), "{audience}");
    }
    mesh.authority.start().await;
    for audience in ["payments", "ledger"] {
        let form = format!("{FORM}&audience={audience}");
        until("there is a token", async || ask(&agent, &form).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_token_in_hand_is_given_out_to_its_end_while_the_authority_is_away_and_never_expired()
{
    const LIFE: Duration = Duration::from_secs(6);
    let mut mesh = mesh(LIFE).await;
    let agent = mesh.agent("orders").more(&oauth(&mesh)).start().await;
    until("there is a token", async || ask(&agent, FORM).await).await;
    mesh.authority.stop();
    let stopped = SystemTime::now();
    let mut given = 0;
    until("the token ends", async || {
        let Some(token) = ask(&agent, FORM).await else {
            return Some(());
        };
        given += 1;
        let left = token["expires_in"].as_u64().unwrap();
        assert!(left <= LIFE.as_secs(), "{left}");
        None
    })
    .await;
    assert!(given > 3, "{given}");
    // Two thirds of its life and more were left when the authority went.
    let served = stopped.elapsed().unwrap();
    assert!(
        served > LIFE / 2 && served <= LIFE + Duration::from_secs(1),
        "{served:?}"
    );
    mesh.authority.start().await;
    let fresh = until("the authority is back", async || ask(&agent, FORM).await);
    assert!(fresh.await["expires_in"].as_u64().unwrap() >= LIFE.as_secs() / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_restarted_gives_tokens_again() {
    let mesh = mesh(Duration::from_secs(300)).await;
    let mut agent = mesh.agent("orders").more(&oauth(&mesh)).start().await;
    let first = until("there is a token", async || ask(&agent, FORM).await).await;
    agent.restart().await;
    let second = until("there is a token", async || ask(&agent, FORM).await).await;
    assert_ne!(first["access_token"], second["access_token"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_restarted_while_the_authority_is_away_still_has_the_keys_and_follows_them_after()
{
    let mut mesh = mesh(Duration::from_secs(300)).await;
    let mut agent = mesh.agent("orders").more(&oauth(&mesh)).start().await;
    let forgetful = oauth(&mesh).replace("oauth.sock", "forgetful.sock");
    let forgetful = mesh
        .agent("billing")
        .without_state_dir()
        .more(&forgetful)
        .start();
    let mut forgetful = forgetful.await;
    let keys = async |agent: &Agent| {
        let answer = Endpoint::of(agent).get("/oauth2/jwks").await;
        match answer.status {
            200 => Some(answer.json()),
            _ => {
                assert_eq!(answer.error(), "temporarily_unavailable");
                None
            }
        }
    };
    let known = until("the keys", async || keys(&agent).await).await;
    until("the keys", async || keys(&forgetful).await).await;

    mesh.authority.stop();
    for agent in [&mut agent, &mut forgetful] {
        agent.stop();
        agent.start_unready().await;
    }
    assert_eq!(keys(&agent).await, Some(known));
    assert_eq!(keys(&forgetful).await, None);

    // It mints none any more: what was kept goes, and stays away.
    mesh.authority
        .configure(|yaml| yaml.replace("tokens:", "# tokens:"));
    mesh.authority.start().await;
    agent.ready().await;
    until("the keys are gone", async || {
        keys(&agent).await.is_none().then_some(())
    })
    .await;
    mesh.authority.stop();
    agent.stop();
    agent.start_unready().await;
    assert_eq!(keys(&agent).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_answers_who_waits_for_a_token() {
    let mut mesh = mesh(Duration::from_secs(300)).await;
    let mut agent = mesh.agent("orders").more(&oauth(&mesh)).start().await;
    let endpoint = Endpoint::of(&agent);
    until("there is a token", async || ask(&agent, FORM).await).await;
    mesh.authority.stop();
    let form = format!("{FORM}&audience=ledger");
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (endpoint, form) = (endpoint.clone(), form.clone());
            tokio::spawn(async move { endpoint.ask(&[], &form).await.status })
        })
        .collect();
    until("they ask", async || {
        let waits = agent
            .metric("warifu_server_accepted_total{listener=\"oauth\"}")
            .await;
        (waits >= 21.0).then_some(())
    })
    .await;
    assert_eq!(agent.drain().await, 0, "connections were cut");
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), 503);
    }
}

//! OAuth client libraries, unmodified, before their agent starts, through its restart and drain, and while the authority
//! is away: each is told what it may understand, asks once a question, and goes on by itself.

use std::fs;

use serde_json::{Value, json};
use warifu_tests::{
    mesh::{Agent, Mesh, until},
    oauth::{Endpoint, SECRET, secret_file},
    peers::Talking,
    ports::free_port,
};

const ISSUER: &str = "https://tokens.example.org";

/// A program with the library, and what it is asked with to get a token.
struct Library {
    process: Talking,
    question: Value,
}

impl Library {
    async fn ask(&mut self) -> Value {
        self.process.ask(&self.question).await.unwrap()
    }

    /// The token, once there is one. Until then the library says that there is none yet, as it understood it.
    async fn token(&mut self) -> String {
        until("a token", async || {
            let said = self.ask().await;
            let token = token(&said);
            assert!(token.is_some() || may_pass(&said), "{said}");
            token
        })
        .await
    }
}

/// What a library says of a token: requests-oauthlib has an object, `x/oauth2` the token itself.
fn token(said: &Value) -> Option<String> {
    let token = &said["token"];
    let token = token["access_token"].as_str().or(token.as_str());
    token.map(str::to_owned)
}

/// Whether the library knows that it is to ask again.
fn may_pass(said: &Value) -> bool {
    let later = said["status"] == 503 && said["retry_after"] == "2";
    later && said["error"] == "temporarily_unavailable"
}

/// An agent that crashed a moment ago may still be there for one more answer.
async fn unreachable(library: &mut Library) {
    until("nobody answers, and the library says so", async || {
        let said = library.ask().await;
        let why = said["unreachable"].as_str()?.to_lowercase();
        why.contains("connection refused").then_some(())
    })
    .await;
}

async fn mesh() -> Mesh {
    Mesh::with(|authority| {
        authority.on_disk().more(&format!(
            "tokens: {{access_token: {{issuer: \"{ISSUER}\"}}}}"
        ))
    })
    .await
}

/// Requests that were answered, whatever the answer.
async fn answered(agent: &Agent) -> f64 {
    agent
        .metric_sum("warifu_local_oauth_requests_total", "")
        .await
}

/// `make` starts a program that asks the endpoint at the URL.
async fn lives_on(make: impl AsyncFnOnce(&Mesh, &str) -> Library) {
    let mut mesh = mesh().await;
    let listen = free_port();
    let secret = secret_file(mesh.dir(), SECRET);
    fs::write(mesh.dir().join("client-id"), "app").unwrap();
    let oauth = format!(
        "local: {{oauth: {{listen: \"{listen}\", client: {{id: app, secret: \"file:{secret}\"}}, \
         audiences: [payments]}}}}"
    );
    let mut agent = mesh.agent("orders").more(&oauth).prepare().await;
    let mut library = make(&mesh, &format!("http://{listen}/oauth2/token")).await;

    // Before the agent, and before the agent has an identity.
    unreachable(&mut library).await;
    mesh.authority.stop();
    agent.start_unready().await;
    for asked in 1..=3 {
        let said = library.ask().await;
        assert!(may_pass(&said), "{said}");
        // It is the app that asks again, when it likes: no library spins.
        assert_eq!(answered(&agent).await, f64::from(asked));
    }
    mesh.authority.start().await;
    let first = library.token().await;

    // Crashed, and started again.
    agent.stop();
    unreachable(&mut library).await;
    agent.start().await;
    let second = library.token().await;
    assert_ne!(first, second);
    until("the keys are known", async || {
        let keys = Endpoint::of(&agent).get("/oauth2/jwks").await;
        (keys.status == 200).then_some(())
    })
    .await;

    // What the agent holds is given while the authority is away.
    mesh.authority.stop();
    let before = answered(&agent).await;
    assert_eq!(token(&library.ask().await), Some(second.clone()));
    assert_eq!(answered(&agent).await, before + 1.0);
    // An agent that starts meanwhile holds none. It still has the keys that verify those in use.
    agent.stop();
    agent.start_unready().await;
    let said = library.ask().await;
    assert!(may_pass(&said), "{said}");
    verifies(&agent, &second).await;
    mesh.authority.start().await;
    agent.ready().await;
    library.token().await;

    assert_eq!(agent.drain().await, 0, "connections were cut");
    unreachable(&mut library).await;
    agent.start().await;
    library.token().await;
}

/// PyJWT verifies the token with the keys of the agent's endpoint.
async fn verifies(agent: &Agent, token: &str) {
    let keys = Endpoint::of(agent).url("/oauth2/jwks");
    let mut verifier = Talking::python("oauth.py", &["-"]).await.unwrap();
    let asked = json!({"jwks_url": keys, "issuer": ISSUER, "audience": "payments", "token": token});
    let said = verifier.ask(&asked).await.unwrap();
    assert_eq!(
        said["claims"]["sub"], "spiffe://example.org/orders",
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_oauthlib_lives_through_a_late_agent_its_restart_and_drain_and_an_outage_of_the_authority()
 {
    lives_on(async |_, url| Library {
        process: Talking::python("oauth.py", &["-"]).await.unwrap(),
        question: json!({"url": url, "client_id": "app", "client_secret": SECRET, "how": "basic", "scope": null}),
    })
    .await;
}

#[cfg(feature = "peers-go")]
async fn clientcredentials(mesh: &Mesh, url: &str, kept: bool) -> Library {
    let dir = mesh.dir().to_str().unwrap();
    let args = ["-dir", dir, "-url", url, "-follow"];
    Library {
        process: Talking::go("oauth", &args).await.unwrap(),
        question: json!({"kept": kept}),
    }
}

#[cfg(feature = "peers-go")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gos_clientcredentials_lives_through_a_late_agent_its_restart_and_drain_and_an_outage_of_the_authority()
 {
    lives_on(async |mesh, url| clientcredentials(mesh, url, false).await).await;
}

/// A token source of Go's, made once, as apps have it: it asks when its token is about to end, and no sooner.
#[cfg(feature = "peers-go")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_source_of_gos_made_before_the_agent_goes_on_with_its_token_while_the_agent_is_gone()
 {
    let mesh = mesh().await;
    let listen = free_port();
    let secret = secret_file(mesh.dir(), SECRET);
    fs::write(mesh.dir().join("client-id"), "app").unwrap();
    let oauth = format!(
        "local: {{oauth: {{listen: \"{listen}\", client: {{id: app, secret: \"file:{secret}\"}}, \
         audiences: [payments]}}}}"
    );
    let mut agent = mesh.agent("orders").more(&oauth).prepare().await;
    let url = format!("http://{listen}/oauth2/token");
    let mut library = clientcredentials(&mesh, &url, true).await;
    unreachable(&mut library).await;
    agent.start().await;
    let first = library.token().await;
    let asked = answered(&agent).await;
    assert_eq!(token(&library.ask().await), Some(first.clone()));
    assert_eq!(answered(&agent).await, asked);
    assert_eq!(agent.drain().await, 0, "connections were cut");
    assert_eq!(token(&library.ask().await), Some(first.clone()));
    agent.start().await;
    assert_eq!(token(&library.ask().await), Some(first));
}

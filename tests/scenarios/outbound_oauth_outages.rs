//! A provider of tokens that throttles, hangs, breaks off, fails, says too much or points elsewhere: a valid token stays
//! in use, and where there is none the app has an honest answer within the route's time.

use std::{
    fs,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use warifu_tests::{
    mesh::{Agent, Answer, App, Mesh, text, until},
    oauth_provider::{Provider, Registered, Trouble},
};

const SECRET: &str = "hunter2-hunter2";

async fn agent(mesh: &Mesh, app: &App, provider: &Provider, more: &str) -> Agent {
    let secret = mesh.dir().join("secret");
    fs::write(&secret, SECRET).unwrap();
    provider.register("orders", Registered::Basic(vec![SECRET.into()]));
    let route = format!(
        "{{host: partner, upstream: \"{}\", oauth: {{token_url: \"{}\", client: {{id: orders, \
         client_secret_basic: \"file:{}\"}}}}{more}}}",
        app.url(),
        provider.token_url(),
        secret.display()
    );
    mesh.agent("orders").route(&route).start().await
}

async fn status(agent: &Agent) -> u16 {
    let answer = agent.client().get("http://partner/").send().await.unwrap();
    answer.status().as_u16()
}

fn troubles(elsewhere: &Provider) -> Vec<Trouble> {
    vec![
        Trouble::Throttles,
        Trouble::Hangs,
        Trouble::Torn,
        Trouble::Oversized,
        Trouble::Says(500, "<html>".into()),
        Trouble::Says(503, r#"{"error":"invalid_client"}"#.into()),
        Trouble::Says(200, "{".into()),
        Trouble::Says(200, r#"{"access_token":"x","token_type":"DPoP"}"#.into()),
        Trouble::Redirects(elsewhere.token_url()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_concurrent_first_calls_make_one_token_request() {
    const CALLS: usize = 1000;
    let mesh = Mesh::start().await;
    let app = mesh.plain_app().await;
    let provider = Provider::start().await;
    provider.has(Trouble::Slow(Duration::from_millis(500)));
    let agent = agent(&mesh, &app, &provider, "").await;
    let client = agent.client();
    let mut calls: JoinSet<u16> = (0..CALLS)
        .map(|_| {
            let client = client.clone();
            async move {
                let answer = client.get("http://partner/").send().await.unwrap();
                answer.status().as_u16()
            }
        })
        .collect();
    while let Some(status) = calls.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(provider.asked(), 1);
    assert_eq!(app.count(), CALLS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_valid_token_is_served_whatever_befalls_its_provider() {
    let mesh = Mesh::start().await;
    let app = mesh.plain_app().await;
    let (provider, elsewhere) = (Provider::start().await, Provider::start().await);
    provider.expires_in(Some(120));
    let agent = agent(&mesh, &app, &provider, "").await;
    assert_eq!(status(&agent).await, 200);
    let token = provider.issued().pop().unwrap();
    for trouble in troubles(&elsewhere) {
        provider.has(trouble.clone());
        // A 401 wants another token now: there is none, and the one at hand stays in use.
        app.next(Answer::status(401));
        let started = Instant::now();
        if trouble != Trouble::Hangs {
            assert_eq!(status(&agent).await, 401, "{trouble:?}");
        }
        for _ in 0..5 {
            let _ = status(&agent).await;
            assert_eq!(
                app.last().headers["authorization"],
                format!("Bearer {token}")
            );
        }
        assert!(started.elapsed() < Duration::from_secs(15), "{trouble:?}");
    }
    assert!(elsewhere.asked() == 0, "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_an_app_has_an_honest_answer_within_the_routes_time() {
    let (mesh, elsewhere) = (Mesh::start().await, Provider::start().await);
    let app = mesh.plain_app().await;
    let mut agents = Vec::new();
    for (index, trouble) in troubles(&elsewhere).into_iter().enumerate() {
        let provider = Provider::start().await;
        provider.has(trouble.clone());
        provider.register("orders", Registered::Basic(vec![SECRET.into()]));
        let secret = mesh.dir().join("secret");
        fs::write(&secret, SECRET).unwrap();
        agents.push((
            format!("p{index}"),
            trouble,
            format!(
                "{{host: p{index}, upstream: \"{}\", timeouts: {{first_byte: 2s}}, oauth: {{token_url: \"{}\", client: {{id: orders, \
                 client_secret_basic: \"file:{}\"}}}}}}",
                app.url(),
                provider.token_url(),
                secret.display()
            ),
            provider,
        ));
    }
    let mut agent = mesh.agent("orders");
    for (_, _, route, _) in &agents {
        agent = agent.route(route);
    }
    let agent = agent.start().await;
    let client = agent.client();
    for (host, trouble, _, provider) in &agents {
        let started = Instant::now();
        let answer = client.get(&format!("http://{host}/")).send().await.unwrap();
        let decided = matches!(trouble, Trouble::Redirects(_))
            || *trouble == Trouble::Says(200, r#"{"access_token":"x","token_type":"DPoP"}"#.into());
        let (status, reason) = match decided {
            true => (502, "token-denied"),
            false => (503, "no-token"),
        };
        assert_eq!(answer.status(), status, "{trouble:?}");
        assert_eq!(answer.headers()["x-warifu-reason"], reason, "{trouble:?}");
        assert!(started.elapsed() < Duration::from_secs(4), "{trouble:?}");
        let said = text(&answer.bytes().await.unwrap());
        assert!(!said.contains("hunter2"), "{said}");
        // It is well again: calls are, too, soon.
        provider.has(Trouble::None);
        if !decided {
            until(&format!("{trouble:?} is over"), async || {
                let answer = client.get(&format!("http://{host}/")).send().await.unwrap();
                (answer.status() == 200).then_some(())
            })
            .await;
        }
    }
    assert_eq!(elsewhere.asked(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_the_upstream_refuses_is_replaced_once_and_a_flood_of_401_is_not_one_at_the_provider()
 {
    let mesh = Mesh::start().await;
    let app = mesh.plain_app().await;
    let provider = Provider::start().await;
    let agent = agent(&mesh, &app, &provider, "").await;
    assert_eq!(status(&agent).await, 200);
    app.next(Answer::status(401));
    assert_eq!(status(&agent).await, 200);
    assert_eq!(provider.asked(), 2);
    assert_eq!(app.count(), 3);
    for _ in 0..50 {
        app.next(Answer::status(401));
    }
    for _ in 0..25 {
        status(&agent).await;
    }
    assert!(provider.asked() <= 3, "{}", provider.asked());
}

//! Secrets of AWS Secrets Manager (an emulator's), rotated as it rotates them while they are in use: no request fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header::HOST};
use serde_json::{Value, json};
use warifu_tests::{
    aws::{Account, Keys, Workload},
    mesh::until,
    oauth_provider::{Provider, Registered},
    peers::Ministack,
    upstreams::Keyed,
};

const KEYS: Keys<'_> = Keys {
    id: "test",
    secret: "test",
};

async fn call(ministack: &Ministack, operation: &str, parameters: Value) -> Value {
    let called = ministack
        .call("secretsmanager", operation, parameters)
        .await;
    called.unwrap_or_else(|why| panic!("{operation}: {why}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_secrets_in_use_are_rotated_under_load_and_no_request_fails() {
    let ministack = Ministack::start().await.unwrap();
    for (name, text) in [
        ("legacy/key", "one".to_owned()),
        (
            "partner",
            json!({"client_secret": "one", "client_id": "orders"}).to_string(),
        ),
    ] {
        call(
            &ministack,
            "create_secret",
            json!({"Name": name, "SecretString": text}),
        )
        .await;
    }
    let legacy = Keyed::start("x-custom-auth", 401).await;
    legacy.takes(&["one"]);
    let partner = Keyed::start("x-none", 200).await;
    let provider = Provider::start().await;
    // A token a second or so: each wants the secret.
    provider.expires_in(Some(3));
    provider.register("orders", Registered::Basic(vec!["one".into()]));

    let workload = Workload::new();
    let routes = format!(
        "- {{host: legacy, upstream: \"{}\", secret_header: {{name: x-custom-auth, value: \"secretsmanager:legacy/key\"}}}}\n\
         - {{host: partner, upstream: \"{}\", oauth: {{token_url: \"{}\", client: {{id: orders, \
         client_secret_basic: \"secretsmanager:partner#client_secret\"}}}}}}",
        legacy.url(),
        partner.url(),
        provider.token_url()
    );
    let agent = Arc::new(workload.agent(KEYS, ministack.endpoint(), &routes));
    for host in ["legacy", "partner"] {
        let answer = agent.post(host, "/").await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text);
    }

    let done = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = ["legacy", "partner", "legacy", "partner"]
        .into_iter()
        .map(|host| {
            let (agent, done) = (Arc::clone(&agent), Arc::clone(&done));
            tokio::spawn(async move {
                let mut sent = 0;
                let mut pace = tokio::time::interval(Duration::from_millis(20));
                while !done.load(Ordering::SeqCst) {
                    pace.tick().await;
                    let request = Request::get("/").header(HOST, host);
                    let answer = agent.send(request.body(Bytes::new()).unwrap()).await;
                    assert_eq!(answer.status, 200, "{host} after {sent}: {}", answer.text);
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    for (old, new) in [("one", "two"), ("two", "three")] {
        // createSecret
        for (secret, text) in [
            ("legacy/key", new.to_owned()),
            ("partner", json!({"client_secret": new}).to_string()),
        ] {
            ministack.pend_secret(secret, &text).await.unwrap();
        }
        // setSecret: the old value is good no more, which nobody told the agent.
        legacy.takes(&[new]);
        provider.register("orders", Registered::Basic(vec![new.into()]));
        let issued = provider.issued().len();
        until(&format!("{old} gives way to {new}"), async || {
            let at_legacy = legacy
                .last()
                .get("x-custom-auth")
                .is_some_and(|it| it == new);
            (at_legacy && provider.issued().len() > issued + 1).then_some(())
        })
        .await;
        // finishSecret, and the agent reads that it is current.
        for secret in ["legacy/key", "partner"] {
            ministack.finish_rotation(secret).await.unwrap();
        }
        // Between forced readings there are ten seconds.
        let started = tokio::time::Instant::now();
        until("the forced reading is long ago", async || {
            (started.elapsed() > Duration::from_secs(11)).then_some(())
        })
        .await;
    }
    done.store(true, Ordering::SeqCst);
    for load in load {
        assert!(load.await.unwrap() > 20);
    }
    assert!(
        !provider.refused().is_empty() && legacy.asked().1 > 0,
        "nothing was rotated"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_cannot_be_read_is_503_and_says_what_to_do() {
    let ministack = Ministack::start().await.unwrap();
    let legacy = Keyed::start("x-custom-auth", 401).await;
    legacy.takes(&["one"]);
    let workload = Workload::new();
    let routes = format!(
        "- {{host: legacy, upstream: \"{}\", secret_header: {{name: x-custom-auth, value: \"secretsmanager:nowhere\"}}}}",
        legacy.url()
    );
    let agent = workload.agent(KEYS, ministack.endpoint(), &routes);
    let answer = agent.post("legacy", "/").await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert_eq!(answer.headers["x-warifu-reason"], "no-secret");
    for part in [
        "secretsmanager:nowhere",
        "secretsmanager:GetSecretValue",
        "region",
    ] {
        assert!(answer.text.contains(part), "{part}: {}", answer.text);
    }
    assert_eq!(legacy.asked(), (0, 0));
    // Somebody makes it.
    let made = json!({"Name": "nowhere", "SecretString": "one"});
    call(&ministack, "create_secret", made).await;
    until("it is read", async || {
        (agent.post("legacy", "/").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_secrets_are_read_as_the_role_that_is_named_for_it_and_as_no_other() {
    // Its user may assume roles, and nothing else.
    let account = Account::open().await;
    let made = json!({"Name": "legacy", "SecretString": "one"});
    account
        .set_up("secretsmanager", "create_secret", made)
        .await;
    let reads = "secretsmanager:GetSecretValue";
    let reader = account.role("reader", json!({}), reads).await;
    let other = account.role("other", json!({}), "s3:GetObject").await;
    let legacy = Keyed::start("x-custom-auth", 401).await;
    legacy.takes(&["one"]);
    let route = format!(
        "- {{host: legacy, upstream: \"{}\", secret_header: {{name: x-custom-auth, value: \"secretsmanager:legacy\"}}}}",
        legacy.url()
    );
    let endpoint = account.services();
    for (role, reads) in [
        (None, false),
        (Some(other), false),
        (Some(reader.clone()), true),
    ] {
        let lines = match &role {
            None => String::new(),
            Some(role) => format!(
                "roles: {{secrets: {{arn: \"{role}\", session_name: \"reads-{{name}}\"}}}}\n\
                 secretsmanager: {{endpoint: \"http://{endpoint}\", role: secrets}}"
            ),
        };
        let agent = account.agent_with(&lines, &route);
        let answer = agent.post("legacy", "/").await;
        if reads {
            answer.is_of_the_service(200);
            agent.credentials(&reader, Some("reads-orders"));
        } else {
            let said = ["secretsmanager:legacy", "AccessDenied"];
            answer.is_refused(503, "no-secret", &said);
        }
    }
}

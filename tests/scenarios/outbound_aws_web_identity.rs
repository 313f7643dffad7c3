//! A route attaches a token in which AWS says which role calls: one for all requests, within the session's life, made
//! anew where the service refuses it.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use warifu_tests::aws::{Agent, Principal, StsMood, TokenApi, WebIdentitySts, Workload};

const ACCOUNT: &str = "123456789012";
const CALL: &str = "warifu:example.org:call:payments";

struct World {
    sts: WebIdentitySts,
    api: TokenApi,
    workload: Workload,
}

impl World {
    async fn new() -> Self {
        let sts = WebIdentitySts::start().await;
        sts.issuer(ACCOUNT).await;
        Self {
            sts,
            api: TokenApi::start().await,
            workload: Workload::new(),
        }
    }

    fn route(&self, host: &str, more: &str) -> String {
        let api = self.api.url();
        format!(
            "- {{host: {host}, upstream: \"{api}\", aws_web_identity: {{audiences: [\"{CALL}\"], {more}}}}}\n"
        )
    }

    /// Whose base credentials are a session of `role`.
    fn agent_as(&self, role: Principal, roles: &str, routes: &[String]) -> Agent {
        let session = self.sts.session(role);
        self.workload
            .agent_of_session(&session, &self.sts.url(), roles, &routes.concat())
    }

    fn agent(&self, routes: &[String]) -> Agent {
        self.agent_as(orders(), "", routes)
    }

    /// The token requests so far.
    fn asked(&self) -> usize {
        let asked = self.sts.asked();
        let tokens = asked
            .iter()
            .filter(|it| it["Action"] == "GetWebIdentityToken");
        tokens.count()
    }
}

fn orders() -> Principal {
    Principal::role(ACCOUNT, "/team/", "svc-orders")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_carry_one_token_that_says_which_role_calls() {
    let world = World::new().await;
    let agent = world.agent(&[
        world.route("payments", "duration: 2m"),
        world.route("es", "algorithm: ES384"),
    ]);
    for _ in 0..5 {
        agent
            .post("payments", "/charges")
            .await
            .is_of_the_service(200);
    }
    assert_eq!((world.api.tokens(), world.api.calls()), (1, 5));
    let (header, claims) = world.api.last();
    assert_eq!(header["alg"], "RS256");
    assert_eq!(claims["aud"], CALL);
    assert_eq!(
        claims["sub"],
        "arn:aws:iam::123456789012:role/team/svc-orders"
    );
    let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert_eq!(life, 120);
    agent.post("es", "/charges").await.is_of_the_service(200);
    let (header, _) = world.api.last();
    assert_eq!(header["alg"], "ES384");
    // The status page says what is held, and not the token.
    let status = agent.status();
    let tokens = status["tokens"].as_array().unwrap();
    let held = tokens.iter().filter(|it| it["kind"] == "aws-web-identity");
    assert_eq!(held.count(), 2, "{status}");
    let (shown, log) = (status.to_string(), agent.log());
    assert!(
        !shown.contains("eyJ") && !log.contains("eyJ"),
        "S12: {shown} {log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_a_thousand_first_calls_make_one_token_request() {
    let world = World::new().await;
    let agent = Arc::new(world.agent(&[world.route("payments", "")]));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let agent = Arc::clone(&agent);
        calls.spawn(async move { agent.post("payments", "/charges").await });
    }
    for answer in calls.join_all().await {
        answer.is_of_the_service(200);
    }
    assert_eq!((world.api.tokens(), world.asked()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_the_service_refuses_is_replaced_once_and_the_request_sent_again() {
    let world = World::new().await;
    let agent = world.agent(&[world.route("payments", "")]);
    agent
        .post("payments", "/charges")
        .await
        .is_of_the_service(200);
    world.api.refuse_those_seen();
    let get = || {
        let request = http::Request::get("/charges").header("host", "payments");
        request.body(bytes::Bytes::new()).unwrap()
    };
    agent.send(get()).await.is_of_the_service(200);
    assert_eq!((world.api.tokens(), world.asked()), (2, 2));
    // A service that refuses everything does not have a token made for each request.
    world.api.refuse_all();
    for _ in 0..20 {
        agent.send(get()).await.is_of_the_service(401);
    }
    assert!(world.asked() <= 3, "{} token requests", world.asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lives_no_longer_than_the_session_of_its_role() {
    let world = World::new().await;
    // What its environment gives says nothing of its end; STS does.
    let mut short = orders();
    short.session = Duration::from_secs(200);
    let caller = format!("arn:aws:iam::{ACCOUNT}:role/caller");
    let roles = format!("roles: {{caller: {{arn: \"{caller}\", duration: 15m}}}}");
    let routes = [
        world.route("base", "duration: 1h"),
        world.route("role", "duration: 1h, role: caller"),
    ];
    let agent = world.agent_as(short, &roles, &routes);
    let life = || {
        let (_, claims) = world.api.last();
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap()
    };
    agent.post("base", "/charges").await.is_of_the_service(200);
    assert_eq!(life(), 60);
    agent.post("role", "/charges").await.is_of_the_service(200);
    assert!((800..=895).contains(&life()), "{}", life());
    let (_, claims) = world.api.last();
    assert_eq!(claims["sub"], json!(caller));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_token_is_used_while_sts_is_away_and_a_call_without_one_is_told_why() {
    let world = World::new().await;
    let agent = world.agent(&[
        world.route("payments", ""),
        world.route("later", "duration: 10m"),
    ]);
    agent
        .post("payments", "/charges")
        .await
        .is_of_the_service(200);
    for mood in [StsMood::Failing, StsMood::Throttling, StsMood::Torn] {
        world.sts.is(mood);
        agent
            .post("payments", "/charges")
            .await
            .is_of_the_service(200);
    }
    let world = World::new().await;
    let mut denied = orders();
    denied.audiences = vec!["warifu:example.org:call:ledger".to_owned()];
    let denied = world.agent_as(denied, "", &[world.route("payments", "")]);
    let answer = denied.post("payments", "/charges").await;
    answer.is_refused(
        502,
        "token-denied",
        &["AccessDenied", "sts:GetWebIdentityToken"],
    );
}

//! STS throttles, fails, hangs, answers half and is ten minutes fast: no call fails while there are valid credentials,
//! and where there are none it fails with the reason, within the route's time. Another region's STS takes over.

use std::time::{Duration, Instant};

use warifu_tests::{
    aws::{Mood, Sts, Workload},
    mesh::until,
};

use super::sts_in_trouble::{HOUR, KEYS, LIFE, ROLE, key, outlive};

fn route(sts: &Sts, timeout: &str) -> String {
    format!(
        "- {{host: api, upstream: \"{}/api\", timeouts: {{first_byte: {timeout}}}, \
         sigv4: {{service: execute-api, role: \"{ROLE}\"}}}}\n",
        sts.url()
    )
}

async fn in_the_mood(mood: Mood, said: &str) {
    let sts = Sts::start(Mood::Well(LIFE)).await;
    let workload = Workload::new();
    let agent = workload.agent(KEYS, &sts.url(), &route(&sts, "3s"));
    assert_eq!(key(&agent.post("api", "/charges").await), "ASIA1");
    sts.is(mood);
    assert!(outlive(&agent, sts.expires()).await > 0, "{mood:?}");
    // The API takes no session that is over: were one served, the answer would be the API's.
    let failed = until("a call fails when the session is over", async || {
        let began = Instant::now();
        let answer = agent.post("api", "/charges").await;
        (answer.status != 200).then(|| (answer, began.elapsed()))
    });
    let (failed, took) = failed.await;
    failed.is_refused(503, "no-credentials", &[said]);
    assert!(took < Duration::from_secs(6), "{mood:?}: {took:?}");
    sts.is(Mood::Well(HOUR));
    let healed = until("calls pass again", async || {
        let answer = agent.post("api", "/charges").await;
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(key(&healed.await), "ASIA2", "{mood:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_no_call_fails_while_sts_throttles_and_the_session_lives() {
    in_the_mood(Mood::Throttling, "Throttling").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_no_call_fails_while_sts_answers_half_and_the_session_lives() {
    in_the_mood(Mood::Torn, ROLE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttling_is_met_with_ever_rarer_calls() {
    let sts = Sts::start(Mood::Throttling).await;
    let workload = Workload::new();
    let agent = workload.agent(KEYS, &sts.url(), &route(&sts, "3s"));
    let began = Instant::now();
    let mut calls = 0;
    while began.elapsed() < Duration::from_secs(8) {
        agent
            .post("api", "/charges")
            .await
            .is_refused(503, "no-credentials", &["Throttling"]);
        calls += 1;
    }
    // Three attempts in a call of the SDK, and pauses that double from half a second.
    assert!(calls > 20, "{calls}");
    assert!(
        sts.asked() <= 18,
        "{} calls of STS for {calls} of the app",
        sts.asked()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sts_that_is_ten_minutes_fast_is_followed_in_signatures_and_expiry() {
    let fast = Duration::from_secs(600);
    // By its clock the session has a few seconds, by ours ten minutes more.
    let sts = Sts::start_ahead(Mood::Well(LIFE), fast).await;
    let workload = Workload::new();
    let agent = workload.agent(KEYS, &sts.url(), &route(&sts, "5s"));
    let end = Instant::now() + 2 * LIFE;
    let mut last = String::new();
    let mut sessions = 0;
    // The API refuses what is signed for another time, and sessions that are over by its clock.
    until("two lives of a session are over", async || {
        let now = key(&agent.post("api", "/charges").await);
        sessions += u32::from(now != last);
        last = now;
        (Instant::now() >= end).then_some(())
    })
    .await;
    assert!(sessions >= 2, "the session was renewed {sessions} times");
    let held = agent.credentials(ROLE, Some("orders"));
    assert_eq!(held["failures"], 0, "{held}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_regions_sts_takes_over_where_one_fails_or_hangs_and_not_where_it_refuses() {
    for (mood, within) in [(Mood::Failing, 4), (Mood::Hanging, 8), (Mood::Torn, 4)] {
        let (sts, other) = (Sts::start(mood).await, Sts::start(Mood::Well(HOUR)).await);
        let workload = Workload::new();
        let failover = format!("sts_failover: [\"eu-west-1={}\"]", other.url());
        let agent = workload.agent_of_roles(KEYS, &sts.url(), &failover, &route(&sts, "20s"));
        let began = Instant::now();
        assert_eq!(
            key(&agent.post("api", "/charges").await),
            "ASIA1",
            "{mood:?}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(within),
            "{mood:?}: {:?}",
            began.elapsed()
        );
        assert_eq!(other.asked(), 1, "{mood:?}");
        let failovers = agent.metric("warifu_aws_credentials_sts_failovers_total");
        assert!(failovers >= 1.0, "{mood:?}");
    }
    for mood in [Mood::Refusing, Mood::Throttling] {
        let (sts, other) = (Sts::start(mood).await, Sts::start(Mood::Well(HOUR)).await);
        let workload = Workload::new();
        let failover = format!("sts_failover: [\"eu-west-1={}\"]", other.url());
        let agent = workload.agent_of_roles(KEYS, &sts.url(), &failover, &route(&sts, "20s"));
        agent
            .post("api", "/charges")
            .await
            .is_refused(503, "no-credentials", &[ROLE]);
        assert_eq!(other.asked(), 0, "{mood:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_a_thousand_first_calls_of_the_app_make_one_call_of_sts() {
    let sts = Sts::start(Mood::Well(HOUR)).await;
    let workload = Workload::new();
    let agent = workload.agent(KEYS, &sts.url(), &route(&sts, "30s"));
    let mut calls = tokio::task::JoinSet::new();
    let agent = std::sync::Arc::new(agent);
    for _ in 0..1000 {
        let agent = std::sync::Arc::clone(&agent);
        calls.spawn(async move { agent.post("api", "/charges").await });
    }
    for answer in calls.join_all().await {
        assert_eq!(key(&answer), "ASIA1");
    }
    assert_eq!(sts.asked(), 1);
}

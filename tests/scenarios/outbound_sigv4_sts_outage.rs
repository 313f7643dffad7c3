//! STS goes away: sessions serve to their real expiry, then calls fail with the reason, in bounded time,
//! and heal by themselves.

use std::time::{Duration, Instant, SystemTime};

use warifu_tests::{
    aws::{Agent, Answer, Mood, Sts, Workload},
    mesh::until,
    ports::free_port,
};

use super::sts_in_trouble::{HOUR, KEYS, LIFE, ROLE, key, outlive};

/// How often tests look.
const LOOK: Duration = Duration::from_millis(20);

/// The longest that a call may take to fail: all attempts at STS, with room for a busy machine.
const FAILS_WITHIN: Duration = Duration::from_secs(20);

/// The longest pause between attempts at STS, with what an attempt takes, and room.
const HEALS_WITHIN: Duration = Duration::from_secs(40);

fn route(host: &str, upstream: &str, timeout: &str) -> String {
    format!(
        "- {{host: {host}, upstream: \"{upstream}/api\", timeouts: {{first_byte: {timeout}}}, \
         sigv4: {{service: execute-api, role: \"{ROLE}\"}}}}\n"
    )
}

async fn timed(agent: &Agent, host: &str) -> (Answer, Duration) {
    let began = Instant::now();
    (agent.post(host, "/charges").await, began.elapsed())
}

/// Calls until the session's end, and until one fails: returns that.
async fn fails_after(agent: &Agent, expires: SystemTime) -> (Answer, Duration) {
    assert!(outlive(agent, expires).await > 0);
    until("the session expires", async || {
        let began = SystemTime::now();
        let (answer, took) = timed(agent, "api").await;
        let failed = answer.status != 200;
        assert!(failed || began < expires, "served what had expired");
        failed.then_some((answer, took))
    })
    .await
}

async fn heals(agent: &Agent, sts: &Sts) {
    sts.is(Mood::Well(HOUR));
    let began = Instant::now();
    let answer = until_within(HEALS_WITHIN, async || {
        let answer = agent.post("api", "/charges").await;
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(key(&answer.await), "ASIA2", "after {:?}", began.elapsed());
    let held = agent.credentials(ROLE, Some("orders"));
    assert_eq!(
        (held["failures"].as_u64(), held["last_error"].as_str()),
        (Some(0), None)
    );
}

async fn until_within<T>(within: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < within, "waited {within:?} in vain");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_session_is_used_to_its_end_while_sts_fails_and_calls_heal_when_it_returns() {
    let sts = Sts::start(Mood::Well(LIFE)).await;
    let workload = Workload::new();
    let agent = workload.agent(KEYS, &sts.url(), &route("api", &sts.url(), "30s"));
    assert_eq!(key(&agent.post("api", "/charges").await), "ASIA1");
    sts.is(Mood::Failing);
    let (failed, took) = fails_after(&agent, sts.expires()).await;
    failed.is_refused(503, "no-credentials", &[ROLE, "ServiceUnavailable"]);
    assert!(failed.headers.contains_key("retry-after"));
    assert!(took < FAILS_WITHIN, "{took:?}");
    // The next ones are told at once, and don't drive calls to STS.
    let asked = sts.asked();
    for _ in 0..20 {
        let answer = agent.post("api", "/charges").await;
        answer.is_refused(503, "no-credentials", &[ROLE]);
    }
    let driven = sts.asked() - asked;
    assert!(driven < 20, "{driven} calls");
    let failures = r#"outcome="failed"}"#;
    let labels = format!(r#"credentials="{ROLE}",session="orders",{failures}"#);
    let metric = format!("warifu_aws_credentials_renewals_total{{{labels}");
    assert!(agent.metric(&metric) >= 1.0);
    heals(&agent, &sts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_session_is_used_to_its_end_while_sts_hangs_and_calls_heal_when_it_returns() {
    let sts = Sts::start(Mood::Well(LIFE)).await;
    let routes = [
        route("api", &sts.url(), "30s"),
        route("hurried", &sts.url(), "1s"),
    ];
    let workload = Workload::new();
    let agent = workload.agent(KEYS, &sts.url(), &routes.concat());
    assert_eq!(key(&agent.post("api", "/charges").await), "ASIA1");
    sts.is(Mood::Hanging);
    let (failed, took) = fails_after(&agent, sts.expires()).await;
    failed.is_refused(503, "no-credentials", &[ROLE, "sts_endpoint"]);
    assert!(took < FAILS_WITHIN, "{took:?}");
    // A route's own time is shorter than STS's, where it says so.
    let (hurried, took) = timed(&agent, "hurried").await;
    hurried.is_refused(503, "no-credentials", &[]);
    assert!(took < Duration::from_secs(4), "{took:?}");
    heals(&agent, &sts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sts_that_was_never_there_is_a_503_in_time_and_no_matter_to_other_routes() {
    let api = Sts::start(Mood::Failing).await;
    let nobody = format!("http://{}", free_port());
    let routes = [
        route("api", &api.url(), "30s"),
        format!(
            "- {{host: base, upstream: \"{}/api\", sigv4: {{service: execute-api}}}}\n",
            api.url()
        ),
        format!("- {{host: plain, upstream: \"{}/api\"}}\n", api.url()),
    ];
    let workload = Workload::new();
    let agent = workload.agent(KEYS, &nobody, &routes.concat());
    for _ in 0..2 {
        let (answer, took) = timed(&agent, "api").await;
        answer.is_refused(503, "no-credentials", &[ROLE, &nobody, "reachable"]);
        assert!(took < FAILS_WITHIN, "{took:?}");
        assert_eq!(key(&agent.post("base", "/charges").await), "AKIABASE");
        agent.post("plain", "/charges").await.is_of_the_service(200);
    }
    assert_eq!(agent.probe("/readyz"), 200);
    assert_eq!(api.asked(), 0);
}

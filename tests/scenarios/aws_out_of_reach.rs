//! AWS credentials that can't be had: the app gets 503 with the reason and what to do, in bounded time;
//! other routes work.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use warifu_tests::process::{AgentProcess, Command, PlainApp, Sandbox};

const ROLE: &str = "arn:aws:iam::123456789012:role/caller";

/// An agent of its own authority with a route that signs for [`ROLE`], and one that does not.
fn agent(
    sandbox: &Sandbox,
    app: &PlainApp,
    sts: &str,
    tell: impl FnOnce(Command) -> Command,
) -> AgentProcess {
    let authority = sandbox.authority();
    sandbox.join_token("orders");
    let more = yaml(app, sts);
    let agent = tell(sandbox.agent("orders", &authority, &more)).start();
    let agent = sandbox.listening("orders", agent);
    agent.wait_until_ready();
    agent
}

fn yaml(app: &PlainApp, sts: &str) -> String {
    let app = app.address;
    format!(
        "aws: {{sts_endpoint: \"{sts}\"}}\n\
         outbound:\n  listen: 127.0.0.1:0\n  routes:\n  \
         - {{host: api, upstream: \"http://{app}\", sigv4: {{service: execute-api, role: \"{ROLE}\"}}}}\n  \
         - {{host: plain, upstream: \"http://{app}\"}}\n"
    )
}

fn with_keys(command: Command) -> Command {
    command
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "AKIAORDERS")
        .env("AWS_SECRET_ACCESS_KEY", "hunter2")
}

/// The signed call fails with `why`, which the log has too; nothing was sent; the other call works.
fn is_refused(agent: &AgentProcess, app: &PlainApp, why: &str) {
    let answer = agent.call("api", "/");
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(
        answer.text.contains("x-warifu-reason: no-credentials\r\n"),
        "{}",
        answer.text
    );
    assert!(answer.text.contains("\r\nretry-after: "), "{}", answer.text);
    let (_, body) = answer.text.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let message = body["message"].as_str().unwrap();
    let start = format!("no credentials for {ROLE}: ");
    assert!(
        message.starts_with(&start) && message.contains(why),
        "{message}"
    );
    let logged = agent.running.wait_for("credentials not renewed");
    assert!(
        logged["message"].as_str().unwrap().contains(why),
        "{logged}"
    );
    assert!(app.requests().is_empty());

    let answer = agent.call("plain", "/");
    assert_eq!(answer.status, 200);
    assert!(answer.text.ends_with("hello"));
    assert_eq!(agent.probe("/readyz").status, 200);
    let status = agent.admin("/status").text;
    assert!(
        status.contains("aws_credentials") && status.contains(why),
        "{status}"
    );
    assert!(!agent.running.stderr().contains("hunter2"));
}

#[test]
fn an_sts_that_refuses_connections_is_named() {
    let (sandbox, app) = (Sandbox::new(), PlainApp::prompt());
    let agent = agent(&sandbox, &app, "http://127.0.0.1:1", with_keys);
    let why = "connecting to http://127.0.0.1:1: Connection refused (os error 111). Is the STS endpoint \
               (aws.sts_endpoint, or the region's) reachable from here?";
    is_refused(&agent, &app, why);
}

#[test]
fn an_sts_that_never_answers_costs_bounded_time() {
    // Connections are taken by the kernel, and by nobody else.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let sts = format!("http://{}", silent.local_addr().unwrap());
    let (sandbox, app) = (Sandbox::new(), PlainApp::prompt());
    let agent = agent(&sandbox, &app, &sts, with_keys);
    let began = Instant::now();
    is_refused(
        &agent,
        &app,
        "Is the STS endpoint (aws.sts_endpoint, or the region's) reachable",
    );
    // 12 s by our limits; the rest is for a machine with other things to do.
    assert!(
        began.elapsed() < Duration::from_secs(29),
        "{:?}",
        began.elapsed()
    );
    // The next one is not made to wait for the same again.
    let began = Instant::now();
    assert_eq!(agent.call("api", "/").status, 503);
    assert!(
        began.elapsed() < Duration::from_secs(29),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn no_aws_credentials_at_all_says_where_they_were_looked_for() {
    let (sandbox, app) = (Sandbox::new(), PlainApp::prompt());
    let agent = agent(&sandbox, &app, "http://127.0.0.1:1", |it| {
        it.env("AWS_REGION", "eu-central-1")
    });
    let why = "Looked at the environment, profile, web identity token, container and instance metadata: \
               give this agent a role (EKS: Pod Identity or IRSA; ECS: a task role), or set AWS_PROFILE";
    is_refused(&agent, &app, why);
}

#[test]
fn no_region_is_an_error_at_the_start() {
    let (sandbox, app) = (Sandbox::new(), PlainApp::prompt());
    let more = yaml(&app, "http://127.0.0.1:1");
    let ended = sandbox
        .agent_of("orders", "https://127.0.0.1:1", &"0".repeat(64), &more)
        .run();
    let expected = "warifu: running the agent: aws.region: no region is known; set it, or AWS_REGION, or \
                    the profile's region\n";
    assert_eq!(ended.stderr, expected);
    assert_eq!(ended.code, Some(1));
}

//! An app that knows nothing of AWS calls AWS services as the role its agent's route names.

use std::time::{Duration, SystemTime};

use serde_json::json;
use warifu_agent::telemetry::timestamp::Timestamp;
use warifu_tests::aws::{API_ACTION, Account};

const BASE: &str = "the base credentials";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsigned_request_reaches_the_service_as_the_routes_role() {
    let account = Account::open().await;
    let only_tenant = json!({"StringEquals": {"sts:ExternalId": "tenant-1"}});
    let tenant = account.role("tenant", only_tenant, API_ACTION).await;
    let plain = account.role("plain", json!({}), API_ACTION).await;
    let role = format!(
        "tenant: {{arn: \"{tenant}\", session_name: \"{{name}}-1\", external_id: tenant-1, duration: 20m}}"
    );
    let routes = [
        account.api_route("api", "role: tenant"),
        account.sts_route("sts", "role: tenant"),
        account.sts_route("sts-plain", &format!("role: \"{plain}\"")),
        account.sts_route("sts-base", ""),
    ];
    let agent = account.agent_of_roles(&[role], &routes);

    let answer = agent.post("api", "/charges").await;
    answer.is_of_the_service(200);
    assert!(answer.text.contains("charged"), "{}", answer.text);

    // Who calls is the role, under the session's name; named after the SPIFFE ID where the route has none.
    let assumed = "arn:aws:sts::000000000000:assumed-role";
    assert_eq!(
        agent.caller("sts").await,
        format!("{assumed}/tenant/orders-1")
    );
    assert_eq!(
        agent.caller("sts-plain").await,
        format!("{assumed}/plain/orders")
    );
    assert_eq!(agent.caller("sts-base").await, account.user.arn);

    // One session serves both routes, and lives as long as was asked for.
    let held = agent.credentials(&tenant, Some("orders-1"));
    let minutes = |n: u64| Timestamp(SystemTime::now() + Duration::from_secs(n * 60)).to_string();
    let expires = held["expires"].as_str().unwrap();
    assert!(
        (minutes(15)..=minutes(20)).contains(&expires.to_owned()),
        "{held}"
    );
    assert_eq!(held["failures"], 0);
    assert_eq!(agent.credentials(BASE, None)["expires"], json!(null));
    let status = agent.status();
    assert_eq!(
        status["aws_credentials"].as_array().unwrap().len(),
        3,
        "{status}"
    );
    assert_eq!(status["routes"][0]["role"], "tenant");
    let label = format!(r#"credentials="{tenant}",session="orders-1""#);
    let metric = |name: &str| agent.metric(&format!("warifu_aws_credentials_{name}"));
    assert_eq!(
        metric(&format!(r#"renewals_total{{{label},outcome="renewed"}}"#)),
        1.0
    );
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let left = metric(&format!("expires_seconds{{{label}}}")) - since.as_secs_f64();
    assert!((15.0 * 60.0..=20.0 * 60.0).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lacks_a_permission_gets_the_services_own_answer() {
    let account = Account::open().await;
    let elsewhere = account.role("elsewhere", json!({}), "s3:GetObject").await;
    let agent = account.agent(&[
        account.api_route("api", &format!("role: \"{elsewhere}\"")),
        account.api_route("api-base", ""),
    ]);
    for host in ["api", "api-base"] {
        let answer = agent.post(host, "/charges").await;
        answer.is_of_the_service(403);
        assert!(answer.text.contains("not authorized"), "{}", answer.text);
    }
    let counted = r#"warifu_outbound_requests_total{route="api",outcome="4xx"}"#;
    assert_eq!(agent.metric(counted), 1.0);
}

//! A role that can't be assumed is a 503 that says which, what STS answered, and what to do.

use serde_json::json;
use warifu_tests::aws::{API_ACTION, Account};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_does_not_trust_us_is_named_with_what_sts_said_and_what_to_do() {
    let account = Account::open().await;
    let somebody = "arn:aws:iam::000000000000:user/somebody-else";
    let closed = account
        .role_trusting(somebody, "closed", json!({}), API_ACTION)
        .await;
    let only_tenant = json!({"StringEquals": {"sts:ExternalId": "tenant-1"}});
    let tenant = account.role("tenant", only_tenant, API_ACTION).await;
    let roles = ["tenant-1", "tenant-2"]
        .map(|id| format!("{id}: {{arn: \"{tenant}\", external_id: {id}}}"));
    let agent = account.agent_of_roles(
        &roles,
        &[
            account.api_route("closed", &format!("role: \"{closed}\"")),
            account.api_route("no-id", &format!("role: \"{tenant}\"")),
            account.api_route("wrong-id", "role: tenant-2"),
            account.api_route("right-id", "role: tenant-1"),
        ],
    );
    for (host, role) in [
        ("closed", &closed),
        ("no-id", &tenant),
        ("wrong-id", &tenant),
    ] {
        let answer = agent.post(host, "/charges").await;
        let advice = format!("The trust policy of {role} must allow sts:AssumeRole for ");
        let said = [
            role,
            "STS refused AssumeRole",
            "AccessDenied",
            &advice,
            "external_id",
        ];
        answer.is_refused(503, "no-credentials", &said);
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(account.wire.take_sent(), "", "nothing goes to the service");
    let held = agent.credentials(&closed, Some("orders"));
    assert_eq!(
        (&held["expires"], &held["failures"]),
        (&json!(null), &json!(1)),
        "{held}"
    );
    assert!(
        held["last_error"]
            .as_str()
            .unwrap()
            .contains("AccessDenied"),
        "{held}"
    );

    agent
        .post("right-id", "/charges")
        .await
        .is_of_the_service(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_a_wrong_secret_is_refused_by_sts_and_by_the_service_and_not_shown() {
    let account = Account::open().await;
    let role = account.role("caller", json!({}), API_ACTION).await;
    let secret = "wrong-and-still-nobodys-business";
    let routes = [
        account.api_route("as-role", &format!("role: \"{role}\"")),
        account.api_route("as-base", ""),
    ];
    let agent = account.agent_with_secret(secret, &routes);
    let as_role = agent.post("as-role", "/charges").await;
    let said = [role.as_str(), "SignatureDoesNotMatch", "base credentials"];
    as_role.is_refused(503, "no-credentials", &said);
    let as_base = agent.post("as-base", "/charges").await;
    as_base.is_of_the_service(403);
    agent.logs("credentials not renewed");
    for shown in [as_role.text, agent.status().to_string(), agent.log()] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

//! Named roles against an STS that evaluates trust policies: their conditions, chains, and roles by token.

use serde_json::json;
use warifu_tests::aws::{API_ACTION, Account};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_is_assumed_with_the_parameters_that_its_trust_policy_asks_for_and_with_no_others() {
    let account = Account::open().await;
    let conditions = json!({
        "StringEquals": {
            "sts:ExternalId": "tenant-1",
            "sts:RoleSessionName": "orders.example.org",
            "aws:RequestTag/team": "shop",
            "aws:RequestTag/workload": "spiffe://example.org/orders",
        },
        "ForAllValues:StringEquals": {"aws:TagKeys": ["team", "workload"]},
    });
    let actions = ["sts:AssumeRole", "sts:TagSession"];
    let arn = account
        .role_for(
            &account.user.arn,
            "strict",
            json!(actions),
            conditions,
            API_ACTION,
        )
        .await;
    let right = [
        ("session_name", "'{name}.{trust_domain}'"),
        ("external_id", "tenant-1"),
        ("tags", "{team: shop, workload: '{spiffe_id}'}"),
        ("transitive_tags", "[workload]"),
        ("source_identity", "'{path}'"),
        ("duration", "15m"),
    ];
    let role = |name: &str, changed: (&str, &str)| {
        let fields = right.map(|(field, value)| match field == changed.0 {
            true => format!("{field}: {}", changed.1),
            false => format!("{field}: {value}"),
        });
        format!("{name}: {{arn: \"{arn}\", {}}}", fields.join(", "))
    };
    let wrong = [
        ("external_id", "tenant-2"),
        ("session_name", "other"),
        ("tags", "{team: shop, workload: other}"),
        ("tags", "{team: shop, workload: '{spiffe_id}', more: x}"),
    ];
    let mut roles = vec![role("right", ("", ""))];
    let mut routes = vec![account.api_route("right", "role: right")];
    for (n, wrong) in wrong.into_iter().enumerate() {
        roles.push(role(&format!("wrong-{n}"), wrong));
        routes.push(account.api_route(&format!("wrong-{n}"), &format!("role: wrong-{n}")));
    }
    let agent = account.agent_of_roles(&roles, &routes);
    agent.post("right", "/charges").await.is_of_the_service(200);
    for n in 0..wrong.len() {
        let answer = agent.post(&format!("wrong-{n}"), "/charges").await;
        let said = [
            arn.as_str(),
            "AccessDenied",
            "sts:TagSession",
            "sts:SetSourceIdentity",
        ];
        answer.is_refused(503, "no-credentials", &said);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_policy_limits_what_the_role_may() {
    let account = Account::open().await;
    let arn = account.role("caller", json!({}), API_ACTION).await;
    let policy = |action: &str| {
        format!(
            "policy: {{Version: \"2012-10-17\", Statement: [{{Effect: Allow, Action: \"{action}\", Resource: \"*\"}}]}}"
        )
    };
    let roles = [
        format!("wide: {{arn: \"{arn}\", {}}}", policy(API_ACTION)),
        format!("narrow: {{arn: \"{arn}\", {}}}", policy("s3:GetObject")),
    ];
    let routes = ["wide", "narrow"].map(|name| account.api_route(name, &format!("role: {name}")));
    let agent = account.agent_of_roles(&roles, &routes);
    agent.post("wide", "/charges").await.is_of_the_service(200);
    agent
        .post("narrow", "/charges")
        .await
        .is_of_the_service(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_are_chained() {
    let account = Account::open().await;
    let first = account.role("first", json!({}), "sts:AssumeRole").await;
    let second = account
        .role_trusting(&first, "second", json!({}), API_ACTION)
        .await;
    let roles = [
        format!("first: {{arn: \"{first}\"}}"),
        format!("second: {{arn: \"{second}\", from: first, session_name: chained}}"),
    ];
    let routes = [
        account.api_route("api", "role: second"),
        account.sts_route("sts", "role: second"),
        account.api_route("straight", &format!("role: \"{second}\"")),
    ];
    let agent = account.agent_of_roles(&roles, &routes);
    agent.post("api", "/charges").await.is_of_the_service(200);
    let caller = agent.caller("sts").await;
    assert_eq!(
        caller,
        "arn:aws:sts::000000000000:assumed-role/second/chained"
    );
    // It trusts the first role alone.
    let straight = agent.post("straight", "/charges").await;
    straight.is_refused(503, "no-credentials", &[&second, "AccessDenied"]);
    // Both sessions show.
    agent.credentials(&first, Some("orders"));
    agent.credentials(&second, Some("chained"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_is_assumed_with_a_jwt_svid_and_no_base_credentials() {
    let account = Account::open_with_issuer("https://tokens.example.org").await;
    let provider = "arn:aws:iam::000000000000:oidc-provider/tokens.example.org";
    let role = async |name: &str, sub: &str| {
        // A JWT-SVID's `aud` is a list.
        let condition = json!({
            "ForAnyValue:StringEquals": {"tokens.example.org:aud": "sts.amazonaws.com"},
            "StringEquals": {"tokens.example.org:sub": sub},
        });
        account
            .role_by_token(provider, name, condition, API_ACTION)
            .await
    };
    let ours = role("ours", "spiffe://example.org/orders").await;
    let theirs = role("theirs", "spiffe://example.org/payments").await;
    let from = "from: {web_identity: {audience: sts.amazonaws.com}}, duration: 2h";
    let roles = [
        format!("ours: {{arn: \"{ours}\", {from}}}"),
        format!("theirs: {{arn: \"{theirs}\", {from}}}"),
    ];
    let routes = [
        account.api_route("ours", "role: ours"),
        account.sts_route("sts", "role: ours"),
        account.api_route("theirs", "role: theirs"),
    ];
    let agent = account.agent_of_roles(&roles, &routes);
    agent.post("ours", "/charges").await.is_of_the_service(200);
    let caller = agent.caller("sts").await;
    assert_eq!(caller, "arn:aws:sts::000000000000:assumed-role/ours/orders");
    let answer = agent.post("theirs", "/charges").await;
    let said = [theirs.as_str(), "AssumeRoleWithWebIdentity", "Federated"];
    answer.is_refused(503, "no-credentials", &said);
    // The base credentials were not looked for.
    assert!(agent.credentials("the base credentials", None)["obtained"].is_null());
}

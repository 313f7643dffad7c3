//! Amazon Cognito as the provider of tokens, as an emulator has it: client credentials by HTTP Basic and in the form.

use serde_json::{Value, json};
use warifu_tests::{
    aws::{Keys, Workload},
    mesh::App,
    peers::Ministack,
};

const KEYS: Keys<'_> = Keys {
    id: "test",
    secret: "test",
};

fn text(value: &Value, at: &str) -> String {
    let text = value.pointer(at).and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("{at} in {value}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cognito_gives_tokens_for_client_credentials_by_basic_and_in_the_form() {
    let ministack = Ministack::start().await.unwrap();
    let call = async |operation: &str, parameters: Value| {
        let called = ministack.call("cognito-idp", operation, parameters).await;
        called.unwrap_or_else(|why| panic!("{operation}: {why}"))
    };
    let pool = call("create_user_pool", json!({"PoolName": "partner"})).await;
    let pool = text(&pool, "/UserPool/Id");
    let scopes = json!([{"ScopeName": "read", "ScopeDescription": "read"}]);
    let server =
        json!({"UserPoolId": pool, "Identifier": "charges", "Name": "charges", "Scopes": scopes});
    call("create_resource_server", server).await;
    let client = json!({
        "UserPoolId": pool,
        "ClientName": "orders",
        "GenerateSecret": true,
        "AllowedOAuthFlows": ["client_credentials"],
        "AllowedOAuthFlowsUserPoolClient": true,
        "AllowedOAuthScopes": ["charges/read"],
    });
    let client = call("create_user_pool_client", client).await;
    let id = text(&client, "/UserPoolClient/ClientId");
    let secret = text(&client, "/UserPoolClient/ClientSecret");

    let workload = Workload::new();
    workload.write("secret", &secret);
    workload.write("wrong", "hunter2");
    let file = workload.path("secret").display().to_string();
    let wrong = workload.path("wrong").display().to_string();
    let app = App::plain().await;
    let endpoint = ministack.endpoint();
    let route = |host: &str, way: &str, file: &str| {
        format!(
            "- {{host: {host}, upstream: \"{}\", oauth: {{token_url: \"{endpoint}/oauth2/token\", \
             scopes: [charges/read], client: {{id: \"{id}\", {way}: \"file:{file}\"}}}}}}\n",
            app.url()
        )
    };
    let routes = route("basic", "client_secret_basic", &file)
        + &route("post", "client_secret_post", &file)
        + &route("wrong", "client_secret_basic", &wrong);
    let agent = workload.agent(KEYS, endpoint, routes.trim_end());
    for host in ["basic", "post"] {
        let answer = agent.post(host, "/charges").await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text);
        let seen = app.last();
        let token = seen.headers["authorization"].to_str().unwrap();
        assert!(token.starts_with("Bearer eyJ"), "{host}: {token}");
    }
    let answer = agent.post("wrong", "/charges").await;
    assert_eq!(answer.status, 502, "{}", answer.text);
    assert!(answer.text.contains("invalid_client"), "{}", answer.text);
}

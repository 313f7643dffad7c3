//! OAuth client libraries that know nothing of agents, unmodified, and what they were given, judged by others.

use std::fs;

use serde_json::{Value, json};
use warifu_tests::{
    mesh::{Agent, Direct, MTLS_AND_JWT, Mesh, ORDERS, until},
    oauth::{Endpoint, FORM, SECRET, basic, secret_file},
    peers,
    ports::free_port,
};

const RULES: &str = r#"
- {attestor: bootstrap, match: {service: "*"}, id: "/{service}", audiences: ["*"], scopes: [charges.read, charges.write]}
"#;

/// A mesh whose authority publishes the keys of access tokens; and their issuer.
async fn mesh() -> (Mesh, String) {
    let web = free_port();
    let issuer = format!("http://{web}/access");
    let mesh = Mesh::with(|authority| {
        authority.rules(RULES).more(&format!(
            "web: {{listen: \"{web}\"}}
tokens: {{access_token: {{issuer: \"{issuer}\"}}}}"
        ))
    });
    (mesh.await, issuer)
}

async fn agent(mesh: &Mesh, name: &str, listen: &str, client: bool) -> Agent {
    let secret = secret_file(mesh.dir(), SECRET);
    let client = match client {
        true => format!("client: {{id: app, secret: \"file:{secret}\"}}, "),
        false => String::new(),
    };
    let oauth = format!(
        "local: {{oauth: {{listen: \"{listen}\", {client}audiences: [payments, ledger], \
         scopes: [charges.read, charges.write]}}}}"
    );
    let agent = mesh.agent(name).more(&oauth).start().await;
    until("the agent knows the keys of access tokens", async || {
        let keys = Endpoint::of(&agent).get("/oauth2/jwks").await;
        (keys.status == 200).then_some(())
    })
    .await;
    agent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_oauthlib_gets_tokens_that_pyjwt_verifies_and_understands_every_refusal() {
    let (mut mesh, issuer) = mesh().await;
    let agent = agent(&mesh, "orders", "127.0.0.1:0", true).await;
    let endpoint = Endpoint::of(&agent);
    let url = endpoint.url("/oauth2/token");
    let file = mesh.dir().join("requests.json");
    let run = async |requests: Value| -> Vec<Value> {
        fs::write(&file, requests.to_string()).unwrap();
        let ended = peers::run_python("oauth.py", &[&file]).await.unwrap();
        serde_json::from_value(ended.json()).unwrap()
    };
    let request = |how: &str, secret: &str, audience: Value, scope: Value| {
        json!({"url": url, "client_id": "app", "client_secret": secret, "how": how,
               "audience": audience, "scope": scope})
    };
    let said = run(json!([
        request("basic", SECRET, Value::Null, Value::Null),
        {"jwks_url": format!("{issuer}/keys"), "issuer": issuer, "audience": "payments"},
        request("post", SECRET, json!("ledger"), json!(["charges.read"])),
        {"jwks_url": endpoint.url("/oauth2/jwks"), "issuer": issuer, "audience": "ledger"},
        // Neither the endpoint nor another audience is whose token this is.
        {"jwks_url": endpoint.url("/oauth2/jwks"), "issuer": endpoint.url(""), "audience": "ledger"},
        {"jwks_url": endpoint.url("/oauth2/jwks"), "issuer": issuer, "audience": "payments"},
        request("basic", "wrong", Value::Null, Value::Null),
        request("post", "wrong", Value::Null, Value::Null),
        request("basic", SECRET, json!("billing"), Value::Null),
        request("basic", SECRET, Value::Null, json!(["refunds"])),
    ]))
    .await;
    assert_eq!(said[0]["token"]["token_type"], "Bearer");
    assert_eq!(
        said[0]["token"]["scope"],
        json!(["charges.read", "charges.write"])
    );
    assert_eq!(said[0]["cache_control"], "no-store");
    assert!(
        said[0]["token"]["expires_in"].as_u64().unwrap() > 200,
        "{}",
        said[0]
    );
    let claims = &said[1]["claims"];
    assert_eq!(said[1]["header"]["typ"], "at+jwt");
    assert_eq!(claims["sub"], "spiffe://example.org/orders");
    assert_eq!(claims["client_id"], claims["sub"]);
    assert_eq!(claims["scope"], "charges.read charges.write");
    assert_eq!(said[2]["token"]["scope"], json!(["charges.read"]));
    assert_eq!(said[3]["claims"]["aud"], "ledger");
    assert_eq!(said[3]["claims"]["scope"], "charges.read");
    assert_eq!(said[4]["refused"], "InvalidIssuerError");
    assert_eq!(said[5]["refused"], "InvalidAudienceError");
    for (said, status, error) in [
        (&said[6], 401, "invalid_client"),
        (&said[7], 401, "invalid_client"),
        (&said[8], 400, "invalid_target"),
        (&said[9], 400, "invalid_scope"),
    ] {
        assert_eq!(
            (&said["status"], &said["error"]),
            (&json!(status), &json!(error)),
            "{said}"
        );
        assert!(
            said["description"]
                .as_str()
                .unwrap()
                .contains("local.oauth"),
            "{said}"
        );
    }

    // While the authority is away: what is held is given, what is not is to be asked for again.
    mesh.authority.stop();
    let said = run(json!([
        request("basic", SECRET, Value::Null, Value::Null),
        request("basic", SECRET, json!("ledger"), json!(["charges.write"])),
    ]))
    .await;
    assert!(said[0]["token"]["access_token"].is_string(), "{}", said[0]);
    assert_eq!(said[1]["error"], "temporarily_unavailable");
    assert_eq!(
        (&said[1]["status"], &said[1]["retry_after"]),
        (&json!(503), &json!("2"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s09_a_token_of_the_endpoint_is_no_jwt_svid() {
    let (mesh, _) = mesh().await;
    let app = mesh.app("payments").await;
    let payments = mesh.agent("payments").app(&app);
    let payments = payments.accept(MTLS_AND_JWT).allow(ORDERS);
    let payments = payments.start().await;
    let orders = mesh.workload("orders").await;
    let call = async |token: &str| {
        let identity = orders.identity();
        let mut call = Direct::connect(&payments, Some(&identity)).await.unwrap();
        let request =
            format!("GET /charges HTTP/1.1\nhost: payments\nauthorization: Bearer {token}\n\n");
        call.exchange(&request).await.unwrap().status
    };
    assert_eq!(call(&orders.token("payments").await).await, 200);
    let agent = agent(&mesh, "billing", "127.0.0.1:0", true).await;
    let basic = basic("app", SECRET);
    let answer = Endpoint::of(&agent);
    let answer = answer.ask(&[("authorization", &basic)], FORM).await;
    assert_eq!(call(&answer.token()).await, 401);
}

#[cfg(feature = "peers-go")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gos_clientcredentials_gets_tokens_over_loopback_and_over_a_unix_socket() {
    let (mut mesh, _) = mesh().await;
    fs::write(mesh.dir().join("client-id"), "app").unwrap();
    let tcp = agent(&mesh, "orders", "127.0.0.1:0", true).await;
    let socket = mesh.dir().join("oauth.sock");
    let socket = socket.to_str().unwrap().to_owned();
    let unix = agent(&mesh, "billing", &format!("unix:{socket}"), false).await;
    let url = Endpoint::of(&tcp).url("/oauth2/token");
    let dir = mesh.dir().to_owned();
    let ask = async |args: &[&str]| peers::go("oauth", &dir, args).await.unwrap().json();
    for style in ["basic", "post"] {
        let args = [
            "-url",
            &url,
            "-style",
            style,
            "-audience",
            "ledger",
            "-scopes",
            "charges.write",
        ];
        let said = ask(&args).await;
        assert_eq!(
            (&said["type"], &said["valid"]),
            (&json!("Bearer"), &json!(true)),
            "{said}"
        );
        assert_eq!(said["scope"], "charges.write");
    }
    let over_unix = [
        "-url",
        "http://localhost/oauth2/token",
        "-style",
        "none",
        "-address-file",
        &socket,
    ];
    assert_eq!(ask(&over_unix).await["valid"], true);
    let refused = ask(&["-url", &url, "-style", "none"]).await;
    assert_eq!(
        (&refused["status"], &refused["error"]),
        (&json!(401), &json!("invalid_client"))
    );
    let refused = ask(&["-url", &url, "-audience", "billing"]).await;
    assert_eq!(
        (&refused["status"], &refused["error"]),
        (&json!(400), &json!("invalid_target"))
    );
    mesh.authority.stop();
    let away = ask(&["-url", &url, "-audience", "ledger"]).await;
    assert_eq!(
        (&away["status"], &away["retry_after"]),
        (&json!(503), &json!("2")),
        "{away}"
    );
    assert_eq!(
        ask(&over_unix).await["valid"],
        true,
        "what is held is given"
    );
    drop(unix);
}

#[cfg(feature = "peers-system")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_a_token_over_a_unix_socket() {
    let (mesh, _) = mesh().await;
    let socket = mesh.dir().join("oauth.sock");
    let socket = socket.to_str().unwrap().to_owned();
    let _agent = agent(&mesh, "orders", &format!("unix:{socket}"), false).await;
    let curl = peers::installed("curl").unwrap();
    let curl = async |path: &str, more: &[&str]| {
        let url = format!("http://localhost{path}");
        let mut args = vec!["-sS", "--fail-with-body", "--unix-socket", &socket, &url];
        args.extend(more);
        peers::run("curl", &curl, &args, "").await.unwrap()
    };
    let form = [
        "-d",
        "grant_type=client_credentials",
        "--data-urlencode",
        "resource=ledger",
    ];
    let answer = curl("/oauth2/token", &form).await.json();
    assert_eq!(answer["token_type"], "Bearer");
    let found = curl("/.well-known/oauth-authorization-server", &[])
        .await
        .json();
    assert_eq!(found["token_endpoint"], "http://localhost/oauth2/token");
    let refused = curl("/oauth2/token", &["-d", "grant_type=password"]).await;
    assert!(!refused.success);
    assert!(
        refused.stdout.contains("unsupported_grant_type"),
        "{refused:?}"
    );
}

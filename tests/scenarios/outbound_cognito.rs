//! Routes with `cognito`: SECRET_HASH is added to sign-ins, as a user pool that checks it has it; everything else is
//! refused, and no app holds the client's secret.

use std::fs;

use serde_json::{Value, json};
use warifu::Client;
use warifu_tests::{
    mesh::{Agent, Mesh, text},
    upstreams::UserPool,
};

const CLIENT: &str = "4b0client";
const SECRET: &str = "hunter2-the-clients-secret";

async fn start(mesh: &Mesh, pool: &UserPool) -> Agent {
    let file = mesh.dir().join("secret");
    fs::write(&file, SECRET).unwrap();
    let route = format!(
        "{{host: cognito, upstream: \"{}\", cognito: {{client_id: {CLIENT}, client_secret: \"file:{}\"}}}}",
        pool.url(),
        file.display()
    );
    mesh.agent("web").route(&route).start().await
}

async fn call(client: &Client, action: &str, body: impl Into<Vec<u8>>) -> (u16, String, String) {
    let request = client
        .post("http://cognito/")
        .header(
            "x-amz-target",
            format!("AWSCognitoIdentityProviderService.{action}"),
        )
        .header("content-type", "application/x-amz-json-1.1")
        .header("authorization", "AWS4-HMAC-SHA256 of nobody")
        .body(body.into());
    let answer = request.send().await.unwrap();
    let reason = answer.headers().get("x-warifu-reason");
    let reason = reason.map_or(String::new(), |it| it.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    (status, reason, text(&answer.bytes().await.unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hash_is_right_for_each_of_the_seven_actions_and_replaces_the_apps_own() {
    let mesh = Mesh::start().await;
    let pool = UserPool::start(CLIENT, SECRET).await;
    let client = start(&mesh, &pool).await;
    let client = client.client();
    let actions = [
        (
            "InitiateAuth",
            json!({"AuthFlow": "USER_PASSWORD_AUTH", "ClientId": CLIENT,
            "AuthParameters": {"USERNAME": "é@example.org", "PASSWORD": "p"}}),
        ),
        (
            "InitiateAuth",
            json!({"AuthFlow": "REFRESH_TOKEN_AUTH", "ClientId": CLIENT,
            "AuthParameters": {"REFRESH_TOKEN": "t", "USERNAME": "0b1c-sub", "SECRET_HASH": "mine"}}),
        ),
        (
            "RespondToAuthChallenge",
            json!({"ChallengeName": "NEW_PASSWORD_REQUIRED", "ClientId": CLIENT,
            "ChallengeResponses": {"USERNAME": "u", "NEW_PASSWORD": "q"}, "Session": "s"}),
        ),
        (
            "SignUp",
            json!({"ClientId": CLIENT, "Username": "u", "Password": "p", "SecretHash": "mine",
            "UserAttributes": [{"Name": "email", "Value": "u@example.org"}]}),
        ),
        (
            "ConfirmSignUp",
            json!({"ClientId": CLIENT, "Username": "u", "ConfirmationCode": "1"}),
        ),
        (
            "ForgotPassword",
            json!({"ClientId": CLIENT, "Username": "u"}),
        ),
        (
            "ConfirmForgotPassword",
            json!({"ClientId": CLIENT, "Username": "u", "ConfirmationCode": "1", "Password": "q"}),
        ),
        (
            "ResendConfirmationCode",
            json!({"ClientId": CLIENT, "Username": "u"}),
        ),
    ];
    for (action, body) in &actions {
        let (status, reason, said) = call(&client, action, body.to_string()).await;
        assert_eq!(status, 200, "{action}: {reason} {said}");
    }
    let taken = pool.taken();
    assert_eq!((taken.len(), pool.refused()), (actions.len(), 0));
    for ((action, sent), (_, body)) in taken.iter().zip(&actions) {
        let without = |mut it: Value| {
            for at in ["/AuthParameters", "/ChallengeResponses", ""] {
                if let Some(object) = it.pointer_mut(at).and_then(Value::as_object_mut) {
                    object.remove("SECRET_HASH");
                    object.remove("SecretHash");
                }
            }
            it
        };
        assert_eq!(without(sent.clone()), without(body.clone()), "{action}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_other_actions_other_clients_and_bodies_that_name_nobody_are_refused() {
    let mesh = Mesh::start().await;
    let pool = UserPool::start(CLIENT, SECRET).await;
    let agent = start(&mesh, &pool).await;
    let client = agent.client();
    let user = json!({"ClientId": CLIENT, "Username": "u"}).to_string();
    for (action, body, status, reason) in [
        ("AdminGetUser", user.clone(), 403, "action-refused"),
        (
            "GetTokensFromRefreshToken",
            user.clone(),
            403,
            "action-refused",
        ),
        ("RevokeToken", user.clone(), 403, "action-refused"),
        ("", user.clone(), 403, "action-refused"),
        (
            "SignUp",
            json!({"ClientId": "another", "Username": "u"}).to_string(),
            403,
            "client-refused",
        ),
        (
            "SignUp",
            json!({"ClientId": CLIENT}).to_string(),
            400,
            "bad-body",
        ),
        (
            "SignUp",
            format!("{{\"ClientId\":\"{CLIENT}\",\"Username\":\"a\",\"Username\":\"b\"}}"),
            400,
            "bad-body",
        ),
        (
            "InitiateAuth",
            json!({"ClientId": CLIENT, "AuthParameters": {"REFRESH_TOKEN": "t"}}).to_string(),
            400,
            "bad-body",
        ),
        ("SignUp", String::new(), 400, "bad-body"),
    ] {
        let (got, why, said) = call(&client, action, body.clone()).await;
        assert_eq!(
            (got, why.as_str()),
            (status, reason),
            "{action} {body}: {said}"
        );
        assert!(!said.contains("hunter2"));
    }
    // A second x-amz-target, another method, path or query.
    let target = "AWSCognitoIdentityProviderService.SignUp";
    for (path, targets) in [("/?x", 1), ("/other", 1), ("/", 2), ("/", 0)] {
        let mut request = client.post(&format!("http://cognito{path}"));
        for _ in 0..targets {
            request = request.header("x-amz-target", target);
        }
        let answer = request
            .body(user.clone().into_bytes())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 403, "{path} {targets}");
    }
    assert_eq!((pool.taken().len(), pool.refused()), (0, 0));
    let status = agent.status().await.to_string();
    assert!(!status.contains("hunter2"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_a_body_beyond_the_limit_is_413() {
    let mesh = Mesh::start().await;
    let pool = UserPool::start(CLIENT, SECRET).await;
    let agent = start(&mesh, &pool).await;
    let body = json!({"ClientId": CLIENT, "Username": "u", "x": "y".repeat(64 * 1024)});
    let (status, reason, _) = call(&agent.client(), "SignUp", body.to_string()).await;
    assert_eq!((status, reason.as_str()), (413, "body-too-large"));
    assert!(pool.taken().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_secret_that_was_replaced_is_found_by_the_hash_that_is_refused() {
    let mesh = Mesh::start().await;
    let pool = UserPool::start(CLIENT, SECRET).await;
    let agent = start(&mesh, &pool).await;
    let client = agent.client();
    let body = json!({"ClientId": CLIENT, "Username": "u"}).to_string();
    assert_eq!(call(&client, "ForgotPassword", body.clone()).await.0, 200);
    fs::write(mesh.dir().join("secret"), "new").unwrap();
    pool.takes(&["new"]);
    assert_eq!(call(&client, "ForgotPassword", body.clone()).await.0, 200);
    assert_eq!(call(&client, "ForgotPassword", body).await.0, 200);
    // Or none, where the file was just read again.
    assert!(pool.taken().len() == 3 && pool.refused() <= 1);
}

//! Signed calls to an API that verifies signatures and policies (ministack, a verifier independent of
//! botocore and of the SDK): a user's keys assume a role, the role's session calls the API.

use std::time::Duration;

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use warifu_agent::{
    aws::{Roles, SignError, Signer},
    config::{
        agent::{Aws, RouteSigV4},
        value::{Span, Upstream},
    },
};
use warifu_tests::peers::{Ministack, UserKeys};

struct Account {
    ministack: Ministack,
    /// May assume any role that lets it.
    agent: UserKeys,
    /// The API's path; demands `execute-api:Invoke`.
    api: String,
}

impl Account {
    async fn new() -> Self {
        let ministack = Ministack::start().await.unwrap();
        let may = json!({"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"});
        let agent = ministack.create_user("agent", json!([may])).await.unwrap();
        let api = ministack.create_iam_api("charges").await.unwrap();
        Self {
            ministack,
            agent,
            api,
        }
    }

    /// A role that may call the API and whose trust policy is `trust`.
    async fn role(&self, name: &str, trust: serde_json::Value) -> String {
        let may = json!({"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*"});
        let role = self.ministack.create_role(name, trust, json!([may])).await;
        role.unwrap()
    }

    fn trusts_agent(&self) -> serde_json::Value {
        let principal = json!({"AWS": self.agent.arn});
        json!([{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}])
    }

    async fn signer(&self, secret: &str, route: RouteSigV4) -> Signer {
        let keys = Credentials::new(&self.agent.access_key_id, secret, None, None, "test");
        let settings = Aws {
            region: Some(Ministack::REGION.to_owned()),
            sts_endpoint: Some(Upstream {
                tls: false,
                host: self.ministack.address().ip().to_string(),
                port: self.ministack.address().port(),
                base_path: String::new(),
            }),
        };
        let roles = Roles::with_provider(&settings, SharedCredentialsProvider::new(keys)).await;
        Signer::new(&roles.unwrap(), &route, "scenario").unwrap()
    }

    /// Signs `body` and sends `sent` to the API.
    async fn call(
        &self,
        signer: &Signer,
        target: &str,
        body: &str,
        sent: &str,
    ) -> Result<(StatusCode, String), SignError> {
        let request = Request::post(format!("{}{target}", self.api))
            .header("host", self.ministack.address().to_string())
            .header("content-type", "application/json")
            .header("x-tenant", "a  b")
            .header("authorization", "Bearer of the app")
            .header("x-amz-security-token", "of the app");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        signer.sign(&mut parts, body.as_bytes()).await?;

        let stream = tokio::net::TcpStream::connect(self.ministack.address())
            .await
            .unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::from_parts(parts, Full::<bytes::Bytes>::from(sent.to_owned()));
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Ok((head.status, String::from_utf8_lossy(&body).into_owned()))
    }
}

fn route(role: Option<String>) -> RouteSigV4 {
    RouteSigV4 {
        service: "execute-api".to_owned(),
        region: None,
        role,
        session_name: None,
        external_id: None,
        duration: Span(Duration::from_secs(900)),
        signed_headers: vec!["x-tenant".parse().unwrap()],
        max_body: 1 << 20,
    }
}

#[tokio::test]
async fn a_signed_call_passes_whatever_its_path_and_query_look_like() {
    let account = Account::new().await;
    let role = account.role("caller", account.trusts_agent()).await;
    let secret = account.agent.secret_access_key.clone();
    let signer = account.signer(&secret, route(Some(role))).await;
    for target in [
        "/charges",
        "/charges?b=2&a=1",
        "/a%20b/%40c:d/e%2Ff",
        "/a//b/./c/../d/",
        "/q?x=1+2&y=%7e%2f&z&empty=&&x=%C3%A9&u=a/b;c",
    ] {
        let (status, body) = account.call(&signer, target, "{}", "{}").await.unwrap();
        assert_eq!(status, StatusCode::OK, "{target}: {body}");
        assert!(body.contains("charged"), "{target}: {body}");
    }
}

#[tokio::test]
async fn a_tampered_body_and_a_wrong_secret_fail() {
    let account = Account::new().await;
    let role = account.role("caller", account.trusts_agent()).await;
    let secret = account.agent.secret_access_key.clone();

    let signer = account.signer(&secret, route(Some(role.clone()))).await;
    let body = r#"{"amount": 1}"#;
    let tampered = r#"{"amount": 9}"#;
    let (status, answer) = account
        .call(&signer, "/charges", body, tampered)
        .await
        .unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    assert!(answer.contains("signature"), "{answer}");

    // The API refuses a wrong secret,
    let wrong = account.signer("wrong", route(None)).await;
    let (status, answer) = account.call(&wrong, "/charges", body, body).await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    // and so does STS, which is said.
    let wrong = account.signer("wrong", route(Some(role.clone()))).await;
    let error = account
        .call(&wrong, "/charges", body, body)
        .await
        .unwrap_err()
        .to_string();
    for part in [role.as_str(), "SignatureDoesNotMatch", "base credentials"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[tokio::test]
async fn a_role_that_does_not_trust_us_fails_and_says_whom_it_should() {
    let account = Account::new().await;
    let other = json!([{
        "Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"AWS": "arn:aws:iam::000000000000:user/somebody-else"},
    }]);
    let role = account.role("closed", other).await;
    let secret = account.agent.secret_access_key.clone();
    let signer = account.signer(&secret, route(Some(role.clone()))).await;
    let error = account.call(&signer, "/charges", "", "").await.unwrap_err();
    assert!(matches!(error, SignError::NoCredentials { .. }));
    let error = error.to_string();
    let advice = format!("The trust policy of {role} must allow sts:AssumeRole for ");
    for part in ["AccessDenied", &advice] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[tokio::test]
async fn a_role_with_an_external_id_wants_the_routes() {
    let account = Account::new().await;
    let trust = json!([{
        "Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"AWS": account.agent.arn},
        "Condition": {"StringEquals": {"sts:ExternalId": "tenant-1"}},
    }]);
    let role = account.role("tenant", trust).await;
    let secret = account.agent.secret_access_key.clone();

    let without = account.signer(&secret, route(Some(role.clone()))).await;
    let error = account
        .call(&without, "/charges", "", "")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("external_id"), "{error}");

    let with = RouteSigV4 {
        external_id: Some("tenant-1".to_owned()),
        ..route(Some(role))
    };
    let with = account.signer(&secret, with).await;
    let (status, answer) = account.call(&with, "/charges", "", "").await.unwrap();
    assert_eq!(status, StatusCode::OK, "{answer}");
}

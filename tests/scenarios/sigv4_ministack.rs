//! What we sign, a verifier independent of botocore and of the SDK accepts (ministack), in forms of path
//! and query, too, that an agent refuses before it signs. Through a whole agent: `outbound_sigv4_*`.

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use warifu::SpiffeId;
use warifu_agent::{
    aws::{Payload, Roles, Signer},
    config::{aws::Aws, outbound::RouteSigV4, value::Upstream},
};
use warifu_tests::peers::Ministack;

const BODY: &str = "{}";

#[tokio::test]
async fn a_signed_call_passes_whatever_its_path_and_query_look_like() {
    let ministack = Ministack::start().await.unwrap();
    let api = ministack.create_iam_api("charges").await.unwrap();
    let signer = signer(&ministack).await;
    for target in [
        "/charges",
        "/charges?b=2&a=1",
        "/a%20b/%40c:d/e%2Ff",
        "/a//b/./c/../d/",
        "/q?x=1+2&y=%7e%2f&z&empty=&&x=%C3%A9&u=a/b;c",
    ] {
        let request = Request::post(format!("{api}{target}"))
            .header("host", ministack.address().to_string())
            .header("content-type", "application/json")
            .header("x-tenant", "a  b");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        signer
            .sign(&mut parts, &Payload::hash(BODY.as_bytes()))
            .await
            .unwrap();
        let (status, body) = send(&ministack, Request::from_parts(parts, BODY.into())).await;
        assert_eq!(status, StatusCode::OK, "{target}: {body}");
        assert!(body.contains("charged"), "{target}: {body}");
    }
}

/// Signs as a role that may call the API, assumed by a user.
async fn signer(ministack: &Ministack) -> Signer {
    let may = |action| json!([{"Effect": "Allow", "Action": action, "Resource": "*"}]);
    let user = ministack.create_user("agent", may("sts:AssumeRole")).await;
    let user = user.unwrap();
    let trust = json!([{
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"AWS": user.arn},
    }]);
    let role = ministack.create_role("caller", trust, may("execute-api:Invoke"));
    let settings = Aws {
        region: Some(Ministack::REGION.to_owned()),
        secretsmanager: Default::default(),
        sts_endpoint: Some(Upstream {
            tls: false,
            host: ministack.address().ip().to_string(),
            port: ministack.address().port(),
            base_path: String::new(),
        }),
        ..Aws::default()
    };
    let route = RouteSigV4 {
        role: Some(role.await.unwrap().parse().unwrap()),
        signed_headers: vec!["x-tenant".parse().unwrap()],
        ..RouteSigV4::new("execute-api")
    };
    let keys = Credentials::new(
        &user.access_key_id,
        &user.secret_access_key,
        None,
        None,
        "test",
    );
    let roles = Roles::with_provider(&settings, SharedCredentialsProvider::new(keys)).await;
    let workload = SpiffeId::new("spiffe://example.org/scenario").unwrap();
    Signer::new(&roles.unwrap(), &route, Some(&workload)).unwrap()
}

async fn send(ministack: &Ministack, request: Request<Bytes>) -> (StatusCode, String) {
    let stream = tokio::net::TcpStream::connect(ministack.address()).await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream.unwrap()))
        .await
        .unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request.map(Full::new)).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, String::from_utf8_lossy(&body).into_owned())
}

//! The base credentials come from wherever AWS puts them: environment, profile, web identity token
//! (IRSA), container service (ECS, EKS Pod Identity), instance metadata; read by the SDK's default
//! chain over our HTTP client.
//!
//! The chain reads the process's environment, so each source is tried in a process of its own: this
//! test binary, run again.

use std::{net::SocketAddr, path::Path, process::Stdio};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, process::Command};
use warifu_agent::{
    aws::{Payload, Roles, Signer},
    config::{aws::Aws, outbound::RouteSigV4},
};

/// Says that this process is the one that looks for credentials.
const CHILD: &str = "WARIFU_TEST_LOOK_FOR_CREDENTIALS";

#[tokio::test]
async fn are_found_in_every_place_aws_puts_them() {
    if std::env::var_os(CHILD).is_some() {
        println!("signed as: {}", signed_as().await);
        return;
    }
    let services = services().await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let url = format!("http://{services}");
    let profile = "[default]\naws_access_key_id=AKIAPROFILE\naws_secret_access_key=s\n";
    let environment = [
        ("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "s".to_owned()),
    ];
    let profile = [("AWS_SHARED_CREDENTIALS_FILE", file("credentials", profile))];
    let web_identity = [
        (
            "AWS_ROLE_ARN",
            "arn:aws:iam::123456789012:role/agent".to_owned(),
        ),
        (
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            file("token", "web.identity.token"),
        ),
        ("AWS_ENDPOINT_URL_STS", url.clone()),
    ];
    let container = [
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("{url}/container"),
        ),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            file("container", "container-token"),
        ),
    ];
    let instance = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)];
    let nothing = [("AWS_EC2_METADATA_DISABLED", "true".to_owned())];

    for (environment, expected) in [
        (&environment[..], "AKIAENVIRONMENT"),
        (&profile[..], "AKIAPROFILE"),
        (&web_identity[..], "ASIAWEBIDENTITY"),
        (&container[..], "ASIACONTAINER"),
        (&instance[..], "ASIAINSTANCE"),
        (
            &nothing[..],
            "give this agent a role (EKS: Pod Identity or IRSA; ECS: a task role)",
        ),
    ] {
        let said = look(dir.path(), environment).await;
        assert!(said.contains(expected), "{expected} is not in: {said}");
    }
}

/// Runs this test again, as the process that looks.
async fn look(home: &Path, environment: &[(&str, String)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("base_credentials::are_found_in_every_place_aws_puts_them")
        .env_clear()
        .env(CHILD, "1")
        .env("HOME", home)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The access key id a request is signed with, or why it isn't.
async fn signed_as() -> String {
    let settings = Aws {
        region: Some("eu-west-1".to_owned()),
        ..Aws::default()
    };
    let roles = Roles::from_environment(&settings).await.unwrap();
    let route = RouteSigV4::new("execute-api");
    let signer = Signer::new(&roles, &route, None).unwrap();
    let request = Request::get("/").header("host", "example.com");
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    match signer.sign(&mut parts, &Payload::hash(b"")).await {
        Ok(()) => format!("{:?}", parts.headers["authorization"].to_str().unwrap()),
        Err(error) => error.to_string(),
    }
}

/// The container and instance metadata services, and an STS that takes web identity tokens.
async fn services() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let served =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(served);
        }
    });
    address
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let ok = |text: String| Response::new(Full::from(text));
    let json = |id: &str| {
        format!(
            r#"{{"Code":"Success","AccessKeyId":"{id}","SecretAccessKey":"s","Token":"t",
                "Expiration":"2099-01-01T00:00:00Z"}}"#
        )
    };
    let imds_token = header("x-aws-ec2-metadata-token") == Some("imds-token");
    let roles = "/latest/meta-data/iam/security-credentials/";
    Ok(match (&head.method, head.uri.path()) {
        (&Method::GET, "/container") if header("authorization") == Some("container-token") => {
            ok(json("ASIACONTAINER"))
        }
        (&Method::PUT, "/latest/api/token") => {
            let mut token = ok("imds-token".to_owned());
            let ttl = http::HeaderValue::from_static("21600");
            token
                .headers_mut()
                .insert("x-aws-ec2-metadata-token-ttl-seconds", ttl);
            token
        }
        (&Method::GET, path) if imds_token && path == roles => ok("agent".to_owned()),
        (&Method::GET, path) if imds_token && path == format!("{roles}agent") => {
            ok(json("ASIAINSTANCE"))
        }
        (&Method::POST, "/") if body.windows(18).any(|part| part == b"web.identity.token") => ok(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
             <AccessKeyId>ASIAWEBIDENTITY</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
             <SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
             </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
                .to_owned(),
        ),
        _ => {
            let mut missing = ok(String::new());
            *missing.status_mut() = http::StatusCode::NOT_FOUND;
            missing
        }
    })
}

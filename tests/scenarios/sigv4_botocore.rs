//! Our signature of any request is botocore's of the request we send: the documented normalisation is
//! applied first (`aws::sigv4`), and what comes out leaves two signers nothing to differ on.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use http::{HeaderName, Request, header::AUTHORIZATION, request::Parts};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use warifu_agent::{
    aws::{Roles, Signer},
    config::{agent::Aws, outbound::RouteSigV4, value::Span},
};
use warifu_tests::peers::{Boto, SignRequest};

const CASES: u32 = 400;
const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const EXTRAS: [&str; 2] = ["x-tenant", "x-request-id"];

#[derive(Debug, Clone)]
struct Case {
    service: &'static str,
    region: &'static str,
    token: Option<&'static str>,
    method: &'static str,
    host: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn case() -> impl Strategy<Value = Case> {
    let service = prop::sample::select(vec!["execute-api", "lambda", "sts", "s3"]);
    let region = prop::sample::select(vec!["us-east-1", "ap-northeast-1", "cn-north-1"]);
    let token = prop::sample::select(vec![None, Some("FwoGZXIvYXdzE//+=="), Some("t")]);
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "PATCH"]);
    let host = prop::sample::select(vec![
        "abc.execute-api.us-east-1.amazonaws.com",
        "127.0.0.1:4566",
        "example.com:443",
    ]);
    // Everything a URI may have, valid escapes of ASCII and of é, dot segments, empty segments and pairs.
    let path = "(/([a-zA-Z0-9._~:@!$&'()*+,;=-]|%[2-7][0-9A-Fa-f]|%C3%A9|\\.\\.?){0,6}){0,5}";
    let query = "(\\?([a-zA-Z0-9._~:@!$'()*+,;/?-]|%[2-7][0-9A-Fa-f]|%c3%a9|=|&){0,30})?";
    let target = (path, query).prop_map(|(path, query)| format!("/{path}{query}"));
    let name = prop::sample::select(vec![
        "content-type",
        "x-tenant",
        "x-request-id",
        "user-agent",
        "x-amz-date",
        "x-amz-meta-a",
        "accept",
        "authorization",
    ]);
    let headers = prop::collection::vec((name, "[ -~\t]{0,20}"), 0..6);
    let body = prop::collection::vec(any::<u8>(), 0..40);
    (service, region, token, method, host, target, headers, body).prop_map(
        |(service, region, token, method, host, target, headers, body)| Case {
            service,
            region,
            token,
            method,
            host,
            target,
            headers,
            body,
        },
    )
}

#[test]
fn our_signature_is_botocores_for_any_request() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let boto = runtime.block_on(Boto::start()).unwrap();
    let compared = AtomicU32::new(0);
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&case(), |case| {
        let Some(ours) = runtime.block_on(sign(&case)) else {
            return Ok(());
        };
        let theirs = runtime.block_on(theirs(&boto, &case, &ours));
        let theirs = theirs.map_err(TestCaseError::fail)?;
        prop_assert_eq!(ours.headers[AUTHORIZATION].to_str().unwrap(), theirs);
        compared.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    result.unwrap();
    // Refused are escaped dot segments and, for S3, escaped slashes: not many.
    let compared = compared.into_inner();
    assert!(compared > CASES / 2, "only {compared} of {CASES} compared");
}

/// What we send; `None` where we refuse to sign.
async fn sign(case: &Case) -> Option<Parts> {
    let keys = Credentials::new(ID, SECRET, case.token.map(str::to_owned), None, "test");
    let settings = Aws {
        region: Some(case.region.to_owned()),
        ..Aws::default()
    };
    let roles = Roles::with_provider(&settings, SharedCredentialsProvider::new(keys)).await;
    let route = RouteSigV4 {
        service: case.service.to_owned(),
        region: None,
        role: None,
        session_name: None,
        external_id: None,
        duration: Span(Duration::from_secs(900)),
        signed_headers: EXTRAS.map(HeaderName::from_static).to_vec(),
        max_body: 1 << 20,
    };
    let signer = Signer::new(&roles.unwrap(), &route, "test").unwrap();
    let mut request = Request::builder()
        .method(case.method)
        .uri(&case.target)
        .header("host", case.host);
    for (name, value) in &case.headers {
        request = request.header(*name, value);
    }
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    signer.sign(&mut parts, &case.body).await.ok()?;
    Some(parts)
}

/// botocore's `authorization` for what we send: same target, same headers as far as we sign them.
async fn theirs(boto: &Boto, case: &Case, sent: &Parts) -> Result<String, String> {
    let text = |name: &str| sent.headers.get(name).and_then(|value| value.to_str().ok());
    let ours = text("authorization").ok_or("we did not sign")?;
    let signed: BTreeSet<&str> = ours
        .split("SignedHeaders=")
        .nth(1)
        .and_then(|rest| rest.split(',').next())
        .ok_or("no SignedHeaders")?
        .split(';')
        .collect();
    let headers: Vec<(String, String)> = signed
        .iter()
        .filter(|name| !name.starts_with("x-amz-"))
        .map(|name| {
            (
                String::from(*name),
                text(name).unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let date = text("x-amz-date").ok_or("no date")?;
    let url = format!("https://{}{}", text("host").ok_or("no host")?, sent.uri);
    boto.sign(&SignRequest {
        method: case.method,
        url: &url,
        headers: &headers,
        body: &case.body,
        service: case.service,
        region: case.region,
        access_key_id: ID,
        secret_access_key: SECRET,
        session_token: case.token,
        date,
    })
    .await
    .map_err(|error| error.to_string())
}

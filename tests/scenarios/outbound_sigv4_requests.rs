//! What an app may send through a signing route, as it is sent on; and what it may not.

use bytes::Bytes;
use http::{Method, Request, header::HOST};
use serde_json::json;
use warifu_tests::{
    aws::{API_ACTION, Account, Agent},
    peers::{Boto, Caller},
};

/// Its route `api`, which takes a kibibyte.
async fn open() -> (Account, Agent) {
    let account = Account::open().await;
    let role = account.role("caller", json!({}), API_ACTION).await;
    let route = format!("role: \"{role}\", max_body: 1KiB");
    let agent = account.agent(&[account.api_route("api", &route)]);
    (account, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_s11_paths_and_queries_are_sent_as_they_are_signed_or_refused() {
    let (account, agent) = open().await;
    for (asked, sent) in [
        ("/charges", "/charges"),
        ("/a%20b/%E5%89%B2%e7%ac%a6", "/a%20b/%E5%89%B2%E7%AC%A6"),
        ("/%61:b@c/d+e,f=g/!$&'()*", "/a:b@c/d+e,f=g/!$&'()*"),
        ("/charges/?", "/charges/"),
        ("/q?b=2&a=1", "/q?a=1&b=2"),
        ("/q?s=a+b&t=a%20b&p=a%2Bb", "/q?p=a%2Bb&s=a%20b&t=a%20b"),
        ("/q?k=%e5%89%b2&%C3%A9=1", "/q?%C3%A9=1&k=%E5%89%B2"),
        ("/q?empty=&bare&=v&&", "/q?=v&bare=&empty="),
        ("/q?a=2&a=1&a=1&A=0", "/q?A=0&a=1&a=1&a=2"),
        (
            "/q?u=http://x/?y;z,*'~",
            "/q?u=http%3A%2F%2Fx%2F%3Fy%3Bz%2C%2A%27~",
        ),
    ] {
        agent.post("api", asked).await.is_of_the_service(200);
        let expected = format!("POST {}{sent} HTTP/1.1\r\n", account.api());
        let on_the_wire = account.wire.take_sent();
        assert!(on_the_wire.starts_with(&expected), "{asked}: {on_the_wire}");
    }
    for (asked, reason) in [
        ("/a//b", "bad-path"),
        ("/a/../b", "bad-path"),
        ("/a/%2e%2e/b", "bad-path"),
        ("/a%2Fb", "bad-path"),
        ("/a;b=c", "bad-path"),
        ("/a%zz", "bad-path"),
        ("/a%FF", "bad-path"),
        ("/q?a=%4", "unsignable"),
        ("/q?a=%FF", "unsignable"),
        ("/q?X-Amz-Signature=00", "unsignable"),
    ] {
        agent.post("api", asked).await.is_refused(400, reason, &[]);
    }
    assert_eq!(account.wire.take_sent(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_no_signature_and_no_identity_of_the_app_s_passes_and_its_parameters_are_signed() {
    let (account, agent) = open().await;
    let mut request = Request::post("/charges").header(HOST, "api");
    for (name, value) in [
        ("authorization", "AWS4-HMAC-SHA256 Credential=FORGED"),
        ("Authorization", "Bearer FORGED"),
        ("x-amz-security-token", "FORGED"),
        ("x-amz-date", "20000101T000000Z FORGED"),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD FORGED"),
        ("x-amz-signature", "FORGED"),
        ("x_amz_security_token", "FORGED"),
        ("x-amz-source-arn", "arn:aws:iam::FORGED"),
        ("x-amz-source-account", "FORGED"),
        ("x-amzn-oidc-identity", "FORGED"),
    ] {
        request = request.header(name, value);
    }
    let request = request.header("x-request-id", "kept");
    let request = request.header("x-amz-target", "Api.Charge");
    let answer = agent.send(request.body(Bytes::from("{}")).unwrap()).await;
    answer.is_of_the_service(200);
    let sent = account.wire.take_sent();
    assert!(!sent.contains("FORGED"), "{sent}");
    for (line, times) in [
        ("\r\nauthorization: AWS4-HMAC-SHA256 Credential=", 1),
        ("\r\nx-amz-date: ", 1),
        ("\r\nx-amz-security-token: ", 1),
        ("\r\nx-amz-target: Api.Charge\r\n", 1),
        ("\r\nx-amz-", 3),
        (";x-amz-security-token;x-amz-target, Signature=", 1),
        ("\r\nx-request-id: kept\r\n", 1),
    ] {
        assert_eq!(sent.matches(line).count(), times, "{line:?} in {sent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_an_aws_sdk_that_signs_for_itself_is_signed_for_as_the_route_says() {
    let account = Account::open().await;
    let role = account.role("caller", json!({}), API_ACTION).await;
    // SDKs are pointed at the agent by `endpoint_url`, so that is what they call.
    let agent = account.agent(&[account.sts_route("127.0.0.1", &format!("role: \"{role}\""))]);
    let endpoint = format!("http://{}", agent.address());
    let forged = Caller {
        endpoint: &endpoint,
        region: "eu-west-1",
        access_key_id: "AKIAFORGED",
        secret_access_key: "FORGED",
    };
    let boto = Boto::start().await.unwrap();
    let said = boto.call(forged, "sts", "get_caller_identity", json!({}));
    let arn = said.await.unwrap()["Arn"].clone();
    assert_eq!(arn, "arn:aws:sts::000000000000:assumed-role/caller/orders");
    assert!(!account.wire.take_sent().contains("FORGED"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_a_body_beyond_max_body_is_413_and_in_signed_pieces_400_and_nothing_is_sent() {
    let (account, agent) = open().await;
    let put = |size: usize| {
        let request = Request::builder().method(Method::PUT).uri("/key");
        (request.header(HOST, "api"), Bytes::from(vec![b'x'; size]))
    };
    let (request, body) = put(1025);
    let answer = agent.send(request.body(body).unwrap()).await;
    answer.is_refused(413, "body-too-large", &["1024", "max_body"]);
    // As SDKs upload to S3.
    for (name, value) in [
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("content-encoding", "aws-chunked"),
    ] {
        let (request, body) = put(100);
        let answer = agent
            .send(request.header(name, value).body(body).unwrap())
            .await;
        answer.is_refused(400, "unsignable", &["in pieces", "send it whole"]);
    }
    assert_eq!(account.wire.take_sent(), "");
    let (request, body) = put(1024);
    agent
        .send(request.body(body).unwrap())
        .await
        .is_of_the_service(200);
}

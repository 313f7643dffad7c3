//! S3 through a signing route: keys of every form, bodies as the app says, URLs for others; and nothing that was
//! changed on its way.

use bytes::Bytes;
use http::{Method, Request, header::HOST};
use serde_json::{Value, json};
use warifu_tests::aws::{Account, Agent, Answer};

const BUCKET: &str = "shelf";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Its route `s3` goes to the services over the wire; `sigv4` are further keys.
async fn open(sigv4: &str) -> (Account, Agent) {
    let account = Account::open().await;
    let role = account.role("keeper", json!({}), "s3:*").await;
    let bucket = json!({"Bucket": BUCKET});
    account.set_up("s3", "create_bucket", bucket).await;
    let route = account.service_route("s3", "s3", &format!("role: \"{role}\", {sigv4}"));
    let agent = account.agent(&[route]);
    (account, agent)
}

async fn send(
    agent: &Agent,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, "s3");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    agent.send(request.body(body.into()).unwrap()).await
}

async fn keys(account: &Account) -> Vec<String> {
    let listed = account
        .set_up("s3", "list_objects_v2", json!({"Bucket": BUCKET}))
        .await;
    let Some(objects) = listed["Contents"].as_array() else {
        return Vec::new();
    };
    let key = |object: &Value| object["Key"].as_str().unwrap().to_owned();
    objects.iter().map(key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_s11_a_key_is_what_the_app_wrote_whatever_it_looks_like() {
    let (account, agent) = open("").await;
    for (asked, key) in [
        ("plain", "plain"),
        ("with%20space", "with space"),
        ("plus+and%2Bplus", "plus+and+plus"),
        ("slash%2Fescaped", "slash/escaped"),
        ("percent%252F", "percent%2F"),
        ("%E5%89%B2%e7%ac%a6.png", "割符.png"),
        ("a//b", "a//b"),
        ("dir/", "dir/"),
        ("!$&'()*,;=:@~_-.", "!$&'()*,;=:@~_-."),
        ("question%3Fhash%23", "question?hash#"),
    ] {
        let target = format!("/{BUCKET}/{asked}");
        let said = [("x-amz-content-sha256", "UNSIGNED-PAYLOAD")];
        let answer = send(&agent, Method::PUT, &target, &said, key.to_owned()).await;
        answer.is_of_the_service(200);
        let answer = send(&agent, Method::GET, &target, &[], "").await;
        answer.is_of_the_service(200);
        assert_eq!(answer.text, key, "{asked}");
        assert_eq!(keys(&account).await, [key], "{asked}");
        let there = json!({"Bucket": BUCKET, "Key": key});
        account.set_up("s3", "delete_object", there).await;
    }
    account.wire.take_sent();
    for climbs in ["/../x", "/%2e%2e/x", "/shelf/..%2f..%2fx"] {
        let answer = send(&agent, Method::GET, climbs, &[], "").await;
        answer.is_refused(400, "unsignable", &["`..`"]);
    }
    assert_eq!(account.wire.take_sent(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_with_empty_repeated_and_unordered_keys_pass() {
    let (account, agent) = open("").await;
    for key in ["b", "a/1", "a/2"] {
        let object = json!({"Bucket": BUCKET, "Key": key, "Body": "x"});
        account.set_up("s3", "put_object", object).await;
    }
    for query in [
        "list-type=2&prefix=a/&delimiter=",
        "prefix=a%2F&list-type=2",
        "versions",
        "list-type=2&&max-keys=2&prefix=",
        "x=2&list-type=2&x=1&x=2",
    ] {
        let answer = send(&agent, Method::GET, &format!("/{BUCKET}?{query}"), &[], "").await;
        answer.is_of_the_service(200);
        assert!(
            answer.text.contains("<Key>a/1</Key>"),
            "{query}: {}",
            answer.text
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_signed_as_the_app_says_and_hashed_where_it_says_nothing() {
    let (account, agent) = open("max_body: 1KiB").await;
    let target = format!("/{BUCKET}/key");
    let large = "x".repeat(200_000);
    // One chunk, and its CRC32 behind it.
    let pieces = "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n".to_owned();
    let trailer: &[(&str, &str)] = &[
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "5"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
    ];
    for (said, body, stored, stands) in [
        (&[][..], String::new(), "", EMPTY),
        (
            &[],
            "hello".to_owned(),
            "hello",
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        ),
        (
            &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")],
            large.clone(),
            &large,
            "UNSIGNED-PAYLOAD",
        ),
        (
            trailer,
            pieces,
            "hello",
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        ),
    ] {
        let answer = send(&agent, Method::PUT, &target, said, body).await;
        answer.is_of_the_service(200);
        let sent = account.wire.take_sent();
        let line = format!("\r\nx-amz-content-sha256: {stands}\r\n");
        assert_eq!(sent.matches(&line).count(), 1, "{stands} in {:.2000}", sent);
        let answer = send(&agent, Method::GET, &target, &[], "").await;
        assert!(answer.text == stored, "{stands}: {:.100}", answer.text);
        account.wire.take_sent();
    }
    let answer = send(&agent, Method::PUT, &target, &[], large).await;
    answer.is_refused(413, "body-too-large", &["max_body", "UNSIGNED-PAYLOAD"]);
    for pieces in ["PAYLOAD", "PAYLOAD-TRAILER", "EVENTS"] {
        let said = format!("STREAMING-AWS4-HMAC-SHA256-{pieces}");
        let said = [("x-amz-content-sha256", &*said)];
        let answer = send(&agent, Method::PUT, &target, &said, "hello").await;
        answer.is_refused(400, "unsignable", &["STREAMING-AWS4"]);
    }
    assert_eq!(account.wire.take_sent(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_changed_on_the_way_is_refused_by_s3() {
    let (account, agent) = open("").await;
    let target = format!("/{BUCKET}/ledger?x-id=PutObject");
    let put = |body: &'static str, said: &'static [(&str, &str)]| {
        send(&agent, Method::PUT, &target, said, body)
    };
    const META: &[(&str, &str)] = &[
        ("x-amz-meta-owner", "alice"),
        ("x-amz-storage-class", "STANDARD"),
    ];
    put("alice: 1", META).await.is_of_the_service(200);
    for (this, that) in [
        ("/shelf/ledger", "/shelf/lodger"),
        ("x-id=PutObject", "x-id=PutObjecu"),
        ("x-amz-meta-owner: alice", "x-amz-meta-owner: mallo"),
        ("x-amz-meta-owner: alice", "x-amz-meta-buyer: alice"),
        ("PUT /shelf", "GET /shelf"),
    ] {
        let before = account.wire.swapped();
        account.wire.swap(this, that);
        let answer = put("alice: 1", META).await;
        assert_eq!(account.wire.swapped(), before + 1, "{this} was not sent");
        answer.is_of_the_service(403);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_the_agent_presigned_up_and_downloads_and_another_does_not() {
    let (account, agent) = open("presign: {expires: 10m}").await;
    let target = format!("/{BUCKET}/with%20space");
    let ask = async |method: Method, span: &str| {
        let said = [("x-warifu-presign", span), ("x-amz-acl", "private")];
        let answer = send(&agent, method, &target, &said, "").await;
        answer.is_of_the_service(200);
        serde_json::from_str::<Value>(&answer.text).unwrap()
    };
    // Whoever has the URL; there is no agent.
    let call = async |method: Method, url: &Value, body: &str, acl: &str| {
        let url = url.as_str().unwrap();
        let target = url.split_once("://").unwrap().1.split_once('/').unwrap().1;
        let request = Request::builder()
            .method(method)
            .uri(format!("/{target}"))
            .header(HOST, account.wire.address().to_string())
            .header("x-amz-acl", acl);
        let request = request.body(Bytes::from(body.to_owned())).unwrap();
        Agent::send_to(account.services(), request).await
    };
    let put = ask(Method::PUT, "5m").await;
    assert_eq!(account.wire.take_sent(), "");
    assert_eq!(put["method"], "PUT");
    assert_eq!(put["headers"], json!({"x-amz-acl": "private"}));
    let answer = call(Method::PUT, &put["url"], "by a browser", "private").await;
    answer.is_of_the_service(200);
    assert_eq!(keys(&account).await, ["with space"]);
    let got = ask(Method::GET, "5m").await;
    let answer = call(Method::GET, &got["url"], "", "private").await;
    assert_eq!((answer.status, &*answer.text), (200, "by a browser"));
    for (method, url, acl) in [
        (Method::PUT, &got["url"], "private"),
        (Method::PUT, &put["url"], "public-read"),
        (
            Method::PUT,
            &json!(
                put["url"]
                    .as_str()
                    .unwrap()
                    .replace("with%20space", "with%20spade")
            ),
            "private",
        ),
    ] {
        let answer = call(method, url, "", acl).await;
        assert_eq!(answer.status, 403, "{url}: {answer:?}");
    }
    let said = [("x-warifu-presign", "11m")];
    let answer = send(&agent, Method::GET, &target, &said, "").await;
    answer.is_refused(400, "presign-refused", &["presign.expires"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_for_a_set_of_regions_is_accepted_and_one_that_was_changed_is_not() {
    let (account, agent) = open("region_set: [\"*\"]").await;
    let target = format!("/{BUCKET}/everywhere");
    send(&agent, Method::PUT, &target, &[], "hello")
        .await
        .is_of_the_service(200);
    let sent = account.wire.take_sent();
    assert!(
        sent.contains("authorization: AWS4-ECDSA-P256-SHA256 Credential="),
        "{sent}"
    );
    assert!(sent.contains("\r\nx-amz-region-set: *\r\n"), "{sent}");
    account
        .wire
        .swap("x-amz-region-set: *", "x-amz-region-set: u");
    let answer = send(&agent, Method::GET, &target, &[], "").await;
    answer.is_of_the_service(403);
}

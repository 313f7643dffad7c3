use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};
use warifu::{Secret, jwt::SigningKey};

use super::*;
use crate::attest::wire::Evidence;

const ACCOUNT: &str = "123456789012";
const OK: &str = r#"{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Account":"123456789012","Arn":"arn:aws:sts::123456789012:assumed-role/orders/i-1","UserId":"AROAEXAMPLE0000000000:i-1"},"ResponseMetadata":{"RequestId":"r"}}}"#;

fn now() -> SystemTime {
    // 20261120T142323Z
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_184_603)
}

fn proof() -> CallerIdentityProof {
    CallerIdentityProof {
        region: "eu-west-1".into(),
        access_key_id: "ASIAEXAMPLE000000000".into(),
        date: "20261120T142323Z".into(),
        session_token: Secret::new("IQoJb3JpZ2luX2VjE+/==".into()),
        signature: "ab".repeat(32),
    }
}

/// Answers every request alike, and keeps what it was sent.
struct Sts {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Sts {
    async fn answering(status: &'static str, headers: &'static str, body: String) -> Self {
        Self::start(move |_| {
            Some(format!(
                "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}",
                body.len()
            ))
        })
        .await
    }

    async fn start(answer: impl Fn(usize) -> Option<String> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&heard);
        tokio::spawn(async move {
            let mut open = Vec::new();
            for count in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 64 * 1024];
                let read = stream.read(&mut request).await.unwrap();
                told.lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&request[..read]).into_owned());
                match answer(count) {
                    Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                    None => open.push(stream),
                }
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    fn attestor(&self) -> CallerIdentity {
        let endpoint = Upstream {
            tls: false,
            host: self.address.ip().to_string(),
            port: self.address.port(),
            base_path: String::new(),
        };
        let config = CallerIdentityAttestor {
            partitions: vec!["aws".into()],
            accounts: vec![ACCOUNT.into()],
            sts_endpoints: BTreeMap::from([("eu-west-1".to_owned(), endpoint)]),
        };
        CallerIdentity::new("aws", &config, &Metrics::default()).unwrap()
    }
}

async fn present(
    attestor: &CallerIdentity,
    proof: CallerIdentityProof,
    challenge: &str,
) -> Result<Proven, Denied> {
    present_with(attestor, proof, challenge, &SigningKey::generate()).await
}

async fn present_with(
    attestor: &CallerIdentity,
    proof: CallerIdentityProof,
    challenge: &str,
    key: &SigningKey,
) -> Result<Proven, Denied> {
    let evidence = Evidence::AwsCallerIdentity(proof.clone());
    let renewal_key = key.public();
    let presented = Presented {
        evidence: &evidence,
        renewal_key,
        challenge,
        remote: "192.0.2.1:4711",
        now: now(),
    };
    attestor.prove(&proof, presented).await
}

#[tokio::test]
async fn a_roles_session_is_proved_by_a_request_of_our_own_making() {
    let sts = Sts::answering("200 OK", "content-type: application/json\r\n", OK.into()).await;
    let attestor = sts.attestor();
    let key = SigningKey::generate();
    let proven = present_with(&attestor, proof(), "challenge", &key)
        .await
        .unwrap();
    let fact = |name: &str| proven.facts.get(name).map(String::as_str);
    for (name, value) in [
        ("account", ACCOUNT),
        ("partition", "aws"),
        ("role", "orders"),
        ("session", "i-1"),
        ("principal_id", "AROAEXAMPLE0000000000"),
        ("region", "eu-west-1"),
    ] {
        assert_eq!(fact(name), Some(value), "{name}");
    }
    assert_eq!(proven.facts.len(), 6);
    assert_eq!(
        (proven.attestor.as_str(), proven.lineage, proven.single_use),
        ("aws", None, None)
    );

    let heard = sts.heard().remove(0);
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "Action=GetCallerIdentity&Version=2011-06-15");
    let mut lines: Vec<&str> = head
        .lines()
        .filter(|it| !it.starts_with("user-agent"))
        .collect();
    lines.sort_unstable();
    let hash = wire::key_hash(key.public());
    assert_eq!(
        lines,
        [
            "POST / HTTP/1.1",
            "accept: application/json",
            &format!(
                "authorization: AWS4-HMAC-SHA256 Credential=ASIAEXAMPLE000000000/20261120/eu-west-1/sts/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-warifu-binding, Signature={}",
                "ab".repeat(32)
            ),
            "connection: close",
            "content-length: 43",
            "content-type: application/x-www-form-urlencoded; charset=utf-8",
            // Whatever the address: the name that was signed.
            "host: sts.eu-west-1.amazonaws.com",
            "x-amz-date: 20261120T142323Z",
            "x-amz-security-token: IQoJb3JpZ2luX2VjE+/==",
            &format!("x-warifu-binding: {hash}.challenge"),
        ]
    );
}

#[tokio::test]
async fn s07_no_field_can_carry_more_than_its_value() {
    let sts = Sts::answering("200 OK", "content-type: application/json\r\n", OK.into()).await;
    let attestor = sts.attestor();
    type Change = fn(&mut CallerIdentityProof, &str);
    let fields: [(&str, Change); 5] = [
        ("region", |it, value| it.region = value.into()),
        ("access_key_id", |it, value| it.access_key_id = value.into()),
        ("date", |it, value| it.date = value.into()),
        ("session_token", |it, value| {
            it.session_token = Secret::new(value.into())
        }),
        ("signature", |it, value| it.signature = value.into()),
    ];
    // No value of any field has one of these in it.
    let smuggled = [
        "",
        " ",
        "us-east-1.evil.example#",
        "evil.example?",
        "us-east-1:80",
        "eu-west-1\r\nhost: evil",
        "eu-west-1\nx",
        "eu-west-1\0",
        "eu-west-1, Signature=",
        "a;b",
        "a=b&Action=AssumeRole",
        "ＡＳＩＡ",
        "\u{1}",
        "ASIAEXAMPLE000000000\r\n",
        "20261120T142323Z\r\nx: y",
    ];
    for (field, change) in fields {
        let long = "a".repeat(MAX_TOKEN + 1);
        for value in smuggled.iter().copied().chain([long.as_str()]) {
            let mut proof = proof();
            change(&mut proof, value);
            let refused = present(&attestor, proof, "c").await.unwrap_err();
            assert_eq!(
                refused.code,
                ErrorCode::InvalidEvidence,
                "{field}: {value:?}"
            );
            assert!(refused.message.contains(field), "{}", refused.message);
        }
    }
    for region in [
        "..",
        ".",
        "US-EAST-1",
        "us-east-1.evil.example",
        "evil.example/",
        "eu-west-1/sts/aws4_request",
        "-eu-west-1",
    ] {
        let proof = CallerIdentityProof {
            region: region.into(),
            ..proof()
        };
        let refused = present(&attestor, proof, "c").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidEvidence, "{region}");
    }
    assert_eq!(sts.heard().len(), 0, "nothing was sent");
}

#[test]
fn s07_the_wire_has_no_place_for_another_request() {
    let proof: Evidence = serde_json::from_str(
        r#"{"kind":"aws-caller-identity","region":"eu-west-1","access_key_id":"A","date":"d","session_token":"t",
        "signature":"s","action":"AssumeRole","Action":"AssumeRole","version":"2010-05-08","url":"https://evil.example",
        "method":"GET","host":"evil.example","headers":{"accept":"text/xml"},"body":"Action=GetSessionToken",
        "binding":"other","format":"xml"}"#,
    )
    .unwrap();
    let Evidence::AwsCallerIdentity(proof) = proof else {
        panic!("{proof:?}")
    };
    let kept = serde_json::to_value(Evidence::AwsCallerIdentity(proof)).unwrap();
    let names: Vec<&String> = kept.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 6, "the five values and the kind: {names:?}");
    for twice in ["\"region\":\"eu-west-2\"", "\"signature\":\"x\""] {
        let text = format!(
            r#"{{"kind":"aws-caller-identity","region":"r","access_key_id":"A","date":"d","session_token":"t","signature":"s",{twice}}}"#
        );
        assert!(serde_json::from_str::<Evidence>(&text).is_err(), "{text}");
    }
}

#[tokio::test]
async fn s07_a_challenge_serves_one_key_once() {
    let sts = Sts::answering("200 OK", "content-type: application/json\r\n", OK.into()).await;
    let attestor = sts.attestor();
    let (key, other) = (SigningKey::generate(), SigningKey::generate());
    present_with(&attestor, proof(), "one", &key).await.unwrap();
    let again = present_with(&attestor, proof(), "one", &key)
        .await
        .unwrap_err();
    assert_eq!(
        again.code,
        ErrorCode::InvalidChallenge,
        "an agent asks for another: {again:?}"
    );
    present_with(&attestor, proof(), "two", &key).await.unwrap();
    present_with(&attestor, proof(), "one", &other)
        .await
        .unwrap();
    let heard = sts.heard();
    assert_eq!(heard.len(), 3);
    // Another key or challenge is another request: what was signed for the first is no signature of the others.
    let mut bindings: Vec<&str> = heard
        .iter()
        .filter_map(|it| it.lines().find(|line| line.starts_with("x-warifu-binding")))
        .collect();
    bindings.dedup();
    assert_eq!(bindings.len(), 3);
}

#[tokio::test]
async fn an_old_or_a_future_date_is_refused_before_sts_is_asked() {
    let sts = Sts::answering("200 OK", "content-type: application/json\r\n", OK.into()).await;
    let attestor = sts.attestor();
    let at = |date: &str| CallerIdentityProof {
        date: date.into(),
        ..proof()
    };
    for date in [
        "20261120T141822Z",
        "20261120T142824Z",
        "20251120T142323Z",
        "19700101T000000Z",
    ] {
        let refused = present(&attestor, at(date), "c").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidEvidence);
        assert!(
            refused.message.contains("compare the clocks"),
            "{}",
            refused.message
        );
    }
    assert!(
        present(&attestor, at("20261120T141823Z"), "c")
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn who_is_no_role_of_a_configured_account_is_refused() {
    let with = |this: &str, that: &str| OK.replace(this, that);
    let arn = "arn:aws:sts::123456789012:assumed-role/orders/i-1";
    for (body, said) in [
        (
            with(arn, "arn:aws:iam::123456789012:user/orders"),
            "not a role's session",
        ),
        (
            with(arn, "arn:aws:iam::123456789012:root"),
            "not a role's session",
        ),
        (
            with(arn, "arn:aws:sts::123456789012:federated-user/orders"),
            "not a role's session",
        ),
        (
            OK.replace("123456789012", "210987654321"),
            "account 210987654321 is not among",
        ),
    ] {
        let sts = Sts::answering("200 OK", "content-type: application/json\r\n", body).await;
        let refused = present(&sts.attestor(), proof(), "c").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidEvidence, "{said}");
        assert!(refused.message.contains(said), "{}", refused.message);
    }
}

#[tokio::test]
async fn s07_an_answer_that_contradicts_itself_or_the_region_proves_nothing() {
    for (this, that) in [
        (
            "\"Account\":\"123456789012\"",
            "\"Account\":\"210987654321\"",
        ),
        ("arn:aws:sts", "arn:aws-cn:sts"),
        ("arn:aws:sts", "arn:aws:iam"),
        ("AROAEXAMPLE0000000000:i-1", "AROAEXAMPLE0000000000:i-2"),
        ("AROAEXAMPLE0000000000:i-1", "AIDAEXAMPLE0000000000:i-1"),
        ("AROAEXAMPLE0000000000:i-1", "AROAEXAMPLE0000000000"),
        ("assumed-role/orders/i-1", "assumed-role/orders"),
        ("assumed-role/orders/i-1", "assumed-role/path/orders/i-1"),
        ("assumed-role/orders/i-1", "assumed-role/or ders/i-1"),
        ("assumed-role/orders/i-1", "assumed-role//i-1"),
        ("arn:aws:sts::123456789012:", "arn:aws:sts::12345678901:"),
    ] {
        let body = OK.replacen(this, that, 1);
        assert_ne!(body, OK);
        let sts = Sts::answering("200 OK", "content-type: application/json\r\n", body).await;
        let refused = present(&sts.attestor(), proof(), "c").await.unwrap_err();
        assert_eq!(
            refused.code,
            ErrorCode::EvidenceUnavailable,
            "{that}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn what_sts_refuses_is_refused_with_its_code_and_no_more() {
    let body = "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>x-amz-security-token:IQoJ</Message>\
                </Error></ErrorResponse>";
    let sts = Sts::answering("403 Forbidden", "content-type: text/xml\r\n", body.into()).await;
    let refused = present(&sts.attestor(), proof(), "c").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidEvidence);
    assert!(
        refused.message.contains("SignatureDoesNotMatch"),
        "{}",
        refused.message
    );
    assert!(
        !refused.message.contains("IQoJ"),
        "S12: {}",
        refused.message
    );
}

#[tokio::test]
async fn s10_an_sts_that_is_away_busy_or_lying_is_503_and_no_refusal() {
    let throttled = "<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>";
    let json = "content-type: application/json\r\n";
    for (status, headers, body) in [
        ("503 Service Unavailable", "", String::new()),
        (
            "400 Bad Request",
            "content-type: text/xml\r\n",
            throttled.into(),
        ),
        ("302 Found", "location: /elsewhere\r\n", String::new()),
        (
            "307 Temporary Redirect",
            "location: https://evil.example/\r\n",
            OK.into(),
        ),
        (
            "200 OK",
            "content-type: text/html\r\n",
            "<html>hello</html>".into(),
        ),
        ("200 OK", json, "x".repeat(20_000)),
        (
            "200 OK",
            json,
            OK.replace("123456789012\",\"Arn\"", "1\",\"Account\":\"1\",\"Arn\""),
        ),
        ("200 OK", json, String::new()),
    ] {
        let sts = Sts::answering(status, headers, body).await;
        let refused = present(&sts.attestor(), proof(), "c").await.unwrap_err();
        assert_eq!(
            refused.code,
            ErrorCode::EvidenceUnavailable,
            "{status}: {refused:?}"
        );
        assert!(refused.retry_after.is_some());
        assert_eq!(refused.code.status(), 503);
        assert_eq!(
            sts.heard().len(),
            1,
            "{status}: nothing is followed or repeated"
        );
    }
    let gone = Sts::answering("200 OK", "", String::new()).await.attestor();
    let nobody = CallerIdentity {
        endpoints: gone
            .endpoints
            .into_iter()
            .map(|(region, it)| (region, Upstream { port: 1, ..it }))
            .collect(),
        ..gone
    };
    let refused = present(&nobody, proof(), "c").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::EvidenceUnavailable);
}

#[tokio::test(start_paused = true)]
async fn s14_a_silent_sts_is_waited_for_five_seconds_by_so_many() {
    let sts = Sts::start(|_| None).await;
    let attestor = Arc::new(sts.attestor());
    let all_in = Arc::new(Notify::new());
    let mut waiting = tokio::task::JoinSet::new();
    for source in 0..PLACES {
        let (attestor, all_in) = (Arc::clone(&attestor), Arc::clone(&all_in));
        waiting.spawn(async move {
            let key = SigningKey::generate();
            let proof = proof();
            let evidence = Evidence::AwsCallerIdentity(proof.clone());
            let remote = format!("192.0.2.{source}:1");
            let presented = Presented {
                evidence: &evidence,
                renewal_key: key.public(),
                challenge: "c",
                remote: &remote,
                now: now(),
            };
            let mut proving = std::pin::pin!(attestor.prove(&proof, presented));
            let first =
                std::future::poll_fn(|cx| std::task::Poll::Ready(proving.as_mut().poll(cx))).await;
            assert!(first.is_pending());
            if source + 1 == PLACES {
                all_in.notify_one();
            }
            let began = tokio::time::Instant::now();
            let refused = proving.await.unwrap_err();
            (refused.code, began.elapsed())
        });
    }
    all_in.notified().await;
    let turned_away = present(&attestor, proof(), "c").await.unwrap_err();
    assert!(
        turned_away.message.contains("no more places"),
        "{}",
        turned_away.message
    );
    assert_eq!(turned_away.code, ErrorCode::EvidenceUnavailable);
    while let Some(ended) = waiting.join_next().await {
        let (code, took) = ended.unwrap();
        assert_eq!(code, ErrorCode::EvidenceUnavailable);
        assert!(took <= LIMITS.total, "{took:?}");
    }
    let free = attestor.places.enter("192.0.2.1:1");
    assert!(free.is_ok(), "places are given back");
}

#[tokio::test]
async fn a_region_of_no_known_partition_needs_an_endpoint() {
    let sts = Sts::answering("200 OK", "content-type: application/json\r\n", OK.into()).await;
    let mut attestor = sts.attestor();
    let moon = || CallerIdentityProof {
        region: "moon-dark-1".into(),
        ..proof()
    };
    let refused = present(&attestor, moon(), "c").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidEvidence);
    assert!(
        refused.message.contains("sts_endpoints"),
        "{}",
        refused.message
    );
    let endpoint = attestor.endpoints["eu-west-1"].clone();
    attestor.endpoints.insert("moon-dark-1".into(), endpoint);
    assert!(present(&attestor, moon(), "d").await.is_ok());
}

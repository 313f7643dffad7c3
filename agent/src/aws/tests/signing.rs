//! What is signed, and with which key.

use super::*;

#[tokio::test]
async fn s06_no_signature_and_no_identity_of_the_app_s_passes_and_what_passes_is_signed() {
    let world = World::new().await;
    let mut parts = request("/prod/a//b/../c?b=2&a=x+y");
    for (name, value) in [
        ("authorization", "Bearer FORGED"),
        ("x-amz-date", "20000101T000000Z FORGED"),
        ("x-amz-security-token", "FORGED"),
        ("x-amz-content-sha256", "FORGED"),
        ("x-amz-signature", "FORGED"),
        ("x_amz_security_token", "FORGED"),
        ("x-amz-source-arn", "FORGED"),
        ("x-amzn-oidc-identity", "FORGED"),
        ("x-amz-target", "DynamoDB_20120810.GetItem"),
        ("x-amz-meta-a", "  a   b "),
        ("x-amzn-bedrock-trace", "ENABLED"),
        ("x-amzn-trace-id", "Root=1"),
        ("x-tenant", "  a   b "),
    ] {
        parts.headers.append(name, value.parse().unwrap());
        parts.headers.append(name, value.parse().unwrap());
    }
    let payload = Payload::hash(b"{}");
    world.signer().sign(&mut parts, &payload).await.unwrap();

    let all = format!("{:?}", parts.headers);
    assert!(!all.contains("FORGED"), "{all}");
    assert_eq!(parts.headers["x-amz-security-token"], "issued-token");
    assert_eq!(parts.headers.get_all("x-amz-date").iter().count(), 1);
    let authorization: Vec<_> = parts.headers.get_all(AUTHORIZATION).iter().collect();
    assert_eq!(authorization.len(), 1);
    let authorization = authorization[0].to_str().unwrap();
    let signed = "SignedHeaders=content-type;host;x-amz-date;x-amz-meta-a;x-amz-security-token;\
                  x-amz-target;x-amzn-bedrock-trace;x-tenant,";
    assert!(authorization.contains(signed), "{authorization}");
    // What is sent is what is signed.
    assert_eq!(parts.uri, "/prod/a/c?a=x%20y&b=2");
    assert_eq!(parts.headers["x-tenant"], "a b,a b");
    assert_eq!(parts.headers["x-amz-meta-a"], "a b,a b");
    assert_eq!(parts.headers.get_all("x-amzn-trace-id").iter().count(), 2);
}

#[tokio::test]
async fn s06_a_route_that_lists_headers_lets_those_through_and_no_others() {
    let world = World::new().await;
    let route = |patterns: &[&str]| RouteSigV4 {
        amz_headers: Some(patterns.iter().map(|it| String::from(*it)).collect()),
        ..route()
    };
    let listed = route(&["x-amz-source-arn", "x-amz-meta-*"]);
    let signer = Signer::new(&world.roles, &listed, Some(&workload())).unwrap();
    let mut parts = request("/");
    for name in [
        "x-amz-source-arn",
        "x-amz-meta-a",
        "x-amz-target",
        "x-amz-security-token",
    ] {
        parts.headers.insert(name, "app".parse().unwrap());
    }
    signer.sign(&mut parts, &Payload::hash(b"")).await.unwrap();
    let mut passed: Vec<_> = parts
        .headers
        .iter()
        .filter(|(_, value)| *value == "app")
        .collect();
    passed.sort_by_key(|(name, _)| name.as_str());
    let passed: Vec<_> = passed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(passed, ["x-amz-meta-a", "x-amz-source-arn"]);
    for never in ["x-amz-date", "x-tenant"] {
        let error = Signer::new(&world.roles, &route(&[never]), Some(&workload())).unwrap_err();
        assert!(error.to_string().contains(never), "{error}");
    }
}

#[tokio::test]
async fn a_key_is_made_once_a_day_and_once_for_new_credentials() {
    let world = World::new().await;
    let signer = world.signer();
    let scope = async |signer: &Signer| {
        let authorization = signed(signer).await.unwrap();
        let (_, rest) = authorization.split_once("Credential=").unwrap();
        rest.split_once(',').unwrap().0.to_owned()
    };
    let first = scope(&signer).await;
    assert_eq!(scope(&signer).await, first);
    world.clock.advance(24 * HOUR);
    let second = scope(&signer).await;
    assert_ne!(first, second);
    let day = |scope: &str| scope.split('/').nth(1).unwrap().to_owned();
    assert!(day(&first) < day(&second), "{first} {second}");
}

#[tokio::test]
async fn a_presigned_url_lives_no_longer_than_the_credentials_that_sign_it() {
    let world = World::new().await;
    let signer = world.signer();
    let mut parts = request("/prod/a?b=1");
    let payload = Payload::hash(b"");
    let signed = signer
        .presign(&mut parts, &payload, 12 * HOUR)
        .await
        .unwrap();
    let target = parts.uri.to_string();
    assert!(
        target.starts_with("/prod/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=ASIA"),
        "{target}"
    );
    assert!(
        target.contains("&X-Amz-Security-Token=issued-token&"),
        "{target}"
    );
    assert!(target.contains("&b=1&X-Amz-Signature="), "{target}");
    assert!(!parts.headers.contains_key(AUTHORIZATION));
    assert_eq!(
        signed.headers,
        [("content-type".to_owned(), "application/json".to_owned())]
    );
    let now = aws_smithy_async::time::TimeSource::now(&world.clock);
    let lives = signed.expires.duration_since(now).unwrap();
    assert!(lives <= HOUR && lives > HOUR - MINUTE, "{lives:?}");
    assert!(
        target.contains(&format!("&X-Amz-Expires={}&", lives.as_secs())),
        "{target}"
    );
}

#[tokio::test]
async fn s06_what_cannot_be_signed_unambiguously_is_refused_before_sts_is_asked() {
    let world = World::new().await;
    let signer = world.signer();
    for uri in [
        "/a?b=%FF",
        "/a%FF",
        "/a?b=%4",
        "/a/%2e%2e/b",
        "/a?X-Amz-Signature=00",
    ] {
        let mut parts = request(uri);
        let error = signer
            .sign(&mut parts, &Payload::hash(b""))
            .await
            .unwrap_err();
        assert!(matches!(error, SignError::Unsignable(_)), "{uri}: {error}");
        assert!(!parts.headers.contains_key(AUTHORIZATION));
    }
    let mut parts = request("/");
    parts.headers.remove("host");
    assert!(signer.sign(&mut parts, &Payload::hash(b"")).await.is_err());
    assert_eq!(world.sts.requests(), 0);
}

#[tokio::test]
async fn s06_a_second_attempt_carries_one_signature() {
    let world = World::new().await;
    let signer = world.signer();
    let mut parts = request("/prod?b=1&a=2");
    signer.sign(&mut parts, &Payload::hash(b"")).await.unwrap();
    let first = (parts.uri.clone(), parts.headers.clone());
    signer.sign(&mut parts, &Payload::hash(b"")).await.unwrap();
    assert_eq!((parts.uri, parts.headers), first);
}

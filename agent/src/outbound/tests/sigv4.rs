//! Routes that sign: paths, bodies, URLs.

use super::*;

#[tokio::test]
async fn s14_what_s3_may_stream_is_streamed_and_what_must_be_hashed_has_a_limit() {
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("s3", &upstream.url("/bucket"), |route| {
            sigv4(4)(route);
            route.sigv4.as_mut().unwrap().service = "s3".to_owned();
        })
        .start()
        .await;
    static BODY: [u8; 100_000] = [b'x'; 100_000];
    let put = |said: &[(&'static str, &'static str)]| {
        let mut request = post("http://s3/key", str::from_utf8(&BODY).unwrap());
        for (name, value) in said {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        agent.call(request)
    };
    let answer = put(&[]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    const TRAILER: &[(&str, &str)] = &[
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("x-amz-decoded-content-length", "99000"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
        ("content-encoding", "aws-chunked"),
    ];
    // It is the service's to compare with the body.
    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for (said, stands) in [
        (
            &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")][..],
            "UNSIGNED-PAYLOAD",
        ),
        (TRAILER, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        (&[("x-amz-content-sha256", HASH)], HASH),
    ] {
        assert_eq!(put(said).await.status, StatusCode::OK);
        let seen = upstream.last();
        assert_eq!(seen.body.len(), 100_000);
        assert_eq!(
            seen.headers["authorization"],
            format!("signed /bucket/key {stands}")
        );
    }
    assert_eq!(agent.signer.count(), 3);
}

#[tokio::test]
async fn s11_an_s3_key_is_sent_in_its_one_form_and_never_leaves_the_base_path() {
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("s3", &upstream.url("/bucket"), |route| {
            sigv4(4)(route);
            route.sigv4.as_mut().unwrap().service = "s3".to_owned();
        })
        .start()
        .await;
    for (asked, sent) in [
        ("/a%2Fb", "/bucket/a/b"),
        ("//a//b/", "/bucket//a//b/"),
        ("/a/../b/.", "/bucket/a/../b/."),
        ("/a+b;c=d&e", "/bucket/a%2Bb%3Bc%3Dd%26e"),
        ("/%e5%89%b2%20x", "/bucket/%E5%89%B2%20x"),
    ] {
        let answer = agent
            .raw(&format!("GET {asked} HTTP/1.1\r\nhost: s3\r\n\r\n"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{asked}: {answer}");
        assert_eq!(upstream.last().target, sent, "{asked}");
    }
    let sent = upstream.count();
    for asked in [
        "/..",
        "/../other/key",
        "/%2e%2e/other",
        "/a/..%2F..%2Fother",
        "/%FF",
    ] {
        let answer = agent
            .raw(&format!("GET {asked} HTTP/1.1\r\nhost: s3\r\n\r\n"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{asked}: {answer}");
    }
    assert_eq!(upstream.count(), sent);
}

#[tokio::test]
async fn a_url_is_signed_where_the_route_allows_it_and_nothing_is_sent() {
    let upstream = Peer::plain(|_| ok("")).await;
    let presigns = |route: &mut config::outbound::Route| {
        sigv4(4)(route);
        let expires = config::value::Span(Duration::from_secs(300));
        route.sigv4.as_mut().unwrap().presign = Some(config::outbound::RoutePresign { expires });
    };
    let agent = Agent::new()
        .route("uploads", &upstream.url("/bucket"), presigns)
        .route("api", &upstream.url(""), sigv4(4))
        .route("plain", &upstream.url(""), |_| {})
        .start()
        .await;
    let ask = |host: &str, span: &str| {
        let mut request = get(&format!("http://{host}/key"));
        request
            .headers_mut()
            .insert("x-warifu-presign", span.parse().unwrap());
        agent.call(request)
    };
    let answer = ask("uploads", "2m").await;
    assert_eq!(
        (answer.status, &answer.headers["cache-control"]),
        (StatusCode::OK, &"no-store".parse().unwrap())
    );
    let url = format!("http://{}/bucket/key?signed", upstream.address);
    let expected = serde_json::json!({
        "method": "GET",
        "url": url,
        "headers": {"x-amz-acl": "private"},
        "expires": "1970-01-01T00:02:00.000Z",
    });
    assert_eq!(answer.json(), expected);
    for (host, span, status) in [
        ("uploads", "6m", StatusCode::BAD_REQUEST),
        ("uploads", "0s", StatusCode::BAD_REQUEST),
        ("uploads", "soon", StatusCode::BAD_REQUEST),
        ("api", "2m", StatusCode::FORBIDDEN),
        ("plain", "2m", StatusCode::FORBIDDEN),
    ] {
        let answer = ask(host, span).await;
        assert_eq!(answer.status, status, "{host} {span}");
        assert_eq!(answer.headers[REASON], "presign-refused");
    }
    assert_eq!((agent.signer.count(), upstream.count()), (1, 0));
}

#[tokio::test]
async fn s06_an_upload_in_signed_pieces_is_refused_before_it_is_read() {
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("api", &upstream.url(""), sigv4(4))
        .start()
        .await;
    // Not a byte of the body is sent, and it is too large, too.
    let answer = agent
        .raw(
            "PUT /key HTTP/1.1\r\nhost: api\r\ncontent-length: 1000\r\n\
             content-encoding: aws-chunked\r\n\
             x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("unsignable"), "{answer}");
    assert_eq!((agent.signer.count(), upstream.count()), (0, 0));
}

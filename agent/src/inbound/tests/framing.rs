//! Where one request ends and the next begins (S4), and requests that are not for us.

use super::*;

#[tokio::test]
async fn s04_two_lengths_make_one_request() {
    let mut fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    // By its length the message would end inside the chunk, and another request would begin there.
    let answer = orders
        .ask(
            "POST /a HTTP/1.1\r\nhost: payments\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\
             \r\n5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: payments\r\n\r\n",
        )
        .await;
    assert_eq!(answer.status(), 200);
    let seen = fixture.seen().await;
    assert_eq!(
        (&*seen.first, &*seen),
        ("POST /a HTTP/1.1", "5\r\nhello\r\n0\r\n\r\n")
    );
    assert!(seen.all("content-length").is_empty());
    assert_eq!(seen.all("transfer-encoding"), ["chunked"]);
    assert!(
        orders.response().await.is_none(),
        "nothing that follows is believed"
    );
    assert!(fixture.nothing_seen());
}

#[tokio::test]
async fn s04_ambiguous_framing_is_refused() {
    let mut fixture = Fixture::new().await;
    for (headers, status) in [
        ("content-length: 4\r\ncontent-length: 5\r\n", 400),
        ("content-length: 4, 5\r\n", 400),
        ("content-length: +4\r\n", 400),
        ("content-length: 0x4\r\n", 400),
        ("content-length: -4\r\n", 400),
        ("transfer-encoding: chunked, identity\r\n", 400),
        ("transfer-encoding: xchunked\r\n", 400),
        ("transfer-encoding: gzip, chunked\r\n", 501),
        (
            "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
            501,
        ),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            501,
        ),
        ("transfer-encoding : chunked\r\n", 400),
        (" content-length: 4\r\n", 400),
        ("host: elsewhere\r\n", 400),
    ] {
        let mut orders = fixture.caller(ORDERS).await;
        let answer = orders
            .ask(&format!(
                "POST /a HTTP/1.1\r\nhost: payments\r\n{headers}\r\nhello"
            ))
            .await;
        assert_eq!(answer.status(), status, "{headers}");
    }
    let mut orders = fixture.caller(ORDERS).await;
    let answer = orders
        .ask("POST /a HTTP/1.0\r\nhost: payments\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
    assert_eq!(answer.status(), 400);
    assert!(fixture.nothing_seen());
}

/// With a second request behind each: where the first one's end is in doubt, it is part of nothing.
#[tokio::test]
async fn s04_a_head_that_others_read_otherwise_is_refused_with_all_that_follows_it() {
    let mut fixture = Fixture::new().await;
    for head in [
        "POST\t/a\tHTTP/1.1\r\nhost: payments\r\n",
        "POST  /a HTTP/1.1\r\nhost: payments\r\n",
        "POST /a  HTTP/1.1\r\nhost: payments\r\n",
        "POST /a HTTP/1.1 \r\nhost: payments\r\n",
        "POST /a b HTTP/1.1\r\nhost: payments\r\n",
        "POST /a HTTP/1.1\rhost: payments\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\nx: a\r\n b\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\nx: a\r\n\tcontent-length: 2\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\nx: a\rcontent-length: 2\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\nx: a\0b\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\nx\0y: a\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\ncontent-length : 2\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\ncontent-length\t: 2\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\ncontent-length: 2 2\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\ncontent-length: \r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\ncontent-length\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\n: 2\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\ntransfer-encoding: \x0bchunked\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\ntransfer-encoding: \"chunked\"\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\ntransfer-encoding: chunked;q=1\r\n",
        "POST /a HTTP/1.1\r\nhost: payments\r\ntransfer-encoding: identity\r\n",
    ] {
        let mut orders = fixture.caller(ORDERS).await;
        let next = "GET /smuggled HTTP/1.1\r\nhost: payments\r\n\r\n";
        orders.send(format!("{head}\r\n{next}")).await;
        let answer = orders.response().await.unwrap();
        assert!(
            [400, 501].contains(&answer.status()),
            "{head:?}: {answer:?}"
        );
        assert!(orders.response().await.is_none(), "{head:?}");
        assert!(fixture.nothing_seen(), "{head:?}");
    }
}

#[tokio::test]
async fn s04_a_chunk_that_others_read_otherwise_ends_its_request_and_its_connection() {
    let mut fixture = Fixture::new().await;
    let long = format!("5;{}\r\nhello\r\n", "x".repeat(20_000));
    for chunk in [
        "5;a\nhello\r\n",
        "5;a=\"\n\"\r\nhello\r\n",
        "5\nhello\r\n",
        "5\rhello\r\n",
        "5\r\nhelloo\r\n",
        "5\r\nhello\n",
        "5\r\nhello",
        "0x5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "-5\r\nhello\r\n",
        " 5\r\nhello\r\n",
        "5,5\r\nhello\r\n",
        "\r\nhello\r\n",
        "ffffffffffffffff1\r\nhello\r\n",
        "10000000000000005\r\nhello\r\n",
        &long,
    ] {
        let mut orders = fixture.caller(ORDERS).await;
        let head = "POST /a HTTP/1.1\r\nhost: payments\r\ntransfer-encoding: chunked\r\n\r\n";
        let next = "GET /smuggled HTTP/1.1\r\nhost: payments\r\n\r\n";
        orders.send(format!("{head}{chunk}0\r\n\r\n{next}")).await;
        if let Some(answer) = orders.response().await {
            assert_eq!(answer.status(), 400, "{chunk:?}: {answer:?}");
            assert!(orders.response().await.is_none(), "{chunk:?}");
        }
        // What the app has of it has no end.
        assert!(fixture.nothing_seen(), "{chunk:?}");
    }
}

#[tokio::test]
async fn s04_a_body_reaches_the_app_whatever_the_method() {
    let mut fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    for method in ["GET", "POST", "DELETE"] {
        let answer = orders
            .ask(&format!(
                "{method} /a HTTP/1.1\r\nhost: payments\r\ntransfer-encoding: Chunked\r\n\r\n\
                 2\r\nhi\r\n0\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.status(), 200);
        let seen = fixture.seen().await;
        assert_eq!(seen.first, format!("{method} /a HTTP/1.1"));
        assert_eq!(&*seen, "2\r\nhi\r\n0\r\n\r\n");
    }
    orders
        .ask("GET /a HTTP/1.1\r\nhost: payments\r\ncontent-length: 2\r\n\r\nhi")
        .await;
    let seen = fixture.seen().await;
    assert_eq!((&*seen, seen.all("content-length")), ("hi", vec!["2"]));
}

#[tokio::test]
async fn s04_cookies_on_several_lines_reach_the_app_as_one() {
    let mut fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    orders
        .get_with("/a", "cookie: a=1\r\nx-a: 1\r\ncookie: b=2; c=3\r\n")
        .await;
    assert_eq!(fixture.seen().await.all("cookie"), ["a=1; b=2; c=3"]);
}

#[tokio::test]
async fn s11_a_host_that_is_more_than_a_host_is_refused() {
    let mut fixture = Fixture::new().await;
    for host in [
        "payments/admin?",
        "payments/../admin#",
        "payments?",
        "payments\\admin",
        "orders@payments",
        "pay ments",
        "payments%2fadmin",
        "",
    ] {
        let mut orders = fixture.caller(ORDERS).await;
        let request = format!("GET /a HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let answer = orders.ask(&request).await;
        assert_eq!(
            (answer.status(), answer.all("x-warifu-reason")),
            (400, vec!["bad-host"]),
            "{host}"
        );
    }
    assert!(fixture.nothing_seen());
    for host in [
        "payments",
        "payments:8443",
        "pay_ments.internal",
        "[::1]:8443",
        "10.0.0.1",
    ] {
        let mut orders = fixture.caller(ORDERS).await;
        let request = format!("GET /a HTTP/1.1\r\nhost: {host}\r\n\r\n");
        assert_eq!(orders.ask(&request).await.status(), 200, "{host}");
    }
}

#[tokio::test]
async fn s03_trailers_are_filtered_like_headers() {
    let mut fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    let names = "x-ok, x-warifu-caller, x_forwarded_client_cert, authorization";
    let answer = orders
        .ask(&format!(
            "POST /a HTTP/1.1\r\nhost: payments\r\ntrailer: {names}\r\ntransfer-encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\nx-ok: yes\r\nx-warifu-caller: forged\r\nx_forwarded_client_cert: forged\r\n\
             authorization: forged\r\n\r\n"
        ))
        .await;
    assert_eq!(answer.status(), 200);
    let seen = fixture.seen().await;
    assert_eq!(&*seen, "2\r\nhi\r\n0\r\nx-ok: yes\r\n\r\n");
}

#[tokio::test]
async fn s04_no_tunnel_is_opened() {
    let mut fixture = Fixture::with(OK, |config| {
        config.allow = vec![
            allow(Some(ORDERS), None, "* /**"),
            allow(Some(ORDERS), None, "* /"),
        ];
    })
    .await;
    for (request, status, reason) in [
        (
            "CONNECT payments:80 HTTP/1.1\r\nhost: payments:80\r\n\r\n",
            501,
            "tunnel-not-supported",
        ),
        (
            "GET /a HTTP/1.1\r\nhost: payments\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            400,
            "bad-upgrade",
        ),
        (
            "GET /a HTTP/1.1\r\nhost: payments\r\nupgrade: h2c\r\n\r\n",
            501,
            "tunnel-not-supported",
        ),
        (
            "TRACE /a HTTP/1.1\r\nhost: payments\r\n\r\n",
            501,
            "trace-not-supported",
        ),
    ] {
        let answer = fixture.caller(ORDERS).await.ask(request).await;
        assert_eq!(
            (answer.status(), answer.all("x-warifu-reason")),
            (status, vec![reason]),
            "{request}"
        );
    }
    assert!(fixture.nothing_seen());
}

#[tokio::test]
async fn a_request_names_exactly_one_host() {
    let mut fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    for request in [
        "GET /a HTTP/1.1\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET http://a/b HTTP/1.1\r\nhost: c\r\n\r\n",
        "GET http://u@a/b HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let answer = orders.ask(request).await;
        assert_eq!(
            (answer.status(), answer.all("x-warifu-reason")),
            (400, vec!["bad-host"]),
            "{request}"
        );
    }
    assert!(fixture.nothing_seen());
}

#[tokio::test]
async fn http_1_0_is_served_and_closed() {
    let mut fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    let answer = orders
        .ask("GET /a HTTP/1.0\r\nhost: payments\r\n\r\n")
        .await;
    assert_eq!((answer.status(), &*answer), (200, "ok"));
    assert_eq!(fixture.seen().await.first, "GET /a HTTP/1.1");
    assert!(orders.response().await.is_none());
}

#[tokio::test]
async fn s17_noise_ends_a_connection_and_nothing_else() {
    let mut fixture = Fixture::new().await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(20_000));
    for noise in [
        b"\x00\x01\x02\xff\xfe\r\n\r\n".as_slice(),
        b"\r\n\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /a HTTP/1.1\r\nhost: \xff\r\nconnection: \xff,,;\r\nte: \xff\r\nx-forwarded-for: \xff\r\n\r\n",
        b"GET /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551616\r\n\r\n",
        long.as_bytes(),
    ] {
        let mut orders = fixture.caller(ORDERS).await;
        orders.send(noise).await;
        drop(orders);
    }
    let mut orders = fixture.caller(ORDERS).await;
    assert_eq!(orders.get("/still-here").await.status(), 200);
    while fixture.seen().await.first != "GET /still-here HTTP/1.1" {}
}

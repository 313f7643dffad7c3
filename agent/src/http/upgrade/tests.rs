use http::Request;

use super::*;

/// RFC 6455 §1.3.
const THE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ITS_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn request(lines: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri("/chat").header("host", "x");
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn good() -> Vec<(&'static str, &'static str)> {
    vec![
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", THE_KEY),
    ]
}

fn wanted() -> Wanted {
    Wanted::of(&request(&good())).unwrap().unwrap()
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn the_example_of_the_rfc_is_a_websocket() {
    assert_eq!(wanted().accept, ITS_ACCEPT);
    let answer = headers(&[
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-accept", ITS_ACCEPT),
    ]);
    wanted()
        .agreed(StatusCode::SWITCHING_PROTOCOLS, &answer)
        .unwrap();
}

#[test]
fn s04_other_protocols_are_not_switched_to() {
    for upgrade in ["h2c", "TLS/1.0", "websockets", ""] {
        let parts = request(&[("connection", "upgrade"), ("upgrade", upgrade)]);
        assert_eq!(Wanted::of(&parts), Ok(None), "{upgrade}");
    }
    assert_eq!(Wanted::of(&request(&[])), Ok(None));
}

#[test]
fn s04_a_handshake_that_can_be_read_in_two_ways_is_refused() {
    let with = |name: &'static str, value: &'static str| {
        let mut lines = good();
        lines.retain(|(it, _)| *it != name);
        lines.push((name, value));
        lines
    };
    let twice = |name: &'static str, value: &'static str| {
        let mut lines = good();
        lines.push((name, value));
        lines
    };
    for (what, lines) in [
        ("a choice of protocols", with("upgrade", "websocket, h2c")),
        ("two upgrades", twice("upgrade", "h2c")),
        ("two alike", twice("upgrade", "websocket")),
        ("not meant for us", with("connection", "close")),
        ("a body", twice("content-length", "5")),
        ("a body of a strange length", twice("content-length", "+0")),
        ("a chunked body", twice("transfer-encoding", "chunked")),
        ("another version", with("sec-websocket-version", "8")),
        ("two keys", twice("sec-websocket-key", THE_KEY)),
        ("a short key", with("sec-websocket-key", "dGhl")),
        ("no base64", with("sec-websocket-key", "!")),
    ] {
        assert!(Wanted::of(&request(&lines)).is_err(), "{what}");
    }
    let mut post = request(&good());
    post.method = Method::POST;
    assert!(Wanted::of(&post).is_err());
    for version in [Version::HTTP_10, Version::HTTP_2] {
        let mut other = request(&good());
        other.version = version;
        assert!(Wanted::of(&other).is_err(), "{version:?}");
    }
}

#[test]
fn s04_an_answer_that_agrees_to_something_else_opens_nothing() {
    let (upgrade, connection) = (("upgrade", "websocket"), ("connection", "upgrade"));
    let accept = ("sec-websocket-accept", ITS_ACCEPT);
    let good = [upgrade, connection, accept];
    let status = StatusCode::SWITCHING_PROTOCOLS;
    let agreed = |lines: &[(&'static str, &'static str)]| wanted().agreed(status, &headers(lines));
    agreed(&good).unwrap();
    assert!(wanted().agreed(StatusCode::OK, &headers(&good)).is_err());
    for lines in [
        &[connection, accept][..],
        &[upgrade, accept],
        &[upgrade, connection],
        &[("upgrade", "h2c"), connection, accept],
        &[upgrade, ("upgrade", "h2c"), connection, accept],
        &[upgrade, ("connection", "close"), accept],
        &[upgrade, connection, accept, accept],
        &[
            upgrade,
            connection,
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOO="),
        ],
        &[upgrade, connection, accept, ("content-length", "4")],
        &[
            upgrade,
            connection,
            accept,
            ("transfer-encoding", "chunked"),
        ],
    ] {
        assert!(agreed(lines).is_err(), "{lines:?}");
    }
}

use proptest::prelude::*;

use super::{
    super::proto::{
        core::{self, HeaderValue as RawHeader, SocketAddress},
        service::attribute_context::Request,
    },
    *,
};

const SELF_SIGNED: &str = "-----BEGIN CERTIFICATE-----\nAAEC+/8=\n-----END CERTIFICATE-----\n";

/// As Envoy asks.
fn http() -> HttpRequest {
    let headers = [
        (":authority", "payments"),
        (":method", "POST"),
        (":path", "/charges?id=1"),
        (":scheme", "https"),
        ("authorization", "Bearer a.b.c"),
    ];
    HttpRequest {
        method: "POST".into(),
        path: "/charges?id=1".into(),
        host: "payments".into(),
        scheme: "https".into(),
        headers: headers
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        ..HttpRequest::default()
    }
}

fn check(http: HttpRequest, source: Peer) -> CheckRequest {
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(source),
            request: Some(Request { http: Some(http) }),
        }),
    }
}

fn read(change: impl FnOnce(&mut HttpRequest)) -> Result<Asked, Unclear> {
    let mut http = http();
    change(&mut http);
    Asked::read(check(http, Peer::default()))
}

fn peer(principal: &str, certificate: &str) -> Peer {
    Peer {
        address: Some(core::Address {
            address: Some(Address::SocketAddress(SocketAddress {
                address: "10.1.2.3".into(),
                port_specifier: None,
            })),
        }),
        principal: principal.into(),
        certificate: certificate.into(),
    }
}

fn presented(principal: &str, certificate: &str) -> Result<Option<Presented>, Unclear> {
    Asked::read(check(http(), peer(principal, certificate))).map(|asked| asked.presented)
}

/// As Envoy encodes it.
fn escaped(pem: &str) -> String {
    let mut text = String::new();
    for byte in pem.bytes() {
        match byte.is_ascii_alphanumeric() {
            true => text.push(byte.into()),
            false => text += &format!("%{byte:02X}"),
        }
    }
    text
}

#[test]
fn a_request_is_read_as_envoy_has_it() {
    let asked = Asked::read(check(http(), peer("", ""))).unwrap();
    assert_eq!(asked.parts.method, "POST");
    assert_eq!(asked.parts.uri, "/charges?id=1");
    assert_eq!(asked.parts.headers["authorization"], "Bearer a.b.c");
    assert_eq!(asked.parts.headers["host"], "payments");
    assert_eq!(asked.parts.headers.len(), 2);
    assert_eq!(asked.source, Some([10, 1, 2, 3].into()));
    assert_eq!(asked.presented, None);
}

#[test]
fn raw_headers_keep_their_lines() {
    let raw = |key: &str, value: &'static [u8]| RawHeader {
        key: key.into(),
        raw_value: value.into(),
        ..RawHeader::default()
    };
    let asked = read(|http| {
        http.headers.clear();
        http.header_map = Some(RawHeaders {
            headers: vec![
                raw(":path", b"/charges?id=1"),
                raw("authorization", b"Bearer a.b.c"),
                raw("authorization", b"Bearer d.e.f"),
                raw("x-name", b"\xe9"),
            ],
        });
    })
    .unwrap();
    let lines = asked.parts.headers.get_all("authorization");
    assert_eq!(lines.iter().count(), 2);
    assert_eq!(asked.parts.headers["x-name"].as_bytes(), b"\xe9");
}

#[test]
fn s11_a_path_that_is_not_in_normal_form_is_not_decided_on() {
    for (path, normal) in [
        ("/%63harges", "/charges"),
        ("/a%2d", "/a-"),
        ("/%c3%a9", "/%C3%A9"),
    ] {
        let why = read(|http| {
            http.path = path.into();
            http.headers.clear();
        });
        assert_eq!(
            why.unwrap_err(),
            Unclear::NotNormal(normal.into()),
            "{path}"
        );
    }
    for path in [
        "//charges",
        "/./charges",
        "/x/../charges",
        "/%2e%2e/charges",
        "/a%2fb",
        "/a\\b",
        "/a;b=c",
        "charges",
        "*",
        "",
        "/a#b",
        "/a%00",
        "/a b",
        "/%zz",
        "http://payments/charges",
    ] {
        let why = read(|http| {
            http.path = path.into();
            http.headers.clear();
        });
        assert!(matches!(why, Err(Unclear::Path(_))), "{path}: {why:?}");
    }
    let why = read(|http| {
        http.path = "/a?b c".into();
        http.headers.clear();
    });
    assert_eq!(why.unwrap_err(), Unclear::Query);
}

#[test]
fn s11_what_says_two_things_is_not_decided_on() {
    type Change = fn(&mut HttpRequest);
    let changes: [(Change, &str); 5] = [
        (|http| http.path = "/refunds".into(), "the path"),
        (|http| http.method = "GET".into(), "the method"),
        (|http| http.host = "refunds".into(), "the host"),
        (|http| http.query = "id=2".into(), "the query"),
        (|http| http.fragment = "x".into(), "the query"),
    ];
    for (change, what) in changes {
        assert_eq!(read(change).unwrap_err(), Unclear::Contradiction(what));
    }
}

#[test]
fn what_is_no_http_request_is_not_decided_on() {
    let nothing = CheckRequest::default();
    assert_eq!(Asked::read(nothing).unwrap_err(), Unclear::NotHttp);
    let method = |method: &str| {
        let why = read(|http| {
            http.method = method.into();
            http.headers.clear();
        });
        why.unwrap_err()
    };
    assert_eq!(method(""), Unclear::Method);
    assert_eq!(method("GET /x"), Unclear::Method);
    for host in ["", "a/b", "a b", "a@b", "a?b", "a\r\nb"] {
        let why = read(|http| {
            http.host = host.into();
            http.headers.clear();
        });
        assert_eq!(why.unwrap_err(), Unclear::Host, "{host:?}");
    }
    for (name, value) in [("a b", "c"), ("", "c"), ("x-a", "b\nc"), ("x-a", "\0")] {
        let why = read(|http| {
            http.headers.insert(name.into(), value.into());
        });
        assert_eq!(why.unwrap_err(), Unclear::Header(name.into()), "{name:?}");
    }
}

#[test]
fn s03_only_a_spiffe_id_beside_its_certificate_is_believed() {
    let id = "spiffe://example.org/orders";
    let certificate = escaped(SELF_SIGNED);
    assert_eq!(presented("", ""), Ok(None));
    let seen = presented(id, &certificate).unwrap().unwrap();
    assert_eq!(seen.principal.to_string(), id);
    assert_eq!(seen.leaf.as_ref(), [0, 1, 2, 0xfb, 0xff]);

    for principal in [
        "orders.example.org",
        "CN=orders",
        "https://example.org/orders",
        "spiffe://",
        "",
    ] {
        let why = presented(principal, &certificate).unwrap_err();
        assert_eq!(why, Unclear::Principal(principal.into()));
    }
    assert_eq!(presented(id, ""), Err(Unclear::NoCertificate));
    for certificate in [
        "%",
        "%4",
        "%zz",
        "%+f",
        "AAEC",
        "%2D%2D%2D",
        SELF_SIGNED.trim_end_matches("-\n"),
    ] {
        assert_eq!(
            presented(id, certificate),
            Err(Unclear::Certificate),
            "{certificate}"
        );
    }
}

proptest! {
    #[test]
    fn s11_what_is_decided_on_is_what_envoy_forwards(path in "/[a-zA-Z0-9%./;?=&#_~-]{0,24}") {
        let asked = read(|http| {
            http.path.clone_from(&path);
            http.headers.clear();
        });
        if let Ok(asked) = asked {
            prop_assert_eq!(asked.parts.uri.to_string(), path);
        }
    }

    #[test]
    fn s17_nothing_envoy_says_of_a_certificate_panics(principal in "\\PC{0,40}", certificate in "\\PC{0,80}") {
        let _ = presented(&principal, &certificate);
    }
}

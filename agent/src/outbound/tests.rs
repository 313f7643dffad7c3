use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header::LOCATION};
use http_body_util::BodyExt;
use serde_json::Value;
use warifu::identity::Identity;

use super::*;
use crate::aws::Payload;
use crate::http::{
    answer::REASON,
    pool::{Address, Destination, Keep, SendError},
};
use crate::revocation::{Kind, Published};
use fixture::*;

mod federated;
mod fixture;
mod sigv4;
mod tcp;
mod transport;
mod websocket;

/// It is moved several times on its way into its task: with room for a TLS handshake in it, it once was 33 KiB.
#[test]
fn what_carries_a_request_is_cheap_to_move() {
    fn size_of_made<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }
    let size = size_of_made(<Outbound as Service>::call);
    assert!(size <= 16 * 1024, "{size} bytes");
}

#[tokio::test]
async fn a_call_reaches_the_route_s_upstream_with_its_host_and_base_path() {
    let upstream = Peer::plain(|_| ok("hello")).await;
    let agent = Agent::new()
        .route("payments", &upstream.url("/v1"), |_| {})
        .start()
        .await;
    let answer = agent.call(get("http://payments/charges/%37?b=2&a=1")).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "hello"));
    let seen = upstream.only();
    assert_eq!(seen.target, "/v1/charges/7?b=2&a=1");
    assert_eq!(seen.headers["host"], upstream.address.to_string());
}

#[tokio::test]
async fn s05_nothing_is_minted_signed_or_sent_for_a_host_without_a_route() {
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("payments", &upstream.url(""), jwt("payments"))
        .route("orders-api", &upstream.url(""), sigv4(1024))
        .start()
        .await;
    for host in [
        "stranger",
        "payments.example.org",
        "payment",
        "169.254.169.254",
    ] {
        let answer = agent.call(get(&format!("http://{host}/"))).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert_eq!(answer.headers[REASON], "no-route");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&format!("{host:?}")), "{message}");
        assert!(message.contains("payments, orders-api"), "{message}");
    }
    assert_eq!(
        (agent.mint.count(), agent.signer.count(), upstream.count()),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn s05_a_token_is_minted_for_the_route_s_audience_whatever_the_app_asks() {
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("payments", &upstream.url(""), jwt("payments"))
        .start()
        .await;
    let mut request = get("http://PAYMENTS:9999/?audience=admin");
    request
        .headers_mut()
        .insert("x-audience", "admin".parse().unwrap());
    agent.call(request).await;
    assert_eq!(
        upstream.only().headers["authorization"],
        "Bearer payments.0"
    );
    assert_eq!(*agent.mint.audiences.lock().unwrap(), ["payments"]);
}

#[tokio::test]
async fn s06_the_app_s_authorization_gives_way_to_the_route_s() {
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("payments", &upstream.url(""), jwt("payments"))
        .route("orders-api", &upstream.url("/prod"), sigv4(1024))
        .route("plain", &upstream.url(""), |_| {})
        .start()
        .await;
    let signed = format!("signed /prod/x?q=1 {}", Payload::hash(b"body"));
    for (host, expected) in [
        ("payments", "Bearer payments.0"),
        ("orders-api", &*signed),
        ("plain", "Basic forged"),
    ] {
        let mut request = post(&format!("http://{host}/x?q=1"), "body");
        request
            .headers_mut()
            .insert("authorization", "Basic forged".parse().unwrap());
        agent.call(request).await;
        let seen = upstream.last();
        let all: Vec<_> = seen.headers.get_all("authorization").iter().collect();
        assert_eq!(all, [expected], "{host}");
        assert_eq!(seen.body, "body");
    }
}

#[tokio::test]
async fn s06_the_signer_sees_the_request_as_it_is_sent() {
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("api", &upstream.url("/prod"), sigv4(1024))
        .start()
        .await;
    let mut request = get("http://api/a%7eb");
    for (name, value) in [
        ("connection", "x-nominated"),
        ("x-nominated", "1"),
        ("x-warifu-caller", "forged"),
        ("accept", "*/*"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    agent.call(request).await;
    let signed = agent.signer.headers.lock().unwrap().clone();
    let mut names: Vec<_> = signed.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "host"]);
    assert_eq!(signed["host"], upstream.address.to_string());
    assert_eq!(upstream.only().target, "/prod/a~b");
}

#[tokio::test]
async fn s06_every_attempt_is_signed_anew() {
    // It breaks off the second request on its first connection.
    let upstream = Peer::breaking_its_second_request().await;
    let agent = Agent::new()
        .route(
            "api",
            &format!("http://{}/prod", upstream.address),
            sigv4(1024),
        )
        .start()
        .await;
    assert_eq!(agent.call(get("http://api/x")).await.text(), "ok");
    assert_eq!(agent.call(get("http://api/x")).await.text(), "ok");
    let signed = format!("signed /prod/x {}", Payload::hash(b""));
    let attempts = [signed.clone(), signed.clone(), format!("{signed}, again")];
    assert_eq!(*upstream.authorizations.lock().unwrap(), attempts);
    assert_eq!(agent.signer.count(), 3);
}

#[tokio::test]
async fn s04_a_signed_post_that_broke_is_neither_signed_nor_sent_again() {
    let upstream = Peer::breaking_its_second_request().await;
    let agent = Agent::new()
        .route(
            "api",
            &format!("http://{}/prod", upstream.address),
            sigv4(1024),
        )
        .start()
        .await;
    assert_eq!(agent.call(post("http://api/x", "1")).await.text(), "ok");
    let answer = agent.call(post("http://api/x", "1")).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(upstream.authorizations.lock().unwrap().len(), 2);
    assert_eq!(agent.signer.count(), 2);
}

#[tokio::test]
async fn s13_credentials_that_do_not_come_are_a_503_within_the_route_s_time() {
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("api", &upstream.url(""), |route| {
            sigv4(1024)(route);
            route.timeouts.first_byte = Some(config::value::Span(Duration::from_millis(20)));
        })
        .start()
        .await;
    agent.signer.hang();
    let answer = agent.call(get("http://api/x")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers[REASON], "no-credentials");
    assert!(answer.text().contains("20ms"), "{}", answer.text());
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn s11_a_path_that_can_be_read_in_two_ways_is_refused() {
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("api", &upstream.url("/prod"), sigv4(1024))
        .start()
        .await;
    for path in [
        "/../admin",
        "/a/%2e%2e/%2e%2e/admin",
        "/a%zz",
        "/a%2fb",
        "//x",
    ] {
        let answer = agent
            .raw(&format!("GET {path} HTTP/1.1\r\nhost: api\r\n\r\n"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    assert_eq!((agent.signer.count(), upstream.count()), (0, 0));
}

#[tokio::test]
async fn an_absolute_target_must_equal_the_host() {
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("payments", &upstream.url(""), jwt("payments"))
        .start()
        .await;
    let request = |target, host| format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let answer = agent.raw(&request("http://payments/x", "orders")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!((agent.mint.count(), upstream.count()), (0, 0));
    let answer = agent.raw(&request("http://payments/x", "payments")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(upstream.only().target, "/x");
}

#[tokio::test]
async fn s04_connect_is_not_served() {
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("payments", &upstream.url(""), |_| {})
        .start()
        .await;
    let answer = agent
        .raw("CONNECT payments:443 HTTP/1.1\r\nhost: payments:443\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_401_is_answered_with_one_fresh_token_and_one_retry() {
    let upstream = Peer::plain(
        |seen| match seen.headers["authorization"] == "Bearer payments.1" {
            true => ok("welcome"),
            false => status(StatusCode::UNAUTHORIZED),
        },
    )
    .await;
    let agent = Agent::new()
        .route("payments", &upstream.url(""), jwt("payments"))
        .start()
        .await;
    let answer = agent.call(get("http://payments/x")).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "welcome"));
    assert_eq!((agent.mint.count(), upstream.count()), (2, 2));
    agent.call(get("http://payments/x")).await;
    assert_eq!((agent.mint.count(), upstream.count()), (2, 3));
}

#[tokio::test]
async fn an_upstream_that_says_401_to_everything_is_asked_twice_once() {
    let upstream = Peer::plain(|_| status(StatusCode::UNAUTHORIZED)).await;
    let agent = Agent::new()
        .route("payments", &upstream.url(""), jwt("payments"))
        .start()
        .await;
    for _ in 0..20 {
        let answer = agent.call(get("http://payments/x")).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!((agent.mint.count(), upstream.count()), (2, 21));
}

#[tokio::test]
async fn s04_a_streamed_post_is_not_sent_again_after_a_401_but_the_token_is_replaced() {
    let upstream = Peer::plain(|_| status(StatusCode::UNAUTHORIZED)).await;
    let agent = Agent::new()
        .route("payments", &upstream.url(""), jwt("payments"))
        .start()
        .await;
    let answer = agent.call(post("http://payments/charges", "1 yen")).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(upstream.count(), 1);
    until(|| agent.mint.count() == 2).await;
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn s19_a_redirect_is_passed_back_and_not_followed() {
    let elsewhere = Peer::plain(|_| ok("")).await;
    let location = elsewhere.url("/stolen");
    let upstream = {
        let location = location.clone();
        Peer::plain(move |_| {
            let mut response = status(StatusCode::TEMPORARY_REDIRECT);
            response
                .headers_mut()
                .insert(LOCATION, location.parse().unwrap());
            response
        })
        .await
    };
    let agent = Agent::new()
        .route("payments", &upstream.url(""), jwt("payments"))
        .start()
        .await;
    let answer = agent.call(get("http://payments/x")).await;
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(answer.headers[LOCATION], location);
    assert_eq!((upstream.count(), elsewhere.count()), (1, 0));
}

#[tokio::test]
async fn s19_plaintext_goes_to_loopback_addresses_only() {
    for upstream in [
        "http://10.0.0.1",
        "http://payments.example.org",
        "http://localhost",
    ] {
        let error = Agent::new()
            .route("payments", "http://127.0.0.1", |route| {
                route.upstream.host = upstream.trim_start_matches("http://").to_owned();
                jwt("payments")(route);
            })
            .build()
            .unwrap_err();
        assert!(
            matches!(error, RouteError::Plaintext { .. }),
            "{upstream}: {error}"
        );
    }
}

#[tokio::test]
async fn s19_a_peer_with_another_spiffe_id_is_sent_nothing() {
    let ca = Ca::new();
    let impostor = Peer::mtls(&ca, "spiffe://example.org/impostor", |_| ok("mine now")).await;
    let agent = Agent::new()
        .identity(ca.identity(ORDERS, 1))
        .route("payments", &impostor.url(""), |route| {
            jwt("payments")(route);
            mtls(PAYMENTS)(route);
        })
        .start()
        .await;
    let answer = agent.call(get("http://payments/x")).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.headers[REASON], "connect-failed");
    assert!(
        answer.text().contains("spiffe://example.org/impostor"),
        "{}",
        answer.text()
    );
    assert_eq!(impostor.count(), 0);
}

#[tokio::test]
async fn an_upstream_that_does_not_accept_our_certificate_is_quoted() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let upstream = Peer::mtls_for(&ours, &theirs, PAYMENTS, |_| ok("")).await;
    let agent = Agent::new()
        .identity(ours.identity(ORDERS, 1))
        .route("payments", &upstream.url(""), mtls(PAYMENTS))
        .start()
        .await;
    // TLS 1.3 tells the client only after its own handshake is done.
    for method in [Method::GET, Method::POST] {
        let mut request = get("http://payments/x");
        *request.method_mut() = method;
        let answer = agent.call(request).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert!(answer.text().contains("alert"), "{}", answer.text());
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn s19_a_public_upstream_must_be_verified_by_the_web_pki() {
    let ca = Ca::new();
    let upstream = Peer::mtls(&ca, PAYMENTS, |_| ok("")).await;
    let agent = Agent::new()
        .route("api", &upstream.url(""), sigv4(1024))
        .start()
        .await;
    let answer = agent.call(get("http://api/x")).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.text().contains("certificate"), "{}", answer.text());
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn an_mtls_route_presents_the_identity_and_speaks_http2() {
    let ca = Ca::new();
    let upstream = Peer::mtls(&ca, PAYMENTS, |_| ok("hello")).await;
    let agent = Agent::new()
        .identity(ca.identity(ORDERS, 1))
        .route("payments", &upstream.url(""), mtls(PAYMENTS))
        .start()
        .await;
    let answer = agent.call(post("http://payments/charges?x", "1 yen")).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "hello"));
    let seen = upstream.only();
    assert_eq!(seen.peer.as_deref(), Some(ORDERS));
    assert_eq!(seen.body, "1 yen");
    assert_eq!(
        seen.target,
        format!("https://{}/charges?x", upstream.address)
    );
}

#[tokio::test]
async fn a_rotated_identity_is_presented_by_the_next_request() {
    let ca = Ca::new();
    let upstream = Peer::mtls(&ca, PAYMENTS, |_| ok("")).await;
    let agent = Agent::new()
        .identity(ca.identity(ORDERS, 1))
        .route("payments", &upstream.url(""), mtls(PAYMENTS))
        .start()
        .await;
    let mut certificates = Vec::new();
    for generation in [1, 1, 2, 2] {
        if generation == 2 && certificates.len() == 2 {
            agent.rotate(ca.identity(ORDERS, 2));
        }
        agent.call(get("http://payments/x")).await;
        certificates.push(upstream.last().connection);
    }
    assert_eq!(certificates, [0, 0, 1, 1]);
}

#[tokio::test]
async fn a_revoked_upstream_gets_nothing_more_over_new_connections_and_pooled_ones() {
    let ca = Ca::new();
    let upstream = Peer::mtls(&ca, PAYMENTS, |_| ok("")).await;
    let revocations = identity::Revocations::default();
    let agent = Agent::new()
        .identity(ca.identity(ORDERS, 1))
        .revocations(&revocations)
        .route("payments", &upstream.url(""), mtls(PAYMENTS))
        .start()
        .await;
    let ask = async || agent.call(get("http://payments/x")).await;
    assert_eq!(ask().await.status, StatusCode::OK);
    assert_eq!(upstream.count(), 1);

    learn(&revocations, 1, &[PAYMENTS]);
    for _ in 0..3 {
        let refused = ask().await;
        assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
        assert_eq!(refused.headers["x-warifu-reason"], "peer-revoked");
        let why = "revoked by spiffe-id";
        assert!(refused.text().contains(why), "{}", refused.text());
    }
    assert_eq!(upstream.count(), 1);

    // Another list, without it: a connection is made anew, and kept.
    learn(&revocations, 2, &["spiffe://example.org/others"]);
    let mut connections = Vec::new();
    for _ in 0..2 {
        assert_eq!(ask().await.status, StatusCode::OK);
        connections.push(upstream.last().connection);
    }
    assert_eq!(connections[0], connections[1]);
}

#[tokio::test]
async fn with_a_list_that_is_too_old_mtls_routes_are_503_where_the_configuration_says_refuse() {
    let ca = Ca::new();
    let upstream = Peer::mtls(&ca, PAYMENTS, |_| ok("")).await;
    let revocations = identity::Revocations::refusing_after(Duration::from_secs(60));
    let agent = Agent::new()
        .identity(ca.identity(ORDERS, 1))
        .revocations(&revocations)
        .route("payments", &upstream.url(""), mtls(PAYMENTS))
        .start()
        .await;
    let refused = agent.call(get("http://payments/x")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers["x-warifu-reason"], "revocations-stale");
    learn(&revocations, 0, &[]);
    assert_eq!(
        agent.call(get("http://payments/x")).await.status,
        StatusCode::OK
    );
}

/// From now on these are revoked.
fn learn(revocations: &identity::Revocations, number: u64, ids: &[&str]) {
    let entries = ids.iter().map(|id| (Kind::SpiffeId, (*id).to_owned()));
    let now = SystemTime::now();
    let published = Published {
        number,
        as_of: now,
        entries: entries.collect(),
    };
    revocations.learn(&published, now);
}

#[tokio::test]
async fn s13_without_a_valid_identity_an_mtls_route_is_503_and_others_work() {
    let ca = Ca::new();
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("payments", "https://127.0.0.1:1", mtls(PAYMENTS))
        .route("plain", &upstream.url(""), |_| {})
        .start()
        .await;
    let answer = agent.call(get("http://payments/x")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers[REASON], "no-identity");
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(
        agent.call(get("http://plain/x")).await.status,
        StatusCode::OK
    );

    agent.rotate(ca.expired(ORDERS, 1));
    let answer = agent.call(get("http://payments/x")).await;
    assert_eq!(answer.headers[REASON], "identity-expired");
}

#[tokio::test]
async fn s14_a_body_beyond_the_route_s_limit_is_413_and_not_signed() {
    let upstream = Peer::plain(|_| ok("")).await;
    let agent = Agent::new()
        .route("api", &upstream.url(""), sigv4(4))
        .start()
        .await;
    let answer = agent.call(post("http://api/x", "12345")).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let chunked = "POST /x HTTP/1.1\r\nhost: api\r\ntransfer-encoding: chunked\r\n\r\n\
                   3\r\n123\r\n2\r\n45\r\n0\r\n\r\n";
    let answer = agent.raw(chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!((agent.signer.count(), upstream.count()), (0, 0));
    assert_eq!(
        agent.call(post("http://api/x", "1234")).await.status,
        StatusCode::OK
    );
    assert_eq!(upstream.only().body, "1234");
}

#[tokio::test]
async fn hop_by_hop_headers_pass_in_neither_direction() {
    let upstream = Peer::plain(|_| {
        let mut response = ok("");
        let headers = response.headers_mut();
        headers.insert("connection", "x-hop".parse().unwrap());
        headers.insert("x-hop", "1".parse().unwrap());
        headers.insert("x-end", "1".parse().unwrap());
        response
    })
    .await;
    let agent = Agent::new()
        .route("payments", &upstream.url(""), |_| {})
        .start()
        .await;
    let mut request = get("http://payments/x");
    for (name, value) in [
        ("connection", "x-mine"),
        ("x-mine", "1"),
        ("x-warifu-caller", "me"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = agent.call(request).await;
    assert!(answer.headers.contains_key("x-end") && !answer.headers.contains_key("x-hop"));
    let seen = upstream.only();
    assert!(!seen.headers.contains_key("x-mine"));
    assert!(!seen.headers.contains_key("x-warifu-caller"));
}

#[tokio::test]
async fn a_response_streams_through() {
    let (upstream, more) = Peer::in_two_parts("first", "second").await;
    let agent = Agent::new()
        .route("payments", &format!("http://{upstream}"), |_| {})
        .start()
        .await;
    let mut body = agent
        .send(get("http://payments/x"))
        .await
        .unwrap()
        .into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "first");
    more.send(()).unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "second");
}

#[tokio::test]
async fn what_goes_wrong_with_the_upstream_is_said() {
    let silent = Peer::silent().await;
    let agent = Agent::new()
        .route("silent", &format!("http://{silent}"), |route| {
            route.timeouts.first_byte = Some(config::value::Span(Duration::from_millis(20)));
        })
        .route("closed", "http://127.0.0.1:1", |_| {})
        .start()
        .await;
    for (host, status, reason) in [
        ("silent", StatusCode::GATEWAY_TIMEOUT, "timed-out"),
        ("closed", StatusCode::BAD_GATEWAY, "connect-failed"),
    ] {
        let answer = agent.call(get(&format!("http://{host}/"))).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers[REASON], reason);
        assert_eq!(answer.json()["reason"], reason);
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_outcome() {
    let upstream = Peer::plain(|_| status(StatusCode::NOT_FOUND)).await;
    let agent = Agent::new()
        .route("payments", &upstream.url(""), |_| {})
        .start()
        .await;
    agent.call(get("http://payments/")).await;
    agent.call(get("http://stranger/")).await;
    let text = agent.metrics();
    for line in [
        r#"outbound_requests_total{route="payments",outcome="4xx"} 1"#,
        r#"outbound_requests_total{route="",outcome="no-route"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(
        !text.contains("stranger"),
        "a label without a bound:\n{text}"
    );
}

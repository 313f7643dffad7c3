//! Times, retries, trust and the way to an upstream; gRPC's needs; opaque TCP.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls_pki_types::pem::PemObject;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::config::{
    outbound::{Protocol, Retries, RouteTls},
    value::Span,
};

fn whole(limit: Duration) -> impl Fn(&mut config::outbound::Route) {
    move |route| route.timeouts.whole = Some(Span(limit))
}

#[tokio::test]
async fn the_whole_is_limited_before_the_answer_and_in_its_midst() {
    let silent = Peer::silent().await;
    let (halting, _more) = Peer::in_two_parts("first", "second").await;
    let limit = Duration::from_millis(100);
    let agent = Agent::new()
        .route("silent", &format!("http://{silent}"), whole(limit))
        .route("halting", &format!("http://{halting}"), whole(limit))
        .start()
        .await;
    let answer = agent.call(get("http://silent/")).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.headers[REASON], "timed-out");
    assert!(
        answer.text().contains("timeouts.whole"),
        "{}",
        answer.text()
    );

    let answer = agent.send(get("http://halting/")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    // It is not passed off as whole.
    let rest = tokio::time::timeout(DEADLINE, answer.into_body().collect()).await;
    rest.expect("an end").unwrap_err();
}

/// Breaks off the first `count` connections before anything is said, then is a mutual-TLS upstream.
async fn late_riser(ca: &Ca, count: usize) -> (Peer, String) {
    let upstream = Peer::mtls(ca, PAYMENTS, |seen| match seen.body.is_empty() {
        true => ok("awake"),
        false => ok("awake, and fed"),
    })
    .await;
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", door.local_addr().unwrap());
    let there = upstream.address;
    tokio::spawn(async move {
        for number in 0.. {
            let (mut near, _) = door.accept().await.unwrap();
            if number >= count {
                let mut far = TcpStream::connect(there).await.unwrap();
                tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        }
    });
    (upstream, url)
}

#[tokio::test]
async fn s04_what_was_not_sent_is_sent_again_whatever_it_is_and_reaches_the_upstream_once() {
    let ca = Ca::new();
    let (upstream, url) = late_riser(&ca, 1).await;
    let agent = Agent::new()
        .identity(ca.identity(ORDERS, 1))
        .route("payments", &url, mtls(PAYMENTS))
        .start()
        .await;
    let streamed = "POST /charges HTTP/1.1\r\nhost: payments\r\ntransfer-encoding: chunked\r\n\r\n\
                    5\r\n1 yen\r\n0\r\n\r\n";
    let answer = agent.raw(streamed).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(upstream.only().body, "1 yen");
    let retried = r#"outbound_retries_total{route="payments"} 1"#;
    assert!(agent.metrics().contains(retried));
}

#[tokio::test]
async fn retries_end_at_their_number_and_at_the_route_s_budget() {
    let never = |max| {
        move |route: &mut config::outbound::Route| {
            route.retries = Retries { max, on_503: true };
        }
    };
    let agent = Agent::new()
        .route("none", "http://127.0.0.1:1", never(0))
        .route("some", "http://127.0.0.1:1", never(2))
        .start()
        .await;
    let retries = |route: &str| {
        let line = format!("outbound_retries_total{{route=\"{route}\"}} ");
        let text = agent.metrics();
        let value = text
            .lines()
            .find_map(|it| it.strip_prefix(&*line).map(str::to_owned));
        value.unwrap().parse::<usize>().unwrap()
    };
    let answer = agent.call(get("http://none/")).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(retries("none"), 0);
    agent.call(get("http://some/")).await;
    assert_eq!(retries("some"), 2);
    for _ in 0..20 {
        agent.call(get("http://some/")).await;
    }
    // Ten are saved up at the start, and one more for every ten requests.
    assert!((10..=12).contains(&retries("some")), "{}", retries("some"));
}

#[tokio::test]
async fn s04_a_503_that_says_when_is_tried_again_only_where_that_is_safe_and_wanted() {
    let upstream = Peer::plain(|_| {
        let mut busy = status(StatusCode::SERVICE_UNAVAILABLE);
        let soon = HeaderValue::from_static("0");
        busy.headers_mut().insert("retry-after", soon);
        busy
    })
    .await;
    let agent = Agent::new()
        .route("plain", &upstream.url(""), |_| {})
        .route("eager", &upstream.url(""), |route| {
            route.retries.on_503 = true;
        })
        .route("signed", &upstream.url(""), |route| {
            sigv4(1024)(route);
            route.retries.on_503 = true;
        })
        .start()
        .await;
    let mut expected = 0;
    for (request, times) in [
        (get("http://plain/"), 1),
        (get("http://eager/"), 2),
        (post("http://eager/", "1 yen"), 1),
        (get("http://signed/"), 2),
    ] {
        let answer = agent.call(request).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        expected += times;
        assert_eq!(upstream.count(), expected);
    }
    // Signed anew for each.
    assert_eq!(agent.signer.count(), 2);
}

#[tokio::test]
async fn grpc_s_framing_passes_over_http2_without_tls_and_trailers_are_filtered_both_ways() {
    let upstream = Peer::grpc().await;
    let agent = Agent::new()
        .route("greeter", &upstream.url(""), |route| {
            route.protocol = Protocol::Http2;
        })
        .start_with_http2()
        .await;
    let mut request = post("http://greeter/hello.Greeter/SayHello", "");
    let frame = Full::new(Bytes::from_static(b"frame"));
    let frame = frame.with_trailers(async { Some(Ok(trailers("x-checksum"))) });
    *request.body_mut() = Body::stream(frame);
    let headers = request.headers_mut();
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    let response = agent.send(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    let only = |trailers: &HeaderMap, name: &str| {
        let left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, [name]);
    };
    only(body.trailers().unwrap(), "grpc-status");
    let seen = upstream.only();
    only(&seen.trailers, "x-checksum");
    assert_eq!(seen.headers["te"], "trailers");
    assert_eq!(seen.body, Bytes::from_static(b"frame"));
    assert!(seen.target.starts_with("http://"), "{}", seen.target);
}

/// Some that pass no hop, and `name`.
fn trailers(name: &'static str) -> HeaderMap {
    let names = [name, "authorization", "proxy-authorization"];
    let value = HeaderValue::from_static("0");
    HeaderMap::from_iter(names.map(|name| (HeaderName::from_static(name), value.clone())))
}

impl Peer {
    /// HTTP/2 without TLS; answers with trailers, some of which are not for the app.
    pub(super) async fn grpc() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Self {
            address: listener.local_addr().unwrap(),
            tls: false,
            seen: Arc::default(),
        };
        let seen = peer.seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = seen.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let seen = seen.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await?;
                        let asked = Seen {
                            target: head.uri.to_string(),
                            headers: head.headers,
                            trailers: body.trailers().cloned().unwrap_or_default(),
                            body: body.to_bytes(),
                            peer: None,
                            connection: 0,
                        };
                        seen.lock().unwrap().push(asked);
                        let body = Full::new(Bytes::from_static(b"frame"))
                            .with_trailers(async { Some(Ok(trailers("grpc-status"))) });
                        Ok::<_, hyper::Error>(Response::new(body))
                    }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
            }
        });
        peer
    }
}

/// A TLS upstream known by nothing but its own certificate, for `name`.
async fn private(name: &str) -> (Peer, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let key =
        rustls_pki_types::PrivateKeyDer::from_pem_slice(signing_key.serialize_pem().as_bytes());
    let config = rustls::ServerConfig::builder_with_provider(warifu::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.unwrap())
        .unwrap();
    (Peer::tls(config).await, cert.pem())
}

#[tokio::test]
async fn s19_an_upstream_of_a_private_ca_is_verified_by_its_bundle_and_by_no_other() {
    let (upstream, pem) = private("api.internal").await;
    let (_, other) = private("api.internal").await;
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let trusting = |path: std::path::PathBuf, name: &str| {
        let server_name = Some(name.to_owned());
        move |route: &mut config::outbound::Route| {
            route.tls = Some(RouteTls {
                ca_bundle: Some(path.clone()),
                server_name: server_name.clone(),
            });
        }
    };
    let (good, bad) = (file("good.pem", &pem), file("bad.pem", &other));
    let agent = Agent::new()
        .route("api", &upstream.url(""), trusting(good, "api.internal"))
        .route("stranger", &upstream.url(""), trusting(bad, "api.internal"))
        .route(
            "misnamed",
            &upstream.url(""),
            trusting(directory.path().join("good.pem"), "other.internal"),
        )
        .start()
        .await;
    let answer = agent.call(get("http://api/x")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    for host in ["stranger", "misnamed"] {
        let answer = agent.call(get(&format!("http://{host}/x"))).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert!(answer.text().contains("certificate"), "{}", answer.text());
    }
    assert_eq!(upstream.count(), 1);

    for (content, why) in [
        ("", "no certificate"),
        ("-----BEGIN CERTIFICATE-----\n", "PEM"),
    ] {
        let path = file("wrong.pem", content);
        let agent = Agent::new().route("api", &upstream.url(""), trusting(path, "api.internal"));
        let error = agent.build().unwrap_err().to_string();
        assert!(
            error.contains("tls.ca_bundle") && error.contains(why),
            "{error}"
        );
    }
}

/// A proxy that connects where it is asked to, or refuses; what it was asked.
async fn proxy(refuses: bool) -> (SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(near.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let to = head.split(' ').nth(1).unwrap().to_owned();
                seen.lock().unwrap().push(head);
                if refuses {
                    let refusal = b"HTTP/1.1 403 Forbidden\r\n\r\n";
                    return near.write_all(refusal).await.unwrap();
                }
                let mut far = TcpStream::connect(to).await.unwrap();
                let answer = b"HTTP/1.1 200 Connected\r\nvia: 1.1 x\r\n\r\n";
                near.write_all(answer).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn s19_through_a_proxy_the_upstream_is_verified_and_the_proxy_sees_no_request() {
    let ca = Ca::new();
    let upstream = Peer::mtls(&ca, PAYMENTS, |_| ok("hello")).await;
    let impostor = Peer::mtls(&ca, ORDERS, |_| ok("hello")).await;
    let (there, asked) = proxy(false).await;
    let (refusing, _) = proxy(true).await;
    let by = |proxy: SocketAddr| {
        move |route: &mut config::outbound::Route| {
            mtls(PAYMENTS)(route);
            route.proxy = Some(format!("http://{proxy}").parse().unwrap());
        }
    };
    let agent = Agent::new()
        .identity(ca.identity(ORDERS, 1))
        .route("payments", &upstream.url(""), by(there))
        .route("impostor", &impostor.url(""), by(there))
        .route("refused", &upstream.url(""), by(refusing))
        .start()
        .await;
    let answer = agent.call(get("http://payments/secret")).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "hello"));
    let expected = format!(
        "CONNECT {0} HTTP/1.1\r\nhost: {0}\r\n\r\n",
        upstream.address
    );
    assert_eq!(*asked.lock().unwrap(), [expected]);
    let answer = agent.call(get("http://impostor/secret")).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(impostor.count(), 0);
    let answer = agent.call(get("http://refused/secret")).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    let why = format!("the proxy http://{refusing}: it does not connect to");
    assert!(answer.text().contains(&why), "{}", answer.text());
    assert!(answer.text().contains("status 403"), "{}", answer.text());
}

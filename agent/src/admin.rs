//! live, ready, metrics, status, drain.
//!
//! Two faces of one thing: [`Surface::Probes`] may be exposed, and says only how it goes;
//! [`Surface::Full`] is for the operator beside it, over a unix socket or loopback.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN},
};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    config::value::Listen,
    http::{
        body::Body,
        server::{self, Draining, Limits, Listener, ListenerMetrics, Plain},
    },
    telemetry::{
        metrics::{self, Process},
        ready::Readiness,
    },
};

/// Connections at once: a kubelet, a scraper or two, an operator. More are turned away.
const MAX_CONNECTIONS: usize = 64;

/// Time a connection may be idle. Scrapers come every 15 to 60 seconds and may as well connect anew.
const IDLE: Duration = Duration::from_secs(30);

/// Age at which a connection is closed: HTTP/2 keeps a silent one open with pings, and a few dozen of
/// those would take every place from the probes.
const MAX_AGE: Duration = Duration::from_secs(60);

/// What `/status` shows beside readiness: identities, expiry, routes, last errors. Never a secret.
pub type Status = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What `POST /drain` does.
pub type StartDrain = Arc<dyn Fn() + Send + Sync>;

/// How much a listener answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// `/healthz`, `/readyz`, `/metrics`.
    Probes,
    /// These and `/status`, `/drain`.
    Full,
}

/// What the admin listeners answer from.
pub struct Admin {
    /// What is still missing.
    pub readiness: Readiness,
    /// Everyone's metrics.
    pub registry: Registry,
    /// When the process started.
    pub started: SystemTime,
    /// What it holds.
    pub status: Status,
    /// How it is drained.
    pub drain: StartDrain,
}

/// Serves `listener` in a task of its own. `draining` should be of a drain that starts last, so that
/// probes are answered while the rest drains.
pub fn start(
    listener: Listener,
    surface: Surface,
    admin: Arc<Admin>,
    metrics: ListenerMetrics,
    draining: Draining,
) -> JoinHandle<usize> {
    let limits = limits();
    let guarded = surface == Surface::Full && is_tcp(&listener);
    let service = Plain::new(move |request: Request<_>| {
        let refused = guarded
            .then(|| guard(request.headers()))
            .and_then(Result::err);
        std::future::ready(match refused {
            Some(why) => text(StatusCode::FORBIDDEN, format!("{why}\n")),
            None => admin.answer(surface, request.method(), request.uri().path()),
        })
    });
    tokio::spawn(server::serve(listener, service, limits, metrics, draining))
}

fn limits() -> Limits {
    Limits {
        max_connections: MAX_CONNECTIONS,
        idle: IDLE,
        max_age: Some(MAX_AGE),
        ..Limits::default()
    }
}

impl Admin {
    fn answer(&self, surface: Surface, method: &Method, path: &str) -> Response<Body> {
        let full = surface == Surface::Full;
        let wanted = match path {
            "/drain" if full => Method::POST,
            "/healthz" | "/readyz" | "/metrics" => Method::GET,
            "/status" if full => Method::GET,
            _ => return text(StatusCode::NOT_FOUND, index(surface)),
        };
        if *method != wanted && !(*method == Method::HEAD && wanted == Method::GET) {
            let mut response = text(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{path} is asked with {wanted}\n"),
            );
            response.headers_mut().insert(
                ALLOW,
                http::HeaderValue::from_static(if wanted == Method::POST {
                    "POST"
                } else {
                    "GET, HEAD"
                }),
            );
            return response;
        }
        match path {
            "/healthz" => text(StatusCode::OK, "alive\n"),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            "/status" => self.status(),
            _ => {
                tracing::info!("a drain was asked for over the admin socket");
                (self.drain)();
                text(StatusCode::ACCEPTED, "draining\n")
            }
        }
    }

    fn ready(&self) -> Response<Body> {
        let missing = self.readiness.missing();
        if missing.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        let mut what = "not ready\n".to_owned();
        for (name, why) in missing {
            what += &format!("{name}: {why}\n");
        }
        text(StatusCode::SERVICE_UNAVAILABLE, what)
    }

    fn metrics(&self) -> Response<Body> {
        match metrics::encode(Process::new(self.started), &self.registry) {
            Ok(body) => answer(StatusCode::OK, metrics::CONTENT_TYPE, body),
            Err(error) => {
                tracing::error!(%error, "encoding the metrics failed");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "encoding the metrics failed\n",
                )
            }
        }
    }

    fn status(&self) -> Response<Body> {
        let missing: serde_json::Map<_, _> = self
            .readiness
            .missing()
            .into_iter()
            .map(|(name, why)| (name.to_owned(), why.into()))
            .collect();
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ready": missing.is_empty(),
            "missing": missing,
        });
        if let (Some(all), serde_json::Value::Object(more)) =
            (status.as_object_mut(), (self.status)())
        {
            all.extend(more);
        }
        answer(StatusCode::OK, "application/json", format!("{status:#}\n"))
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

fn is_tcp(listener: &Listener) -> bool {
    matches!(listener.address(), Listen::Tcp(_))
}

/// Keeps browsers and proxies away from a loopback listener (S20): a page a developer has open can make
/// requests to 127.0.0.1, by its address (with `Origin`) or by a name of its own that resolves there
/// (with a foreign `Host`).
fn guard(headers: &HeaderMap) -> Result<(), &'static str> {
    if headers.contains_key(ORIGIN) {
        return Err("this is not for web pages: the request has an Origin");
    }
    if headers.contains_key("x-forwarded-for") || headers.contains_key("forwarded") {
        return Err("this is for local callers: the request was forwarded");
    }
    match headers.get(HOST).map(|host| host.to_str()) {
        Some(Ok(host)) if is_loopback(host) => Ok(()),
        _ => Err("expected the Host header to be a loopback address or localhost"),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn index(surface: Surface) -> &'static str {
    match surface {
        Surface::Probes => "here are /healthz, /readyz and /metrics\n",
        Surface::Full => "here are /healthz, /readyz, /metrics, /status and POST /drain\n",
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", body)
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<String>,
) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    struct Fixture {
        admin: Arc<Admin>,
        readiness: Readiness,
        drains: Arc<AtomicUsize>,
    }

    fn fixture() -> Fixture {
        let readiness = Readiness::default();
        let drains = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&drains);
        let admin = Arc::new(Admin {
            readiness: readiness.clone(),
            registry: metrics::registry(),
            started: SystemTime::now(),
            status: Arc::new(|| json!({"identity": {"spiffe_id": "spiffe://example.org/orders"}})),
            drain: Arc::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            }),
        });
        Fixture {
            admin,
            readiness,
            drains,
        }
    }

    async fn read(response: Response<Body>) -> (u16, String) {
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn not_ready_names_what_is_missing_and_why() {
        let fixture = fixture();
        let condition = fixture
            .readiness
            .condition("identity", "the authority refuses connections");
        let ask = || {
            fixture
                .admin
                .answer(Surface::Probes, &Method::GET, "/readyz")
        };
        let (status, body) = read(ask()).await;
        assert_eq!(status, 503);
        assert_eq!(
            body,
            "not ready\nidentity: the authority refuses connections\n"
        );
        condition.met();
        assert_eq!(read(ask()).await, (200, "ready\n".to_owned()));
    }

    #[tokio::test]
    async fn what_may_be_exposed_shows_neither_status_nor_drain() {
        let fixture = fixture();
        for (method, path) in [(Method::GET, "/status"), (Method::POST, "/drain")] {
            let response = fixture.admin.answer(Surface::Probes, &method, path);
            assert_eq!(response.status(), 404, "{path}");
        }
        assert_eq!(fixture.drains.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn status_joins_readiness_and_what_is_held() {
        let fixture = fixture();
        let (status, body) =
            read(fixture.admin.answer(Surface::Full, &Method::GET, "/status")).await;
        assert_eq!(status, 200);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["ready"], true);
        assert_eq!(body["identity"]["spiffe_id"], "spiffe://example.org/orders");
    }

    #[tokio::test]
    async fn a_drain_is_asked_for_with_post_only() {
        let fixture = fixture();
        let get = fixture.admin.answer(Surface::Full, &Method::GET, "/drain");
        assert_eq!(
            (get.status().as_u16(), &get.headers()[ALLOW]),
            (405, &"POST".parse().unwrap())
        );
        let post = fixture.admin.answer(Surface::Full, &Method::POST, "/drain");
        assert_eq!(post.status(), 202);
        assert_eq!(fixture.drains.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn metrics_are_open_metrics_text() {
        let fixture = fixture();
        let response = fixture
            .admin
            .answer(Surface::Probes, &Method::GET, "/metrics");
        assert_eq!(response.headers()[CONTENT_TYPE], metrics::CONTENT_TYPE);
        assert!(read(response).await.1.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn s20_the_guard_stands_before_admin_over_tcp_and_not_before_probes() {
        for (surface, path, expected) in [
            (Surface::Full, "/status", "HTTP/1.1 403"),
            (Surface::Probes, "/healthz", "HTTP/1.1 200"),
        ] {
            let any = Listen::Tcp("127.0.0.1:0".parse().unwrap());
            let listener = Listener::bind(&any).unwrap();
            let Listen::Tcp(address) = *listener.address() else {
                panic!()
            };
            let (drain, draining) = server::drain();
            let counted = server::Metrics::default().listener("admin");
            let serving = start(listener, surface, fixture().admin, counted, draining);
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: rebound.example\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!(std::str::from_utf8(&head).unwrap(), expected);
            drop(stream);
            drain.start(Duration::from_secs(5));
            assert_eq!(serving.await.unwrap(), 0);
        }
    }

    #[test]
    fn s20_a_loopback_listener_refuses_web_pages_proxies_and_foreign_names() {
        let with = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            guard(&headers).is_ok()
        };
        for host in ["127.0.0.1:4191", "localhost", "[::1]:4191"] {
            assert!(with(&[("host", host)]), "{host}");
        }
        assert!(!with(&[]));
        assert!(!with(&[("host", "rebound.example:4191")]));
        assert!(!with(&[("host", "127.0.0.1.evil.example")]));
        assert!(!with(&[
            ("host", "localhost"),
            ("origin", "https://evil.example")
        ]));
        assert!(!with(&[
            ("host", "localhost"),
            ("x-forwarded-for", "10.0.0.1")
        ]));
    }

    #[test]
    fn s14_no_connection_keeps_its_place_for_ever() {
        let age = limits().max_age.unwrap_or(Duration::MAX);
        assert!(age <= Duration::from_secs(300), "{age:?}");
    }
}

//! Documents from servers that are slow, wrong, too talkative, or somebody else.

use std::{future::pending, net::SocketAddr, sync::Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use warifu::jwt::jwks::Fetch;

use super::*;

mod jwks;

/// A server that answers each path with these bytes, and keeps the requests.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

type Respond = fn(&str, &str) -> Option<String>;

impl Server {
    /// `respond` maps the server's URL and a path to an answer; `None` hangs.
    async fn start(respond: Respond, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, tls) = (log.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, &format!("http://{address}"), respond, &log).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, &format!("https://{address}"), respond, &log).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    base: &str,
    respond: Respond,
    log: &Mutex<Vec<String>>,
) {
    let mut request = Vec::new();
    let whole = |request: &[u8]| match request.starts_with(b"POST") {
        true => request.ends_with(b"}"),
        false => request.ends_with(b"\r\n\r\n"),
    };
    while !whole(&request) {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    log.lock().unwrap().push(request);
    let Some(answer) = respond(base, &path) else {
        return pending().await;
    };
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn fetcher() -> Fetcher {
    Fetcher::web_pki().unwrap()
}

fn quick() -> Fetcher {
    fetcher().limited(Limits {
        connect: Duration::from_millis(500),
        total: Duration::from_millis(500),
        answer: 100,
    })
}

#[tokio::test]
async fn gets_a_document() {
    let server = Server::start(|_, path| Some(ok(path)), None).await;
    let url = server.url("/a?b=c");
    assert_eq!(fetcher().get(&url).await.unwrap(), "/a?b=c");
    let asked = server.asked().concat();
    let host = format!("host: {}", server.address);
    for header in [
        host.as_str(),
        "accept: application/json",
        "connection: close",
        "user-agent: warifu/",
    ] {
        assert!(asked.contains(header), "{header}: {asked}");
    }
}

#[tokio::test]
async fn posts_a_document_and_reads_whatever_status_comes() {
    let server = Server::start(
        |_, _| Some("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".to_owned()),
        None,
    )
    .await;
    let request = Request::post(server.url("/review"))
        .header("authorization", "Bearer x")
        .body(Bytes::from_static(b"{\"a\":1}"))
        .unwrap();
    let answer = fetcher().send(request).await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.body(), "no");
    let asked = server.asked().concat();
    assert!(asked.starts_with("POST /review HTTP/1.1\r\n"), "{asked}");
    assert!(asked.ends_with("\r\n\r\n{\"a\":1}"), "{asked}");
    assert!(asked.contains("content-length: 7\r\n"), "{asked}");
}

#[tokio::test]
async fn s19_a_redirect_is_an_error_and_not_followed() {
    let server = Server::start(
        |base, _| {
            Some(format!(
                "HTTP/1.1 302 Found\r\nlocation: {base}/else\r\n\r\n"
            ))
        },
        None,
    )
    .await;
    let error = fetcher()
        .get(&server.url("/a?secret=1"))
        .await
        .unwrap_err()
        .to_string();
    let url = server.url("/a");
    assert_eq!(
        error,
        format!("GET {url}: 302 Found (redirects are not followed)")
    );
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn s14_an_answer_beyond_the_limit_is_refused() {
    let server = Server::start(
        |_, path| {
            Some(match path {
                "/told" => ok(&"x".repeat(101)),
                "/untold" => format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101)),
                "/head" => format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD)),
                _ => ok(&"x".repeat(100)),
            })
        },
        None,
    )
    .await;
    assert_eq!(quick().get(&server.url("/")).await.unwrap().len(), 100);
    for path in ["/told", "/untold"] {
        let error = quick().get(&server.url(path)).await.unwrap_err();
        let FetchError::TooLong { limit: 100, .. } = error else {
            panic!("{path}: {error}")
        };
    }
    let error = quick().get(&server.url("/head")).await.unwrap_err();
    assert!(matches!(error, FetchError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_or_breaks_off_is_an_error_in_time() {
    let server = Server::start(
        |_, path| match path {
            "/silent" => None,
            "/cut" => Some("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx".to_owned()),
            _ => Some("SSH-2.0-OpenSSH\r\n".to_owned()),
        },
        None,
    )
    .await;
    let error = quick().get(&server.url("/silent")).await.unwrap_err();
    assert!(matches!(error, FetchError::TimedOut { .. }), "{error}");
    for path in ["/cut", "/not-http"] {
        let error = quick().get(&server.url(path)).await.unwrap_err();
        assert!(matches!(error, FetchError::Broken { .. }), "{error}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    let error = quick().get(&url).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn s19_plaintext_is_for_loopback_and_other_schemes_for_nobody() {
    // 192.0.2.0/24 is nobody's (RFC 5737): were it connected to, it would time out.
    let error = quick().get("http://192.0.2.1/").await.unwrap_err();
    assert!(matches!(error, FetchError::Plaintext { .. }), "{error}");
    for url in [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "/x",
        "",
        "https://u:p@h/",
    ] {
        let error = quick().get(url).await.unwrap_err();
        assert!(matches!(error, FetchError::Url { .. }), "{url}: {error}");
    }
}

#[tokio::test]
async fn s19_a_server_must_have_a_certificate_of_the_configured_ca() {
    let ca = ca();
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, ca: &CertifiedIssuer<'_, KeyPair>| {
        let path = files.path().join(name);
        fs::write(&path, ca.pem()).unwrap();
        path
    };
    let (ours, others) = (file("ours.pem", &ca), file("others.pem", &self::ca()));
    let server = Server::start(|_, path| Some(ok(path)), Some(acceptor(&ca))).await;
    let url = server.url("/x").replace("http://", "https://");

    let fetched = Fetcher::ca_file(ours).unwrap().get(&url).await;
    assert_eq!(fetched.unwrap(), "/x");
    for stranger in [Fetcher::ca_file(others).unwrap(), fetcher()] {
        let error = stranger.get(&url).await.unwrap_err();
        assert!(matches!(error, FetchError::Connect { .. }), "{error}");
    }
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_ca_file_that_holds_none_is_named() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("ca.pem");
    let why = || Fetcher::ca_file(&path).unwrap_err().to_string();
    assert!(why().contains("ca.pem\": No such file"), "{}", why());
    fs::write(&path, "nothing").unwrap();
    assert!(
        why().contains("ca.pem\": no certificate in it"),
        "{}",
        why()
    );
}

fn oidc(issuer: String) -> OidcKeys {
    OidcKeys::new(quick_for_documents(), issuer, None)
}

fn quick_for_documents() -> Fetcher {
    fetcher().limited(Limits {
        total: Duration::from_millis(500),
        ..Limits::default()
    })
}

#[tokio::test]
async fn an_issuers_keys_are_where_its_discovery_document_says() {
    let server = Server::start(
        |base, path| {
            Some(match path {
                "/tenant/.well-known/openid-configuration" => ok(&format!(
                    r#"{{"issuer":"{base}/tenant","jwks_uri":"{base}/keys?v=1","else":[]}}"#
                )),
                "/keys?v=1" => ok(r#"{"keys":[]}"#),
                _ => ok("not asked for"),
            })
        },
        None,
    )
    .await;
    let jwks = oidc(server.url("/tenant")).fetch().await.unwrap();
    assert_eq!(jwks, br#"{"keys":[]}"#);

    let configured = OidcKeys::new(
        fetcher(),
        "https://elsewhere",
        Some(server.url("/keys?v=1")),
    );
    assert_eq!(configured.fetch().await.unwrap(), br#"{"keys":[]}"#);
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn s10_a_discovery_document_of_another_issuer_or_of_none_is_refused() {
    let server = Server::start(
        |base, path| {
            let document = match path.split('/').nth(1).unwrap() {
                "other" => format!(r#"{{"issuer":"{base}","jwks_uri":"{base}/keys"}}"#),
                "slash" => format!(r#"{{"issuer":"{base}/slash/","jwks_uri":"{base}/keys"}}"#),
                "twice" => {
                    format!(r#"{{"issuer":"x","issuer":"{base}/twice","jwks_uri":"{base}/keys"}}"#)
                }
                "none" => r#"{"jwks_uri":"https://x"}"#.to_owned(),
                "html" => "<html>".to_owned(),
                _ => "{\"keys\":[]}".to_owned(),
            };
            Some(ok(&document))
        },
        None,
    )
    .await;
    for issuer in ["/other", "/slash", "/twice", "/none", "/html"] {
        let error = oidc(server.url(issuer)).fetch().await.unwrap_err();
        assert!(error.to_string().contains(issuer), "{error}");
    }
    assert_eq!(server.asked().len(), 5, "no keys were asked for");
}

#[tokio::test]
async fn s19_an_issuer_behind_tls_has_its_keys_behind_tls() {
    let ca = ca();
    let server = Server::start(
        |base, _| {
            let keys = base.replace("https://", "http://");
            Some(ok(&format!(
                r#"{{"issuer":"{base}","jwks_uri":"{keys}/keys"}}"#
            )))
        },
        Some(acceptor(&ca)),
    )
    .await;
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let fetcher = Fetcher::with_tls(origin::https_client(roots).unwrap());
    let issuer = server.url("").replace("http://", "https://");
    let error = OidcKeys::new(fetcher, issuer, None)
        .fetch()
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("is not an https:// URL"),
        "{error}"
    );
}

fn ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server for 127.0.0.1 with a certificate of this CA.
fn acceptor(ca: &CertifiedIssuer<'_, KeyPair>) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, ca)
        .unwrap();
    let tls = ServerConfig::builder_with_provider(warifu::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(tls))
}

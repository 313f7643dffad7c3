//! One connection for the one or two requests that a token takes; the next are minutes away. No redirects, no proxies.

use std::{
    fmt, io,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{HOST, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    version::{TLS12, TLS13},
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::TokenError;
use crate::tls;

/// To connect and shake hands: a SYN may be lost, and found lost after one second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For one answer. STS and the authority answer in well under a second; the authority asks STS meanwhile, for 5 s at most.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// Longest answer: a token of 8 KiB fits many times.
const MAX_ANSWER: usize = 64 * 1024;

/// Longest head of an answer. The servers asked send a few hundred bytes.
const MAX_HEAD: usize = 16 * 1024;

/// `https://host[:port]`; or `http://`, where that is loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    tls: bool,
    /// An IPv6 address without brackets.
    host: String,
    port: u16,
}

/// Why there was no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// No connection, or no answer in time: what failed.
    Unreachable(String),
    /// TLS: the other side did not prove what it should.
    Untrusted(String),
}

/// A connection.
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// `Retry-After`, in seconds.
    pub(super) retry_after: Option<Duration>,
}

impl Origin {
    pub(super) fn https(host: String) -> Self {
        Self {
            tls: true,
            host,
            port: 443,
        }
    }

    /// S19: what is signed with a role's keys goes over plain text to nobody but this machine.
    pub(super) fn parse(url: &str) -> Result<Self, TokenError> {
        let bad = || {
            TokenError::setting(format!(
                "{url:?} can't be asked; expected https://host[:port], or http:// on loopback"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let tls = uri.scheme_str() == Some("https");
        let is_plain = uri.scheme_str() == Some("http") && is_loopback(&host);
        let is_origin = uri.path() == "/" && uri.query().is_none();
        if host.is_empty()
            || authority.as_str().contains('@')
            || !is_origin
            || !(tls || is_plain)
            || authority.port().is_some_and(|it| it.as_str().is_empty())
        {
            return Err(bad());
        }
        let standard = if tls { 443 } else { 80 };
        Ok(Self {
            tls,
            host,
            port: authority.port_u16().unwrap_or(standard),
        })
    }

    pub(super) fn is_https(&self) -> bool {
        self.tls
    }

    /// As `Host` has it, and a signature.
    pub(super) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl Connection {
    /// Connects to `origin`; `config` says whom to trust there.
    pub(super) async fn open(origin: &Origin, config: Arc<ClientConfig>) -> Result<Self, Failed> {
        let connecting = async {
            let address = (origin.host.as_str(), origin.port);
            let tcp = TcpStream::connect(address).await.map_err(failed)?;
            // Small requests and answers in turn: waiting to fill a segment only adds delay.
            tcp.set_nodelay(true).map_err(failed)?;
            if !origin.tls {
                // A name may resolve to another machine.
                return match tcp.peer_addr().map_err(failed)?.ip().is_loopback() {
                    true => Ok(Box::new(tcp) as Box<dyn Io>),
                    false => Err(Failed::Unreachable("http:// is for loopback only".into())),
                };
            }
            let name = ServerName::try_from(origin.host.clone())
                .map_err(|_| Failed::Unreachable("not a host name".into()))?;
            let stream = TlsConnector::from(config).connect(name, tcp).await;
            Ok(Box::new(stream.map_err(failed)?) as Box<dyn Io>)
        };
        let stream = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| late("no connection", CONNECT_TIMEOUT))??;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with the sender, or when the other side closes; its error reaches the request under way.
        tokio::spawn(connection);
        let host = HeaderValue::try_from(origin.authority())
            .map_err(|_| Failed::Unreachable("its name can't be sent in a header".into()))?;
        Ok(Self { sender, host })
    }

    /// Posts `body` to `path`.
    pub(super) async fn post(
        &mut self,
        path: &'static str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failed> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(path);
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        let agent = concat!("warifu-client/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let exchange = async {
            self.sender.ready().await.map_err(broken)?;
            let answer = self.sender.send_request(request).await.map_err(broken)?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|why| Failed::Unreachable(format!("half an answer: {why}")))?;
            let retry_after = head.headers.get(RETRY_AFTER);
            let seconds = retry_after.and_then(|it| it.to_str().ok()?.parse().ok());
            Ok(Answer {
                status: head.status,
                body: body.to_bytes(),
                retry_after: seconds.map(Duration::from_secs),
            })
        };
        timeout(ANSWER_TIMEOUT, exchange)
            .await
            .map_err(|_| late("no answer", ANSWER_TIMEOUT))?
    }
}

/// Trusts the public roots compiled in: AWS's endpoints have certificates of theirs.
pub(super) fn public_roots() -> Result<Arc<ClientConfig>, TokenError> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|why| TokenError::setting(format!("TLS can't be set up: {why}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::clone(CONFIG.get_or_init(|| Arc::new(config))))
}

/// Whether a host is this machine, by its name.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|it| it.is_loopback())
}

fn failed(error: io::Error) -> Failed {
    let tls = error.get_ref().and_then(|it| it.downcast_ref());
    match tls {
        // rustls wraps what our verifier says in its own names of types.
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(why))) => {
            Failed::Untrusted(why.0.to_string())
        }
        Some(why @ rustls::Error::InvalidCertificate(_)) => Failed::Untrusted(why.to_string()),
        _ => Failed::Unreachable(error.to_string()),
    }
}

fn broken(error: hyper::Error) -> Failed {
    Failed::Unreachable(format!("the exchange broke off: {error}"))
}

fn late(what: &str, after: Duration) -> Failed {
    Failed::Unreachable(format!("{what} within {after:?}"))
}

/// A connected socket, with TLS or without.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s19_only_this_machine_is_asked_over_plain_text() {
        for (url, is) in [
            (
                "https://sts.eu-west-1.amazonaws.com",
                "https://sts.eu-west-1.amazonaws.com",
            ),
            ("https://vpce.example:8443/", "https://vpce.example:8443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("http://127.0.0.1:4566", "http://127.0.0.1:4566"),
            ("http://localhost:4566", "http://localhost:4566"),
            ("http://[::1]:4566", "http://[::1]:4566"),
        ] {
            assert_eq!(Origin::parse(url).unwrap().to_string(), is);
        }
        for bad in [
            "",
            "sts.eu-west-1.amazonaws.com",
            "http://sts.eu-west-1.amazonaws.com",
            "http://127.0.0.1.evil.example",
            "http://127.0.0.1@evil.example",
            "https://user@evil.example",
            "https://host/path",
            "https://host?query",
            "ftp://127.0.0.1",
        ] {
            let why = Origin::parse(bad).unwrap_err();
            assert!(why.is_refusal(), "{bad}");
        }
    }
}

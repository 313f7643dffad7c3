//! The AWS SDK's HTTP client over our own hyper and rustls, so that there is one stack in the process.
//!
//! One connection a request: the SDK calls STS or a metadata service a few times an hour, and a
//! connection kept that long would be dead when it is wanted.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aws_smithy_runtime_api::{
    client::{
        http::{
            HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings,
            SharedHttpConnector,
        },
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    shared::IntoShared,
};
use aws_smithy_types::body::SdkBody;
use http::{HeaderValue, Uri, header::HOST, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::CryptoProvider};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// STS and the metadata services answer in a few KiB; an answer beyond this is not one of theirs.
const MAX_ANSWER: usize = 1024 * 1024;

/// Where the SDK sets no time-out of its own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// As [`CONNECT_TIMEOUT`]: to the head of the answer.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Link-local addresses of the container credential services of ECS and EKS and of EC2's metadata
/// service: beside loopback the only ones spoken to in plaintext, because they have no TLS.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>
const METADATA_SERVICES: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The client. It trusts the public roots compiled in.
#[derive(Debug, Clone)]
pub(super) struct SdkHttpClient {
    tls: Arc<ClientConfig>,
}

impl SdkHttpClient {
    /// # Errors
    /// When the provider supports no TLS version.
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Result<Self, rustls::Error> {
        let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.resumption = Resumption::disabled();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls) })
    }
}

impl HttpClient for SdkHttpClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        Connector {
            tls: self.tls.clone(),
            connect_timeout: settings.connect_timeout().unwrap_or(CONNECT_TIMEOUT),
            read_timeout: settings.read_timeout().unwrap_or(READ_TIMEOUT),
        }
        .into_shared()
    }
}

#[derive(Debug, Clone)]
struct Connector {
    tls: Arc<ClientConfig>,
    connect_timeout: Duration,
    read_timeout: Duration,
}

/// Why the SDK's request was not answered.
#[derive(Debug, Error)]
enum CallError {
    #[error("the URL {0:?} has no host or a scheme that is neither http nor https")]
    Url(String),
    #[error(
        "plaintext to {0} is refused: http:// is for loopback and the metadata services of AWS only"
    )]
    Plaintext(String),
    #[error("no connection to {to} within {after:?}")]
    ConnectTimedOut { to: String, after: Duration },
    #[error("connecting to {to}: {why}")]
    Connect { to: String, why: io::Error },
    #[error("no answer from {to} within {after:?}")]
    ReadTimedOut { to: String, after: Duration },
    #[error("{to} broke the connection: {why}")]
    Broken { to: String, why: hyper::Error },
    #[error("the answer of {to} is not HTTP the SDK understands")]
    Answer { to: String },
}

impl From<CallError> for ConnectorError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Url(_) | CallError::Plaintext(_) => Self::user(error.into()),
            CallError::ConnectTimedOut { .. } | CallError::ReadTimedOut { .. } => {
                Self::timeout(error.into())
            }
            CallError::Connect { .. } | CallError::Broken { .. } => Self::io(error.into()),
            CallError::Answer { .. } => Self::other(error.into(), None),
        }
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move { Ok(connector.send(request).await?) })
    }
}

impl Connector {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, CallError> {
        let url = request.uri().to_owned();
        let mut request = request
            .try_into_http1x()
            .map_err(|_| CallError::Url(url.clone()))?;
        let origin = Origin::of(request.uri()).ok_or(CallError::Url(url))?;

        // hyper wants the origin form on a connection, and `host` from us. The SDK signed this one.
        let path = request
            .uri()
            .path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
        if !request.headers().contains_key(HOST) {
            request
                .headers_mut()
                .insert(HOST, origin.host_header.clone());
        }

        let stream = timeout(self.connect_timeout, self.connect(&origin))
            .await
            .map_err(|_| CallError::ConnectTimedOut {
                to: origin.name(),
                after: self.connect_timeout,
            })??;
        exchange(&origin, stream, request, self.read_timeout).await
    }

    async fn connect(&self, origin: &Origin) -> Result<Box<dyn Stream>, CallError> {
        let tcp = origin.connect().await?;
        if !origin.tls {
            return Ok(Box::new(tcp));
        }
        let tls = TlsConnector::from(self.tls.clone())
            .connect(origin.server_name.clone(), tcp)
            .await
            .map_err(|why| origin.failed_to_connect(why))?;
        Ok(Box::new(tls))
    }
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Where a request goes.
#[derive(Debug, Clone)]
struct Origin {
    tls: bool,
    host: String,
    port: u16,
    host_header: HeaderValue,
    server_name: ServerName<'static>,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri
            .host()?
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let default_port = if tls { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        // A default port is left out, as the SDK left it out when it signed.
        let host_header = if port == default_port {
            uri.host()?
        } else {
            uri.authority()?.as_str()
        };
        Some(Self {
            tls,
            port,
            host_header: HeaderValue::from_str(host_header).ok()?,
            server_name: ServerName::try_from(host.clone()).ok()?,
            host,
        })
    }

    fn name(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!(
            "{scheme}://{}",
            self.host_header.to_str().unwrap_or_default()
        )
    }

    fn failed_to_connect(&self, why: io::Error) -> CallError {
        CallError::Connect {
            to: self.name(),
            why,
        }
    }

    async fn connect(&self) -> Result<TcpStream, CallError> {
        let addresses: Vec<SocketAddr> = lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|why| self.failed_to_connect(why))?
            .collect();
        // What is checked is what is connected to: the name is not resolved again.
        if !self.tls && !addresses.iter().all(|a| may_be_plaintext(a.ip())) {
            return Err(CallError::Plaintext(self.name()));
        }
        let tcp = TcpStream::connect(addresses.as_slice())
            .await
            .map_err(|why| self.failed_to_connect(why))?;
        let _ = tcp.set_nodelay(true);
        Ok(tcp)
    }
}

fn may_be_plaintext(address: IpAddr) -> bool {
    address.is_loopback() || METADATA_SERVICES.contains(&address)
}

/// Sends the request and reads the head of the answer; the SDK reads the body under its own limits.
async fn exchange(
    origin: &Origin,
    stream: Box<dyn Stream>,
    request: http::Request<SdkBody>,
    read_timeout: Duration,
) -> Result<HttpResponse, CallError> {
    let broken = |why| CallError::Broken {
        to: origin.name(),
        why,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with the response body, or when the SDK drops it.
    tokio::spawn(connection);
    let answer = timeout(read_timeout, sender.send_request(request))
        .await
        .map_err(|_| CallError::ReadTimedOut {
            to: origin.name(),
            after: read_timeout,
        })?
        .map_err(broken)?;
    let answer = answer.map(|body| {
        // The sender must live as long as the body, or the connection closes under it.
        let body = body.map_frame(move |frame| {
            let _ = &sender;
            frame
        });
        SdkBody::from_body_1_x(Limited::new(body, MAX_ANSWER))
    });
    HttpResponse::try_from(answer).map_err(|_| CallError::Answer { to: origin.name() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s19_plaintext_is_for_loopback_and_the_metadata_services_only() {
        for allowed in [
            "127.0.0.1",
            "::1",
            "169.254.170.2",
            "169.254.170.23",
            "169.254.169.254",
            "fd00:ec2::23",
            "fd00:ec2::254",
        ] {
            assert!(may_be_plaintext(allowed.parse().unwrap()), "{allowed}");
        }
        for refused in ["10.0.0.1", "169.254.1.1", "54.239.28.85", "fd00:ec2::24"] {
            assert!(!may_be_plaintext(refused.parse().unwrap()), "{refused}");
        }
    }

    #[test]
    fn leaves_a_default_port_out_of_the_host_header_and_keeps_another() {
        let host = |url: &'static str| {
            let origin = Origin::of(&Uri::from_static(url)).unwrap();
            (origin.host_header.to_str().unwrap().to_owned(), origin.port)
        };
        assert_eq!(
            host("https://sts.eu-west-1.amazonaws.com:443/"),
            ("sts.eu-west-1.amazonaws.com".to_owned(), 443)
        );
        assert_eq!(
            host("http://127.0.0.1:8000/x"),
            ("127.0.0.1:8000".to_owned(), 8000)
        );
        assert_eq!(
            host("http://[fd00:ec2::23]/v1"),
            ("[fd00:ec2::23]".to_owned(), 80)
        );
        assert!(Origin::of(&Uri::from_static("ftp://x/")).is_none());
    }
}

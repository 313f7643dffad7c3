//! The AWS SDK's HTTP client over our own hyper and rustls, so that there is one stack in the process.
//!
//! HTTP/1.1, one request at a time on a connection, which is kept for a few seconds.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
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
use http::{Uri, header::HOST, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::time::timeout;

use crate::http::origin::{self, ConnectError, Origin};

mod idle;

use idle::Idle;

/// DynamoDB answers with 400 KB at most, all others with a few KiB; an answer beyond this is not one of theirs.
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
    idle: Idle,
}

impl SdkHttpClient {
    /// # Errors
    /// When the provider supports no TLS version.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let tls = origin::https_client(origin::web_pki())?;
        Ok(Self {
            tls: Arc::new(tls),
            idle: Idle::default(),
        })
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
            idle: self.idle.clone(),
            connect_timeout: settings.connect_timeout().unwrap_or(CONNECT_TIMEOUT),
            read_timeout: settings.read_timeout().unwrap_or(READ_TIMEOUT),
        }
        .into_shared()
    }
}

#[derive(Debug, Clone)]
struct Connector {
    tls: Arc<ClientConfig>,
    idle: Idle,
    connect_timeout: Duration,
    read_timeout: Duration,
}

/// Why the SDK's request was not answered.
#[derive(Debug, Error)]
enum CallError {
    #[error("the URL {0:?} has no host or a scheme that is neither http nor https")]
    Url(String),
    #[error("{0}; http:// is for loopback and the metadata services of AWS only")]
    Plaintext(ConnectError),
    #[error("no connection to {to} within {after:?}")]
    ConnectTimedOut { to: String, after: Duration },
    #[error(transparent)]
    Connect(ConnectError),
    #[error("no answer from {to} within {after:?}")]
    ReadTimedOut { to: String, after: Duration },
    #[error("{to} broke the connection: {why}")]
    Broken { to: String, why: hyper::Error },
    #[error("the answer of {to} is not HTTP the SDK understands")]
    Answer { to: String },
}

impl From<ConnectError> for CallError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Plaintext { .. } => Self::Plaintext(error),
            ConnectError::Failed { .. } => Self::Connect(error),
        }
    }
}

impl From<CallError> for ConnectorError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Url(_) | CallError::Plaintext(_) => Self::user(error.into()),
            CallError::ConnectTimedOut { .. } | CallError::ReadTimedOut { .. } => {
                Self::timeout(error.into())
            }
            CallError::Connect(_) | CallError::Broken { .. } => Self::io(error.into()),
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
                .insert(HOST, origin.host_header().clone());
        }

        if let Some(sender) = self.idle.take(&origin.name()) {
            match self.exchange(&origin, sender, request).await {
                // It was closed a moment ago, and the request is as it was.
                Err((Some(unsent), _)) => request = unsent,
                Err((None, why)) => return Err(why),
                Ok(answer) => return Ok(answer),
            }
        }
        let sender = timeout(self.connect_timeout, self.connect(&origin))
            .await
            .map_err(|_| CallError::ConnectTimedOut {
                to: origin.name(),
                after: self.connect_timeout,
            })??;
        let answer = self.exchange(&origin, sender, request).await;
        answer.map_err(|(_, why)| why)
    }

    async fn connect(&self, origin: &Origin) -> Result<SendRequest<SdkBody>, CallError> {
        let stream = origin.connect(&self.tls, may_be_plaintext).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|why| broken(origin, why))?;
        // Ends with the last sender.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Sends the request and reads the head of the answer; the SDK reads the body under its own limits.
    async fn exchange(
        &self,
        origin: &Origin,
        mut sender: SendRequest<SdkBody>,
        request: http::Request<SdkBody>,
    ) -> Result<HttpResponse, (Option<http::Request<SdkBody>>, CallError)> {
        let answer = timeout(self.read_timeout, sender.try_send_request(request))
            .await
            .map_err(|_| {
                let timed_out = CallError::ReadTimedOut {
                    to: origin.name(),
                    after: self.read_timeout,
                };
                (None, timed_out)
            })?
            .map_err(|mut why| (why.take_message(), broken(origin, why.into_error())))?;
        // It lives as long as the body, or the connection would close under it.
        let lease = self.idle.lease(origin.name(), sender);
        let answer = answer.map(|body| {
            let body = body.map_frame(move |frame| {
                let _ = &lease;
                frame
            });
            SdkBody::from_body_1_x(Limited::new(body, MAX_ANSWER))
        });
        let not_http = |_| (None, CallError::Answer { to: origin.name() });
        HttpResponse::try_from(answer).map_err(not_http)
    }
}

fn broken(origin: &Origin, why: hyper::Error) -> CallError {
    CallError::Broken {
        to: origin.name(),
        why,
    }
}

fn may_be_plaintext(address: IpAddr) -> bool {
    address.is_loopback() || METADATA_SERVICES.contains(&address)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    /// A server that counts its connections, and closes each after so many answers.
    async fn server(answer: &'static str, answers: usize) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, answer, answers));
            }
        });
        (url, connections)
    }

    async fn serve(mut stream: TcpStream, answer: &str, answers: usize) -> std::io::Result<()> {
        for _ in 0..answers {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            stream.write_all(answer.as_bytes()).await?;
        }
        Ok(())
    }

    fn connector() -> Connector {
        let client = SdkHttpClient::new().unwrap();
        Connector {
            tls: client.tls,
            idle: client.idle,
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout: READ_TIMEOUT,
        }
    }

    async fn get(connector: &Connector, url: &str) -> HttpResponse {
        let request = http::Request::get(url).body(SdkBody::empty()).unwrap();
        connector.send(request.try_into().unwrap()).await.unwrap()
    }

    async fn read(answer: HttpResponse) {
        let body = answer.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "ok");
        // The connection's own task sees that it is free.
        tokio::task::yield_now().await;
    }

    #[tokio::test]
    async fn a_connection_serves_one_request_after_the_other() {
        let (url, connections) = server(OK, usize::MAX).await;
        let connector = connector();
        for _ in 0..5 {
            read(get(&connector, &url).await).await;
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1);
        let (one, other) = tokio::join!(get(&connector, &url), get(&connector, &url));
        read(one).await;
        read(other).await;
        assert_eq!(connections.load(Ordering::SeqCst), 2);
        tokio::time::pause();
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(format!("{:?}", connector.idle), "0 idle connections");
    }

    #[tokio::test]
    async fn a_connection_that_the_server_closed_fails_no_request() {
        let (url, connections) = server(OK, 1).await;
        let connector = connector();
        for _ in 0..20 {
            read(get(&connector, &url).await).await;
        }
        assert_eq!(connections.load(Ordering::SeqCst), 20);
    }

    #[tokio::test]
    async fn a_connection_whose_answer_has_not_all_come_is_not_used_again() {
        let half = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok";
        let (url, connections) = server(half, usize::MAX).await;
        let connector = connector();
        for sent in 1..=3 {
            drop(get(&connector, &url).await);
            tokio::task::yield_now().await;
            assert_eq!(connections.load(Ordering::SeqCst), sent);
        }
    }

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
}

//! The AWS SDK's HTTP client over our own hyper and rustls, so that there is one stack in the process.
//!
//! One connection a request: the SDK calls STS or a metadata service a few times an hour, and a
//! connection kept that long would be dead when it is wanted.

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
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::time::timeout;

use crate::http::origin::{self, ConnectError, Origin, Stream};

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
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let tls = origin::https_client(origin::web_pki())?;
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

        let connecting = origin.connect(&self.tls, may_be_plaintext);
        let stream = timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| CallError::ConnectTimedOut {
                to: origin.name(),
                after: self.connect_timeout,
            })??;
        exchange(&origin, stream, request, self.read_timeout).await
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
}

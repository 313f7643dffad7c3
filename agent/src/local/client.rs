//! A client of the SPIFFE Workload API, for the commands: over this process's own HTTP/2, asked once, patient while
//! the agent starts.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use http::{Request, Response, Uri};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep_until, timeout_at},
};
use tonic::{Code, Status, body::Body};
use tower_service::Service;
use warifu::{
    Secret, SpiffeId,
    identity::{DEFAULT_REFRESH_HINT, TrustBundle, X509Svid},
    jwt::KeySet,
};

use super::{
    files::Content,
    proto::workload::{
        JwtsvidRequest, X509svid, X509svidRequest, X509svidResponse,
        spiffe_workload_api_client::SpiffeWorkloadApiClient,
    },
};

/// The variable that says where the Workload API is (SPIFFE Workload Endpoint §4).
pub const ENDPOINT_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Of every request (SPIFFE Workload Endpoint §6): a browser that was tricked can't set it.
const HEADER: &str = "workload.spiffe.io";

type Api = SpiffeWorkloadApiClient<Channel>;

/// Where the Workload API is: `unix:/path`, `unix:///path` or `tcp://IP:PORT` (SPIFFE Workload Endpoint §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

/// An X.509-SVID as the Workload API gave it.
#[derive(Debug)]
pub struct Issued {
    /// Whose it is.
    pub id: SpiffeId,
    /// When it expires.
    pub not_after: SystemTime,
    /// As files hold it.
    pub content: Content,
}

/// Why there was no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there.
    #[error("nobody answers at {endpoint}: {why}")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// What the system said.
        why: String,
    },
    /// This process may not ask, or the workload may not have what was asked for.
    #[error("{endpoint} refused: {why}")]
    Refused {
        /// Where.
        endpoint: Endpoint,
        /// Its reason.
        why: String,
    },
    /// It is not able to yet.
    #[error("{endpoint} has nothing to give yet: {why}")]
    Unavailable {
        /// Where.
        endpoint: Endpoint,
        /// Its reason.
        why: String,
    },
    /// Its answer makes no sense.
    #[error("what {endpoint} answered can't be used: {why}")]
    Broken {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong with it.
        why: String,
    },
}

impl ClientError {
    /// Whether it may pass by itself.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Unavailable { .. })
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected unix:/path or tcp://IP:PORT, found {text}");
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///path` is the same: an authority that is empty.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(wrong()),
            };
        }
        let address = text.strip_prefix("tcp://").and_then(|it| it.parse().ok());
        address.map(Self::Tcp).ok_or_else(wrong)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The X.509-SVID of this process: that of `spiffe_id`, or the first where it has several; waited for at most
/// `patience`.
///
/// # Errors
/// See [`ClientError`].
pub async fn fetch_x509(
    endpoint: &Endpoint,
    spiffe_id: Option<&SpiffeId>,
    patience: Duration,
) -> Result<Issued, ClientError> {
    patiently(endpoint, patience, async |mut api: Api| {
        let answers = api.fetch_x509svid(request(X509svidRequest {})).await?;
        let first = answers.into_inner().message().await?;
        first.ok_or_else(|| Status::unavailable("the stream ended before its first message"))
    })
    .await
    .and_then(|answer| {
        let svid = chosen(answer, spiffe_id).map_err(|why| ClientError::Refused {
            endpoint: endpoint.clone(),
            why,
        })?;
        issued(svid).map_err(|why| ClientError::Broken {
            endpoint: endpoint.clone(),
            why,
        })
    })
}

/// A JWT-SVID of this process for `audience`: that of `spiffe_id`, or the first where it has several; waited for at
/// most `patience`.
///
/// # Errors
/// See [`ClientError`].
pub async fn fetch_jwt(
    endpoint: &Endpoint,
    audience: &str,
    spiffe_id: Option<&SpiffeId>,
    patience: Duration,
) -> Result<Secret<String>, ClientError> {
    let answer = patiently(endpoint, patience, async |mut api: Api| {
        let asked = JwtsvidRequest {
            audience: vec![audience.to_owned()],
            spiffe_id: spiffe_id.map(SpiffeId::to_string).unwrap_or_default(),
        };
        Ok(api.fetch_jwtsvid(request(asked)).await?.into_inner())
    });
    let first = answer.await?.svids.into_iter().next();
    let first = first.ok_or_else(|| ClientError::Broken {
        endpoint: endpoint.clone(),
        why: "it holds no JWT-SVID".to_owned(),
    })?;
    Ok(Secret::new(first.svid))
}

/// Asks until there is an answer, a decision, or no patience left.
async fn patiently<T>(
    endpoint: &Endpoint,
    patience: Duration,
    ask: impl AsyncFn(Api) -> Result<T, Status>,
) -> Result<T, ClientError> {
    let until = Instant::now() + patience;
    let mut last = ClientError::Unavailable {
        endpoint: endpoint.clone(),
        why: "no answer in time".to_owned(),
    };
    loop {
        let attempt = async {
            let api = connect(endpoint)
                .await
                .map_err(|why| ClientError::Connect {
                    endpoint: endpoint.clone(),
                    why: why.to_string(),
                })?;
            ask(api).await.map_err(|status| judged(endpoint, &status))
        };
        match timeout_at(until, attempt).await {
            Ok(Err(why)) if why.may_pass() => last = why,
            Ok(done) => return done,
            Err(_) => return Err(last),
        }
        if Instant::now() + PAUSE >= until {
            return Err(last);
        }
        sleep_until(Instant::now() + PAUSE).await;
    }
}

fn judged(endpoint: &Endpoint, status: &Status) -> ClientError {
    let endpoint = endpoint.clone();
    let why = match status.message() {
        "" => format!("{:?}", status.code()),
        said => said.to_owned(),
    };
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => ClientError::Refused { endpoint, why },
        Code::InvalidArgument | Code::Unimplemented | Code::OutOfRange => {
            ClientError::Broken { endpoint, why }
        }
        _ => ClientError::Unavailable { endpoint, why },
    }
}

fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert(HEADER, tonic::metadata::MetadataValue::from_static("true"));
    request
}

/// Of what this process has, the one it asked for.
fn chosen(answer: X509svidResponse, asked: Option<&SpiffeId>) -> Result<X509svid, String> {
    let Some(asked) = asked.map(SpiffeId::to_string) else {
        let first = answer.svids.into_iter().next();
        return first.ok_or_else(|| "it holds no X.509-SVID".to_owned());
    };
    let held: Vec<String> = answer.svids.iter().map(|it| it.spiffe_id.clone()).collect();
    let mut svids = answer.svids.into_iter();
    svids
        .find(|svid| svid.spiffe_id == asked)
        .ok_or_else(|| format!("this workload is not {asked}; it is {}", held.join(" and ")))
}

fn issued(svid: X509svid) -> Result<Issued, String> {
    let X509svid {
        spiffe_id,
        x509_svid,
        x509_svid_key,
        bundle,
        ..
    } = svid;
    let key = PrivatePkcs8KeyDer::from(x509_svid_key.to_vec());
    let svid = X509Svid::new(certificates(&x509_svid)?, key).map_err(|why| why.to_string())?;
    if svid.id().to_string() != spiffe_id {
        return Err(format!("it calls {} {spiffe_id}", svid.id()));
    }
    let bundle = TrustBundle {
        trust_domain: svid.id().trust_domain().clone(),
        x509_authorities: certificates(&bundle)?,
        jwt_authorities: KeySet::default(),
        sequence: 0,
        refresh_hint: DEFAULT_REFRESH_HINT,
    };
    Ok(Issued {
        id: svid.id().clone(),
        not_after: svid.not_after(),
        content: Content::new(&svid, &bundle),
    })
}

/// DER, one certificate after the other.
fn certificates(mut der: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut certificates = Vec::new();
    while !der.is_empty() {
        let (rest, _) = x509_parser::parse_x509_certificate(der)
            .map_err(|why| format!("a certificate in it can't be read: {why}"))?;
        let (first, _) = der
            .split_at_checked(der.len() - rest.len())
            .ok_or("a certificate in it can't be read")?;
        certificates.push(CertificateDer::from(first.to_vec()));
        der = rest;
    }
    Ok(certificates)
}

async fn connect(endpoint: &Endpoint) -> io::Result<Api> {
    let channel = match endpoint {
        Endpoint::Unix(path) => Channel::over(UnixStream::connect(path).await?).await,
        Endpoint::Tcp(address) => Channel::over(TcpStream::connect(address).await?).await,
    };
    let origin = match endpoint {
        Endpoint::Unix(_) => Uri::from_static("http://localhost"),
        // Over TCP the agent serves what is meant for its own address alone.
        Endpoint::Tcp(address) => format!("http://{address}")
            .parse()
            .map_err(io::Error::other)?,
    };
    Ok(Api::with_origin(channel.map_err(io::Error::other)?, origin))
}

/// One HTTP/2 connection.
struct Channel(http2::SendRequest<Body>);

impl Channel {
    async fn over<S>(stream: S) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        // It ends with the sender.
        tokio::spawn(connection);
        Ok(Self(sender))
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[cfg(test)]
mod tests;

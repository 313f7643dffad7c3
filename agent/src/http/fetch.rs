//! Fetching documents: key sets, discovery documents, bundles, answers of an API. One connection a
//! request, because the next one is minutes away. No redirects, no proxies, no cookies, no compression.

use std::{fs, io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
    uri::PathAndQuery,
};
use http_body::Body as _;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;
use tokio::time::timeout;

use super::origin::{self, ConnectError, Origin};

mod alb;
mod oidc;

pub use alb::AlbKeys;
pub use oidc::OidcKeys;

/// Longest answer: that of the largest key set or bundle we read.
pub const MAX_ANSWER: usize = 1024 * 1024;

/// Longest head of an answer. The servers asked send a few hundred bytes.
const MAX_HEAD: usize = 64 * 1024;

/// To connect and shake hands: a SYN may be lost, and found lost after one second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For the whole of it: a document of a megabyte over a poor line. Whoever waits for it has less patience.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A client for documents. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    tls: Arc<ClientConfig>,
    limits: Limits,
}

/// What one request may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To connect, with the TLS handshake.
    pub connect: Duration,
    /// For the whole request.
    pub total: Duration,
    /// Bytes of the answer's body.
    pub answer: usize,
}

/// Why a [`Fetcher`] could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetcherError {
    /// The file of CAs can't be read.
    #[error("the CA file {path:?}: {why}; expected a readable PEM file of CA certificates")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What failed.
        why: String,
    },
    /// rustls refused the configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a document was not fetched. The URL is named without its query.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The URL is none we can fetch.
    #[error("{url:?} is no http:// or https:// URL with a host and without a user")]
    Url {
        /// The URL.
        url: String,
    },
    /// `http://` to another machine.
    #[error(
        "{method} {url}: http:// is for loopback only, and its address is {address}; use https://"
    )]
    Plaintext {
        /// The method.
        method: Method,
        /// The URL.
        url: String,
        /// What its name resolves to.
        address: IpAddr,
    },
    /// No connection: the name, the network, or the TLS handshake.
    #[error("{method} {url}: no connection: {why}")]
    Connect {
        /// The method.
        method: Method,
        /// The URL.
        url: String,
        /// What failed.
        why: io::Error,
    },
    /// Not within the time allowed.
    #[error("{method} {url}: {what} within {after:?}")]
    TimedOut {
        /// The method.
        method: Method,
        /// The URL.
        url: String,
        /// What there was not.
        what: &'static str,
        /// The time allowed.
        after: Duration,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("{method} {url}: the exchange broke off: {why}")]
    Broken {
        /// The method.
        method: Method,
        /// The URL.
        url: String,
        /// What failed.
        why: String,
    },
    /// The answer is longer than allowed.
    #[error("{method} {url}: the answer is longer than {limit} bytes")]
    TooLong {
        /// The method.
        method: Method,
        /// The URL.
        url: String,
        /// The bytes allowed.
        limit: usize,
    },
    /// The answer is not 200.
    #[error("{method} {url}: {status}{}", if status.is_redirection() { " (redirects are not followed)" } else { "" })]
    Status {
        /// The method.
        method: Method,
        /// The URL.
        url: String,
        /// The answer.
        status: StatusCode,
    },
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: CONNECT_TIMEOUT,
            total: TOTAL_TIMEOUT,
            answer: MAX_ANSWER,
        }
    }
}

impl Fetcher {
    /// Trusts the public roots compiled in.
    ///
    /// # Errors
    /// [`FetcherError::Tls`].
    pub fn web_pki() -> Result<Self, FetcherError> {
        Ok(Self::with_tls(origin::https_client(origin::web_pki())?))
    }

    /// Trusts the CAs of a PEM file, and no others.
    ///
    /// # Errors
    /// [`FetcherError`].
    pub fn ca_file(path: impl Into<PathBuf>) -> Result<Self, FetcherError> {
        let path = path.into();
        let roots = read_roots(&path).map_err(|why| FetcherError::CaFile { path, why })?;
        Ok(Self::with_tls(origin::https_client(roots)?))
    }

    /// [`ca_file`](Self::ca_file) where there is one, else [`web_pki`](Self::web_pki).
    ///
    /// # Errors
    /// [`FetcherError`].
    pub fn new(ca_file: Option<PathBuf>) -> Result<Self, FetcherError> {
        ca_file.map_or_else(Self::web_pki, Self::ca_file)
    }

    /// Trusts whom this configuration trusts.
    pub fn with_tls(tls: ClientConfig) -> Self {
        Self {
            tls: Arc::new(origin::for_http1(tls)),
            limits: Limits::default(),
        }
    }

    /// The same, presenting a client certificate to whoever asks for one.
    #[must_use]
    pub fn presenting(&self, certified: Arc<CertifiedKey>) -> Self {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        Self {
            tls: Arc::new(tls),
            limits: self.limits,
        }
    }

    /// The same with other limits.
    #[must_use]
    pub fn limited(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The body of a 200 answer to a GET.
    ///
    /// # Errors
    /// [`FetchError`]; every other status is [`FetchError::Status`].
    pub async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let bad = |_| FetchError::Url {
            url: url.to_owned(),
        };
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = url.parse().map_err(bad)?;
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static("application/json"));
        let asked = Asked::of(&request);
        let answer = self.send(request).await?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status => Err(asked.status(status)),
        }
    }

    /// The answer to a request whose URL is absolute, whatever its status. `Host`, `User-Agent` (where
    /// there is none) and `Connection` are added.
    ///
    /// # Errors
    /// [`FetchError`], but never [`FetchError::Status`].
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, FetchError> {
        let asked = Asked::of(&request);
        timeout(self.limits.total, self.exchange(request, &asked))
            .await
            .map_err(|_| asked.timed_out("no whole answer", self.limits.total))?
    }

    async fn exchange(
        &self,
        mut request: Request<Bytes>,
        asked: &Asked,
    ) -> Result<Response<Bytes>, FetchError> {
        let origin = Origin::of(request.uri()).ok_or_else(|| FetchError::Url {
            url: asked.url.clone(),
        })?;
        // hyper wants the origin form on a connection, and `host` from us.
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
        let headers = request.headers_mut();
        // One that is signed is for a name of its own, wherever it is sent.
        headers
            .entry(HOST)
            .or_insert_with(|| origin.host_header().clone());
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!(
                "warifu/",
                env!("CARGO_PKG_VERSION")
            )));

        let connecting = origin.connect(&self.tls, |address| address.is_loopback());
        let stream = timeout(self.limits.connect, connecting)
            .await
            .map_err(|_| asked.timed_out("no connection", self.limits.connect))?
            .map_err(|why| asked.not_connected(why))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|why| asked.broken(&why))?;
        let exchange = async {
            let answer = sender.send_request(request.map(Full::new)).await;
            let (head, body) = answer.map_err(|why| asked.broken(&why))?.into_parts();
            if body.size_hint().lower() > self.limits.answer as u64 {
                return Err(asked.too_long(self.limits.answer));
            }
            let body = Limited::new(body, self.limits.answer).collect().await;
            let body = body.map_err(|why| match why.downcast_ref::<LengthLimitError>() {
                Some(_) => asked.too_long(self.limits.answer),
                None => asked.broken(&*why),
            })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        // Driven here and not in a task of its own: it ends with the request, also when that is dropped.
        drive(connection, exchange).await
    }
}

/// Runs the exchange on its connection; the connection alone ends nothing.
async fn drive<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    tokio::pin!(connection, exchange);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            outcome = &mut exchange => return outcome,
            _ = &mut connection, if open => open = false,
        }
    }
}

fn read_roots(path: &PathBuf) -> Result<RootCertStore, String> {
    let pem = fs::read(path).map_err(|why| why.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|why| why.to_string())?;
        roots.add(certificate).map_err(|why| why.to_string())?;
    }
    if roots.is_empty() {
        return Err("no certificate in it".to_owned());
    }
    Ok(roots)
}

/// What errors say was being done.
struct Asked {
    method: Method,
    url: String,
}

impl Asked {
    fn of(request: &Request<Bytes>) -> Self {
        let uri = request.uri();
        let text = uri.to_string();
        // A query may hold what belongs in no log.
        let url = text.split('?').next().unwrap_or_default().to_owned();
        Self {
            method: request.method().clone(),
            url,
        }
    }

    fn timed_out(&self, what: &'static str, after: Duration) -> FetchError {
        FetchError::TimedOut {
            method: self.method.clone(),
            url: self.url.clone(),
            what,
            after,
        }
    }

    fn not_connected(&self, why: ConnectError) -> FetchError {
        let (method, url) = (self.method.clone(), self.url.clone());
        match why {
            ConnectError::Plaintext { address, .. } => FetchError::Plaintext {
                method,
                url,
                address,
            },
            ConnectError::Failed { why, .. } => FetchError::Connect { method, url, why },
        }
    }

    fn broken(&self, why: &(dyn std::error::Error + 'static)) -> FetchError {
        FetchError::Broken {
            method: self.method.clone(),
            url: self.url.clone(),
            why: why.to_string(),
        }
    }

    fn too_long(&self, limit: usize) -> FetchError {
        FetchError::TooLong {
            method: self.method.clone(),
            url: self.url.clone(),
            limit,
        }
    }

    fn status(&self, status: StatusCode) -> FetchError {
        FetchError::Status {
            method: self.method.clone(),
            url: self.url.clone(),
            status,
        }
    }
}

#[cfg(test)]
mod tests;

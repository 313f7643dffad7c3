//! Call a service by name through the agent.
//!
//! ```text
//!  Client ──http──▶ agent's outbound listener ══ mTLS, token or SigV4, as the route says ══▶ service
//! ```
//!
//! The URL names the service as the agent's route does, always with `http://`: the agent adds TLS
//! and credentials, so the app holds neither. Redirects are returned, not followed.

use std::{env, ffi::OsString, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use tokio::time::{Instant, timeout_at};

mod address;
mod body;
mod error;
mod request;
mod response;
mod transport;

pub use body::ResponseBody;
pub use error::{BoxError, ClientError};
pub use request::RequestBuilder;
pub use response::Response;

use address::AgentAddress;
use body::RequestBody;
use error::Exchange;
use transport::{Protocol, Transport};

/// The environment variable that names the agent's outbound listener.
pub const OUTBOUND_VARIABLE: &str = "WARIFU_OUTBOUND";

/// Where the agent's outbound listener is, unless [`OUTBOUND_VARIABLE`] says otherwise.
pub const DEFAULT_OUTBOUND: &str = "unix:/run/warifu/outbound.sock";

/// Set by the agent on answers it made itself; its value says why in a word (`no-route`, …).
/// For people to read: a peer's answer could carry it too, so decide nothing by it.
pub const REASON_HEADER: &str = "x-warifu-reason";

/// What HTTP/1.1 says with `connection: close`, said by agents over HTTP/2 before they close a
/// connection: open another for the next request. GOAWAY follows, and would alone not be enough: a
/// request that was being sent while it arrived is lost, and few requests may be sent twice.
pub const CONNECTION_HEADER: &str = "x-warifu-connection";

/// Time for a whole exchange. Above the 30 s the agent waits for an upstream, so that the agent's
/// answer, which knows what went wrong, comes before our own time-out.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(35);

/// In place of a time-out too long for the clock: thirty years.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Most that [`Response::bytes`] and [`Response::json`] hold in memory. The answers services give
/// each other are smaller; larger ones are better streamed.
pub const DEFAULT_RESPONSE_LIMIT: usize = 8 * 1024 * 1024;

/// Sends requests to the agent's outbound listener. Cheap to clone; clones share connections.
///
/// Speaks HTTP/1.1 over kept connections, or HTTP/2 over a single one after [`Client::http2`].
/// At most 256 requests are under way at once, an answer counting until its body is read or dropped;
/// more wait for their turn, within their time-out.
///
/// Must be used inside a tokio runtime with its I/O and time drivers on.
///
/// ```no_run
/// # async fn call() -> Result<(), warifu::client::ClientError> {
/// let client = warifu::Client::from_env()?;
/// let charges: Vec<String> = client.get("http://payments/charges").send().await?.json().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    transport: Arc<Transport>,
    timeout: Duration,
    response_limit: usize,
}

impl Client {
    /// The agent that [`OUTBOUND_VARIABLE`] names, or the one at [`DEFAULT_OUTBOUND`]. Connects to
    /// nothing yet.
    ///
    /// # Errors
    /// The variable holds something else than [`Client::new`] takes.
    pub fn from_env() -> Result<Self, ClientError> {
        Self::from_variable(env::var_os(OUTBOUND_VARIABLE))
    }

    /// The agent whose outbound listener is at `address`: `unix:/path` or
    /// `http://127.0.0.1:4140`. Connects to nothing yet.
    ///
    /// # Errors
    /// Another form, or a TCP address that is not loopback: what goes to the agent is plain text,
    /// and the agent would lend its identity to whoever reaches it there.
    pub fn new(address: &str) -> Result<Self, ClientError> {
        Ok(Self {
            transport: Arc::new(Transport::new(
                AgentAddress::parse(address)?,
                Protocol::Http1,
            )),
            timeout: DEFAULT_TIMEOUT,
            response_limit: DEFAULT_RESPONSE_LIMIT,
        })
    }

    /// Speaks HTTP/2 with prior knowledge, all requests over one connection.
    #[must_use]
    pub fn http2(mut self) -> Self {
        let address = self.transport.address().clone();
        self.transport = Arc::new(Transport::new(address, Protocol::Http2));
        self
    }

    /// Time for one exchange: from `send` until the last byte of [`Response::bytes`] or
    /// [`Response::json`]. A streamed answer is bound to it only up to its head.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Most bytes [`Response::bytes`] and [`Response::json`] accept.
    #[must_use]
    pub fn response_limit(mut self, bytes: usize) -> Self {
        self.response_limit = bytes;
        self
    }

    /// Starts a `GET` of `url`.
    pub fn get(&self, url: &str) -> RequestBuilder {
        self.method(Method::GET, url)
    }

    /// Starts a `POST` to `url`.
    pub fn post(&self, url: &str) -> RequestBuilder {
        self.method(Method::POST, url)
    }

    /// Starts a `PUT` to `url`.
    pub fn put(&self, url: &str) -> RequestBuilder {
        self.method(Method::PUT, url)
    }

    /// Starts a `DELETE` of `url`.
    pub fn delete(&self, url: &str) -> RequestBuilder {
        self.method(Method::DELETE, url)
    }

    /// Starts a request with any method.
    pub fn method(&self, method: Method, url: &str) -> RequestBuilder {
        RequestBuilder::new(self.clone(), method, url)
    }

    /// Sends `request`, whose URI is absolute; the body is streamed.
    ///
    /// # Errors
    /// See [`ClientError`]. An answer with an error status is an answer, not an error.
    pub async fn request<B>(&self, request: Request<B>) -> Result<Response, ClientError>
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.execute(request.map(RequestBody::stream)).await
    }

    fn from_variable(value: Option<OsString>) -> Result<Self, ClientError> {
        match value {
            None => Self::new(DEFAULT_OUTBOUND),
            Some(value) => Self::new(&value.to_string_lossy()),
        }
    }

    async fn execute(&self, request: Request<RequestBody>) -> Result<Response, ClientError> {
        let exchange = Exchange::of(&request);
        let request = self.transport.protocol().prepare(request)?;
        let now = Instant::now();
        let deadline = now.checked_add(self.timeout).unwrap_or(now + FOREVER);
        let sending = self.transport.send(request, &exchange);
        match timeout_at(deadline, sending).await {
            Ok(answer) => Ok(Response::new(answer?, exchange, self, deadline)),
            Err(_) => Err(ClientError::TimedOut {
                what: exchange.to_string(),
                after: self.timeout,
            }),
        }
    }
}

impl Protocol {
    /// Checks what the agent would refuse or misread, and gives the request the form in which it
    /// goes to the agent.
    fn prepare(
        self,
        mut request: Request<RequestBody>,
    ) -> Result<Request<RequestBody>, ClientError> {
        let uri = request.uri();
        let refuse = |why| ClientError::Url {
            url: error::url(uri),
            why,
        };
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(refuse(
                    "write http://: the agent adds TLS and credentials, as its route for this host says",
                ));
            }
            _ => return Err(refuse("an absolute URL is needed: http://SERVICE/PATH")),
        }
        let authority = uri
            .authority()
            .ok_or_else(|| refuse("it names no service: http://SERVICE/PATH"))?;
        if authority.as_str().contains('@') {
            return Err(refuse(
                "it holds user information; the agent adds credentials",
            ));
        }
        if request.method() == Method::CONNECT {
            return Err(refuse("the agent serves no CONNECT"));
        }
        // The agent picks the route by host, so there must be one answer to which host this is.
        let host =
            HeaderValue::from_maybe_shared(Bytes::copy_from_slice(authority.as_str().as_bytes()))
                .map_err(|_| refuse("its host cannot be sent in a header"))?;
        if request
            .headers()
            .get_all(header::HOST)
            .iter()
            .any(|given| *given != host)
        {
            return Err(refuse("the request's own Host header names another host"));
        }
        match self {
            Self::Http1 => {
                let target = uri
                    .path_and_query()
                    .map_or(Ok(Uri::from_static("/")), |p| p.as_str().parse())
                    .map_err(|_| refuse("its path is not a valid request target"))?;
                request.headers_mut().insert(header::HOST, host);
                *request.uri_mut() = target;
                *request.version_mut() = http::Version::HTTP_11;
            }
            Self::Http2 => {
                request.headers_mut().remove(header::HOST);
                *request.version_mut() = http::Version::HTTP_2;
            }
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests;

//! The SPIFFE Workload API (service `SpiffeWorkloadAPI`, of no package).

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use prost::Message;
use tokio::sync::{Semaphore, watch};
use tonic::{
    Status,
    body::Body,
    codec::{Codec, Streaming},
    server::NamedService,
};
use tonic_prost::ProstCodec;
use warifu::identity::Identity;

use super::{
    jwt,
    snapshot::{Content, Snapshots, frame},
    updates::{Follower, Updates},
};
use crate::{
    identity,
    local::{
        absence,
        asker::Asker,
        proto::workload::{
            JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest,
            X509svidRequest,
        },
    },
    token::Requested,
};

/// Longest request, in bytes: a token to validate has 8 KiB at most.
const MAX_REQUEST: usize = 64 * 1024;

/// Streams open at once. At about 10 KiB each with what carries it, 40 MiB.
const MAX_OPEN: usize = 4096;

/// What every request carries, exactly so: a browser or a tricked app sends no such header of itself (SPIFFE
/// Workload Endpoint §4.4).
const SECURITY_HEADER: (&str, &str) = ("workload.spiffe.io", "true");

/// The service. Cheap to clone.
#[derive(Clone)]
pub(super) struct Api(Arc<Inner>);

struct Inner {
    identity: identity::Current,
    renewal: watch::Receiver<identity::Status>,
    tokens: Requested,
    hint: String,
    snapshots: Arc<Snapshots>,
    open: Arc<Semaphore>,
}

/// What can be called.
#[derive(Debug, Clone, Copy)]
enum Method {
    FetchX509Svid,
    FetchX509Bundles,
    FetchJwtSvid,
    FetchJwtBundles,
    ValidateJwtSvid,
}

impl Api {
    /// Serves `identity`, and `tokens` for it. `renewal` says why there is none, `hint` what it is for.
    pub(super) fn new(
        identity: identity::Current,
        renewal: watch::Receiver<identity::Status>,
        tokens: Requested,
        hint: String,
    ) -> Self {
        Self(Arc::new(Inner {
            identity,
            renewal,
            tokens,
            snapshots: Arc::new(Snapshots::new(hint.clone())),
            hint,
            open: Arc::new(Semaphore::new(MAX_OPEN)),
        }))
    }
}

impl NamedService for Api {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl tower_service::Service<Request<Incoming>> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let api = Arc::clone(&self.0);
        Box::pin(async move {
            let answer = api.answer(request).await;
            Ok(answer.unwrap_or_else(|status| status.into_http()))
        })
    }
}

impl Inner {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let method = Method::of(request.uri().path())?;
        admit(&request)?;
        match method {
            Method::FetchX509Svid => {
                let X509svidRequest {} = read(request).await?;
                self.follow(Content::X509Svid)
            }
            Method::FetchX509Bundles => {
                let X509BundlesRequest {} = read(request).await?;
                self.follow(Content::X509Bundles)
            }
            Method::FetchJwtBundles => {
                let JwtBundlesRequest {} = read(request).await?;
                self.follow(Content::JwtBundles)
            }
            Method::FetchJwtSvid => {
                let asked: JwtsvidRequest = read(request).await?;
                jwt::check(&asked)?;
                let identity = self.identity()?;
                let fetched = jwt::fetch(&self.tokens, &identity, asked, &self.hint).await?;
                Ok(once(&fetched))
            }
            Method::ValidateJwtSvid => {
                let asked: ValidateJwtsvidRequest = read(request).await?;
                jwt::check_validation(&asked)?;
                Ok(once(&jwt::validate(&*self.identity()?, &asked)?))
            }
        }
    }

    fn identity(&self) -> Result<Arc<Identity>, Status> {
        let identity = self.identity.borrow().clone();
        identity.ok_or_else(|| absence::status(&self.renewal.borrow()))
    }

    fn follow(&self, content: Content) -> Result<Response<Body>, Status> {
        // With no identity there is no stream: the status is the answer.
        self.identity()?;
        let open = Arc::clone(&self.open).try_acquire_owned().map_err(|_| {
            Status::unavailable(format!("{MAX_OPEN} streams are open, as many as may be"))
        })?;
        let follower = Follower {
            identity: self.identity.clone(),
            snapshots: Arc::clone(&self.snapshots),
            content,
            sent: None,
            _open: open,
        };
        Ok(grpc(Body::new(Updates::new(follower))))
    }
}

impl Method {
    fn of(path: &str) -> Result<Self, Status> {
        let name = path.strip_prefix("/SpiffeWorkloadAPI/");
        Ok(match name.unwrap_or_default() {
            "FetchX509SVID" => Self::FetchX509Svid,
            "FetchX509Bundles" => Self::FetchX509Bundles,
            "FetchJWTSVID" => Self::FetchJwtSvid,
            "FetchJWTBundles" => Self::FetchJwtBundles,
            "ValidateJWTSVID" => Self::ValidateJwtSvid,
            _ => {
                let unknown = format!("{path}: the SPIFFE Workload API has no such method");
                return Err(Status::unimplemented(unknown));
            }
        })
    }
}

/// Whether whoever asks is a client of the Workload API, and one that may ask.
fn admit(request: &Request<Incoming>) -> Result<(), Status> {
    let (name, expected) = SECURITY_HEADER;
    let mut values = request.headers().get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value == expected => {}
        _ => {
            return Err(Status::invalid_argument(
                "security header missing from request",
            ));
        }
    }
    match request.extensions().get::<Asker>() {
        Some(asker) if asker.may_ask() => Ok(()),
        _ => Err(absence::not_for_you()),
    }
}

/// The one message of a request.
async fn read<M: Message + Default + 'static>(request: Request<Incoming>) -> Result<M, Status> {
    let decoder = ProstCodec::<M, M>::default().decoder();
    let body = request.into_body();
    let mut messages = Streaming::new_request(decoder, body, None, Some(MAX_REQUEST));
    let message = messages.message().await?;
    message.ok_or_else(|| Status::invalid_argument("the request has no message"))
}

/// One message, and the end.
fn once(message: &impl Message) -> Response<Body> {
    let ok = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = Full::<Bytes>::new(frame(message)).with_trailers(ready(Some(Ok(ok))));
    grpc(Body::new(body))
}

fn grpc(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let value = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, value);
    response
}

//! The SPIFFE Workload API (service `SpiffeWorkloadAPI`, of no package).

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use prost::Message;
use tokio::{sync::watch, time::Instant};
use tonic::{
    Code, Status,
    body::Body,
    codec::{Codec, Streaming},
    server::NamedService,
};
use tonic_prost::ProstCodec;
use warifu::identity::Identity;

use super::{
    jwt,
    metrics::Metrics,
    snapshot::{Content, Snapshots, frame},
    updates::{Follower, Updates},
};
use crate::{
    identity,
    local::{
        absence,
        asker::Asker,
        calls::Places,
        proto::workload::{
            JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest,
            X509svidRequest,
        },
    },
    token::Requested,
};

/// Longest request, in bytes: a token to validate has 8 KiB at most.
const MAX_REQUEST: usize = 64 * 1024;

/// How long a call for a stream is held while the first identity is on its way. Clients wait between calls, longer each
/// time; one that has its call open has its SVID at once. Not longer: who starts without an agent's authority is to
/// hear of it.
const FIRST_IDENTITY: Duration = Duration::from_secs(1);

/// Between log lines of processes that are refused: they ask again and again.
const REFUSALS_EVERY: Duration = Duration::from_secs(60);

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
    places: Places,
    metrics: Metrics,
    /// When a refusal was logged last, and how many there were since.
    refusals: Mutex<(Option<Instant>, u64)>,
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
        (places, metrics): (Places, Metrics),
    ) -> Self {
        Self(Arc::new(Inner {
            identity,
            renewal,
            tokens,
            snapshots: Arc::new(Snapshots::new(hint.clone())),
            hint,
            places,
            metrics,
            refusals: Mutex::default(),
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
            let method = Method::of(request.uri().path());
            let name = method.as_ref().map_or("unknown", |method| method.name());
            let answer = match method {
                Ok(method) => api.answer(method, request).await,
                Err(unknown) => Err(unknown),
            };
            let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
            api.metrics.calls.answered(name, code);
            Ok(answer.unwrap_or_else(|status| status.into_http()))
        })
    }
}

impl Inner {
    async fn answer(
        &self,
        method: Method,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Status> {
        self.admit(&request)?;
        match method {
            Method::FetchX509Svid => {
                let X509svidRequest {} = read(request).await?;
                self.follow(Content::X509Svid).await
            }
            Method::FetchX509Bundles => {
                let X509BundlesRequest {} = read(request).await?;
                self.follow(Content::X509Bundles).await
            }
            Method::FetchJwtBundles => {
                let JwtBundlesRequest {} = read(request).await?;
                self.follow(Content::JwtBundles).await
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
        identity.ok_or_else(|| {
            self.snapshots.forget();
            absence::status(&self.renewal.borrow())
        })
    }

    async fn follow(&self, content: Content) -> Result<Response<Body>, Status> {
        let open = self.metrics.calls.open(&self.places)?;
        if self
            .identity()
            .is_err_and(|status| status.code() == Code::Unavailable)
        {
            self.first_identity().await;
        }
        // With no identity there is no stream: the status is the answer.
        self.identity()?;
        let follower = Follower {
            identity: self.identity.clone(),
            snapshots: Arc::clone(&self.snapshots),
            content,
            sent: None,
            _open: open,
        };
        Ok(grpc(Body::new(Updates::new(follower))))
    }

    /// Waits a moment for an identity, or the decision that there is none.
    async fn first_identity(&self) {
        let _waits = self.metrics.waits();
        let (mut identity, mut renewal) = (self.identity.clone(), self.renewal.clone());
        let issued = pin!(identity.wait_for(Option::is_some));
        let refused = pin!(renewal.wait_for(|status| status.refused));
        let decided = async {
            tokio::select! {
                _ = issued => {}
                _ = refused => {}
            }
        };
        let _ = tokio::time::timeout(FIRST_IDENTITY, decided).await;
    }

    /// Whether whoever asks is a client of the Workload API, and one that may ask.
    fn admit(&self, request: &Request<Incoming>) -> Result<(), Status> {
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
            asker => {
                if let Some(asker) = asker {
                    self.note_refusal(asker);
                }
                Err(absence::not_for_you())
            }
        }
    }

    fn note_refusal(&self, asker: &Asker) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, count) = &mut *refusals;
        *count += 1;
        let now = Instant::now();
        if last.is_none_or(|last| now.duration_since(last) >= REFUSALS_EVERY) {
            tracing::warn!(
                process = %asker.remote(),
                refused = *count,
                "a process asked the Workload API that local.workload_api.clients does not list"
            );
            (*last, *count) = (Some(now), 0);
        }
    }
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::FetchX509Svid => "FetchX509SVID",
            Self::FetchX509Bundles => "FetchX509Bundles",
            Self::FetchJwtSvid => "FetchJWTSVID",
            Self::FetchJwtBundles => "FetchJWTBundles",
            Self::ValidateJwtSvid => "ValidateJWTSVID",
        }
    }

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

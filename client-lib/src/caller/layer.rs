//! The tower layer.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use thiserror::Error;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    Caller, CallerError, KeyFileError, PeerCred,
    codec::decode,
    context::{self, CALLER_HEADER, CONTEXT_HEADER, ContextError},
    key_file::KeyFile,
};
use crate::jwt::JwtError;

/// Puts the [`Caller`] the agent verified into request extensions, and refuses every request for
/// which the agent does not provably vouch. The app behind it sees neither of the agent's headers.
///
/// Use it outermost, where the request still has the target the agent sent. Without tower, call
/// [`admit`](CallerLayer::admit).
#[derive(Debug, Clone)]
pub struct CallerLayer {
    evidence: Arc<Evidence>,
}

/// What makes the agent's word credible.
#[derive(Debug)]
enum Evidence {
    /// The process at the other end runs as one of these.
    AgentUids(Vec<u32>),
    /// The request is signed with one of these.
    ContextKeys(KeyFile),
}

/// Why a request did not reach the app.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refused {
    /// The server did not put a [`PeerCred`] into the request's extensions: it does not serve a unix
    /// socket, or not through [`AppSocket`](super::AppSocket).
    #[error("nothing says which process sent this request (no PeerCred in its extensions)")]
    NoPeerCred,
    /// The process at the other end is not the agent.
    #[error("the process that sent this request runs as uid {uid}, not as the agent")]
    NotTheAgent {
        /// What it runs as.
        uid: u32,
    },
    /// The header is absent.
    #[error("header {0} is missing; does the agent forward this request?")]
    Missing(&'static str),
    /// The header occurs more than once.
    #[error("header {0} occurs more than once")]
    Repeated(&'static str),
    /// The caller in the header cannot be read.
    #[error("header {CALLER_HEADER}: {0}")]
    Caller(#[from] CallerError),
    /// The signed context does not verify, or belongs to another request.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// There are no keys to verify the signed context with: an outage, not a forgery.
    #[error(transparent)]
    NoKeys(#[from] KeyFileError),
}

impl CallerLayer {
    /// Believes [`CALLER_HEADER`] on connections of processes that run as one of `agent_uids`, for
    /// which the server put a [`PeerCred`] into the request's extensions. Which uids to name:
    /// [`AppSocket`](super::AppSocket), whose [`layer`](super::AppSocket::layer) names them itself.
    pub fn over_unix(agent_uids: impl IntoIterator<Item = u32>) -> Self {
        Self::new(Evidence::AgentUids(agent_uids.into_iter().collect()))
    }

    /// Believes [`CONTEXT_HEADER`], verified with the agent's public key in `key_file`
    /// (`inbound[].context.key_file` of its configuration). The file may appear later and may
    /// change; until it is there, requests are answered 503. No one but the agent should be able
    /// to write it, or to replace it in its directory.
    pub fn signed_context(key_file: impl Into<PathBuf>) -> Self {
        Self::new(Evidence::ContextKeys(KeyFile::new(key_file.into())))
    }

    fn new(evidence: Evidence) -> Self {
        Self {
            evidence: Arc::new(evidence),
        }
    }

    /// Verifies who sent `request`: puts the [`Caller`] into its extensions and removes the agent's
    /// headers. What the layer does, for servers without tower.
    ///
    /// # Errors
    /// See [`Refused`]; [`Refused::response`] is the answer to give.
    pub fn admit<B>(&self, request: &mut Request<B>) -> Result<(), Refused> {
        self.admit_at(request, SystemTime::now(), Instant::now())
    }

    fn admit_at<B>(
        &self,
        request: &mut Request<B>,
        now: SystemTime,
        instant: Instant,
    ) -> Result<(), Refused> {
        request.extensions_mut().remove::<Caller>();
        let caller_header = take_one(request.headers_mut(), CALLER_HEADER);
        let context_header = take_one(request.headers_mut(), CONTEXT_HEADER);
        let caller = match &*self.evidence {
            Evidence::AgentUids(uids) => {
                let peer: &PeerCred = request.extensions().get().ok_or(Refused::NoPeerCred)?;
                if !uids.contains(&peer.uid()) {
                    return Err(Refused::NotTheAgent { uid: peer.uid() });
                }
                decode(&caller_header?)?
            }
            Evidence::ContextKeys(file) => {
                verify_context(file, &context_header?, request, now, instant)?
            }
        };
        request.extensions_mut().insert(caller);
        Ok(())
    }
}

impl<S> Layer<S> for CallerLayer {
    type Service = CallerService<S>;

    fn layer(&self, inner: S) -> CallerService<S> {
        CallerService {
            inner,
            layer: self.clone(),
        }
    }
}

impl Refused {
    /// 403; 503 where only the keys are missing, so that the request may be tried again.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoKeys(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::FORBIDDEN,
        }
    }

    /// The answer to give. It says what is missing, not what was presented.
    pub fn response<B: From<&'static str>>(&self) -> Response<B> {
        let text = match self {
            Self::NoPeerCred | Self::NotTheAgent { .. } => {
                "refused: this request did not come from the agent\n"
            }
            Self::Missing(_) => "refused: this request names no caller\n",
            Self::Repeated(_) | Self::Caller(_) => {
                "refused: this request does not name its caller in the agent's form\n"
            }
            Self::Context(_) => "refused: the agent's signed context does not verify\n",
            Self::NoKeys(_) => "unavailable: the agent's context keys cannot be read\n",
        };
        let mut response = Response::new(B::from(text));
        *response.status_mut() = self.status();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response
    }
}

/// What [`CallerLayer`] makes.
///
/// Answers refused requests itself, with any body that can be made from text (`axum::body::Body`,
/// `Full<Bytes>`, `String`, …).
#[derive(Debug, Clone)]
pub struct CallerService<S> {
    inner: S,
    layer: CallerLayer,
}

impl<S, B, R> Service<Request<B>> for CallerService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: From<&'static str>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = CallerFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        CallerFuture(match self.layer.admit(&mut request) {
            Ok(()) => Answer::App(Box::pin(self.inner.call(request))),
            Err(refused) => Answer::Refused(Some(refused.response())),
        })
    }
}

/// The answer of a [`CallerService`].
#[derive(Debug)]
pub struct CallerFuture<F, R>(Answer<F, R>);

#[derive(Debug)]
enum Answer<F, R> {
    App(Pin<Box<F>>),
    Refused(Option<Response<R>>),
}

// Nothing is pinned in place: the app's future is behind its own pointer.
impl<F, R> Unpin for CallerFuture<F, R> {}

impl<F, R, E> Future for CallerFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Answer::App(future) => future.as_mut().poll(cx),
            // A future is not polled again once it was ready.
            Answer::Refused(response) => response
                .take()
                .map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
        }
    }
}

fn verify_context<B>(
    file: &KeyFile,
    token: &HeaderValue,
    request: &Request<B>,
    now: SystemTime,
    instant: Instant,
) -> Result<Caller, Refused> {
    let token = token
        .to_str()
        .map_err(|_| ContextError::from(JwtError::Malformed("not text")))?;
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let verify = |keys| context::verify(token, keys, request.method(), target, now);
    let caller = match verify(&*file.keys(instant, false)?) {
        // The agent may have restarted with another key.
        Err(ContextError::Token(JwtError::UnknownKey)) => verify(&*file.keys(instant, true)?),
        other => other,
    };
    Ok(caller?)
}

/// Removes `name` in every spelling (`_` for `-`, which many frameworks take for the same), and
/// returns its value if the right spelling occurred exactly once.
fn take_one(headers: &mut HeaderMap, name: &'static str) -> Result<HeaderValue, Refused> {
    let occurrences = headers.get_all(name).iter().count();
    let value = headers.remove(name);
    let misspelt: Vec<HeaderName> = headers
        .keys()
        .filter(|found| is_spelling_of(found.as_str(), name))
        .cloned()
        .collect();
    for found in misspelt {
        headers.remove(found);
    }
    match value {
        None => Err(Refused::Missing(name)),
        Some(_) if occurrences > 1 => Err(Refused::Repeated(name)),
        Some(value) => Ok(value),
    }
}

fn is_spelling_of(found: &str, name: &str) -> bool {
    found.len() == name.len()
        && found
            .bytes()
            .zip(name.bytes())
            .all(|(found, name)| found == name || (found == b'_' && name == b'-'))
}

#[cfg(test)]
mod tests;

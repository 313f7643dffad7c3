//! Calls from the app: route, attach, send, retry.
//!
//! A request's way, top to bottom:
//!
//! ```text
//! target   which host the app calls; CONNECT and contradictions are refused
//! routes   what no route names is refused: nothing is minted, signed or connected for it (S5)
//! link     the upstream, which the route says how to verify (S19)
//! rewrite  the path in normal form, what the app must not say removed, the upstream's host
//! attach   nothing, a JWT-SVID, or a SigV4 signature, which is made anew for every attempt
//! send     over a pooled connection; one retry with a fresh token where the upstream says 401
//! ```
//!
//! Bodies stream, but for those that are signed. Redirects are the app's business.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{AUTHORIZATION, HOST},
    request::Parts,
};
use hyper::body::Incoming;
use prometheus_client::registry::Registry;

use crate::{
    aws, config,
    http::{
        body::Body,
        headers::join_cookies,
        pool::{Attempt, Attempts, Pool, Upstream},
        server::{Connection, Opened, Refused, Service},
    },
    identity,
    token::{Source, Token, Tokens},
};

use buffer::Buffers;
use metrics::Metrics;
use refusal::Refusal;
use route::{Credential, Route, Routes};

pub use link::public_tls;
pub use route::RouteError;
pub use sign::Sign;

mod budget;
mod buffer;
mod link;
mod metrics;
mod refusal;
mod route;
mod sign;
mod target;

/// What the outbound side is made from.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The routes.
    pub config: &'a config::agent::Outbound,
    /// Whom we are: presented where a route says `mtls`.
    pub identity: identity::Current,
    /// Whose credentials are revoked: not called where a route says `mtls`.
    pub revocations: identity::Revocations,
    /// Tokens for routes that say `jwt`.
    pub tokens: &'a Tokens,
    /// What signs for routes that say `sigv4`, by the route's host.
    pub signers: BTreeMap<String, Arc<dyn Sign>>,
    /// Verifies upstreams without `mtls`: [`public_tls`].
    pub public_tls: Arc<rustls::ClientConfig>,
    /// Connections.
    pub pool: &'a Pool,
}

/// The outbound side, as a [`Service`] for [`crate::http::server::serve`].
#[derive(Debug)]
pub struct Outbound(Arc<Calls>);

/// What answers the app's requests.
#[derive(Debug)]
pub struct Calls {
    routes: Routes,
    identity: identity::Current,
    buffers: Buffers,
    metrics: Metrics,
}

impl Outbound {
    /// Compiles the routes.
    ///
    /// # Errors
    /// When a route can't be what it says. The configuration's own checks come first, so this is for
    /// what only the wiring knows.
    pub fn new(setup: Setup<'_>, registry: &mut Registry) -> Result<Arc<Self>, RouteError> {
        let metrics = Metrics::new(registry);
        Ok(Arc::new(Self(Arc::new(Calls {
            routes: Routes::new(&setup, &metrics)?,
            identity: setup.identity,
            buffers: Buffers::new(),
            metrics,
        }))))
    }
}

impl Service for Outbound {
    type Session = Calls;

    fn open(&self, _: Connection) -> Result<Opened<Calls>, Refused> {
        Ok(Opened {
            session: Arc::clone(&self.0),
            expires: None,
        })
    }

    async fn call(calls: Arc<Calls>, request: Request<Incoming>) -> Response<Body> {
        calls.answer(request).await
    }
}

impl Calls {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let route = target::host(&parts).and_then(|host| self.routes.find(&host));
        let route = match route {
            Ok(route) => route,
            Err(refusal) => {
                self.metrics.refused("", &refusal);
                return refusal.into_response();
            }
        };
        let body = Body::Filtered(body, Arc::clone(&route.to_network), None);
        match self.forward(route, parts, body).await {
            Ok(mut response) => {
                route.counters.answered(response.status());
                route.from_network.strip(response.headers_mut());
                response
            }
            Err(refusal) => {
                tracing::debug!(route = route.host, %refusal, "not forwarded");
                self.metrics.refused(&route.host, &refusal);
                refusal.into_response()
            }
        }
    }

    async fn forward(
        &self,
        route: &Route,
        mut parts: Parts,
        body: Body,
    ) -> Result<Response<Body>, Refusal> {
        let identity = self.identity.borrow().clone();
        let upstream = route
            .link
            .upstream(identity.as_deref(), SystemTime::now())?;

        parts.uri = route.rewrite(&parts.uri)?;
        route.to_network.strip(&mut parts.headers);
        join_cookies(&mut parts.headers);
        parts.headers.insert(HOST, route.authority.clone());

        match &route.credential {
            Credential::None => send(&upstream, parts, body, route.timeout).await,
            Credential::Jwt(tokens) => with_token(route, tokens, &upstream, parts, body).await,
            Credential::SigV4 { signer, max_body } => {
                aws::refuse_streamed(&parts.headers)?;
                let body = self.buffers.read(body, *max_body).await?;
                signed(route, &**signer, &upstream, parts, body.bytes()).await
            }
        }
    }
}

/// Signs, and signs again whenever the pool sends again: the time that passed, or credentials that were
/// renewed meanwhile, are in the signature.
async fn signed(
    route: &Route,
    signer: &dyn Sign,
    upstream: &Upstream,
    mut parts: Parts,
    body: &Bytes,
) -> Result<Response<Body>, Refusal> {
    let mut attempts = Attempts::default();
    loop {
        // Credentials may have to be obtained first, from an STS that may be slow.
        tokio::time::timeout(route.timeout, signer.sign(&mut parts, body))
            .await
            .map_err(|_| Refusal::SignTimedOut(route.timeout))??;
        let request = Request::from_parts(parts, body.clone().into());
        let attempt = upstream.attempt(request, route.timeout, &mut attempts);
        match attempt.await? {
            Attempt::Answered(response) => return Ok(response),
            Attempt::Again(request) => parts = request.into_parts().0,
        }
    }
}

/// Attaches a JWT-SVID. Where the upstream refuses it (keys were rotated, it was revoked), and the
/// request can be sent again, it is: once, with another token, within the route's budget.
async fn with_token(
    route: &Route,
    tokens: &Source,
    upstream: &Upstream,
    mut parts: Parts,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let token = tokens.token().await?;
    parts.headers.insert(AUTHORIZATION, token.authorization());
    route.budget.deposit();
    let again = body.replay().map(|body| (parts.clone(), body));
    let response = send(upstream, parts, body, route.timeout).await?;
    if response.status() != StatusCode::UNAUTHORIZED {
        return Ok(response);
    }
    let Some((mut parts, body)) = again.filter(|_| route.budget.withdraw()) else {
        // For those to come, if not for this one.
        replace_in_background(tokens, token);
        return Ok(response);
    };
    let Some(token) = tokens.other_than(&token).await else {
        return Ok(response);
    };
    drop(response);
    route.counters.retried();
    parts.headers.insert(AUTHORIZATION, token.authorization());
    send(upstream, parts, body, route.timeout).await
}

/// Has a refused token replaced. [`Source::other_than`] bounds how often anything comes of it.
fn replace_in_background(tokens: &Source, refused: Token) {
    let tokens = tokens.clone();
    tokio::spawn(async move { tokens.other_than(&refused).await });
}

async fn send(
    upstream: &Upstream,
    parts: Parts,
    body: Body,
    timeout: Duration,
) -> Result<Response<Body>, Refusal> {
    let request = Request::from_parts(parts, body);
    Ok(upstream.send(request, timeout).await?)
}

#[cfg(test)]
mod tests;

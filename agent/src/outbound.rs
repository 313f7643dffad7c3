//! Calls from the app: route, attach, send, retry.
//!
//! A request's way, top to bottom:
//!
//! ```text
//! target   which host the app calls; CONNECT and contradictions are refused
//! routes   what no route names is refused: nothing is minted, signed or connected for it (S5)
//! link     the upstream, which the route says how to verify (S19)
//! rewrite  the path in normal form, what the app must not say removed, the upstream's host
//! attach   nothing, a JWT-SVID, or a SigV4 signature, which is made anew for every attempt (or is the answer:
//!          a URL, presigned)
//! send     over a pooled connection; again only what can't be done twice by it, within the route's budget: where
//!          there was no connection, and once with a fresh token where the upstream says 401
//! ```
//!
//! A request for a WebSocket goes the same way, over a connection of its own; what the upstream agreed to with
//! its 101 becomes a tunnel.
//!
//! Bodies stream, but for those that must be hashed to be signed. Redirects are the app's business.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use http::{Request, Response, StatusCode, header::HOST, request::Parts};
use hyper::body::Incoming;
use prometheus_client::registry::Registry;

use crate::{
    config,
    http::{
        body::{Body, Upload},
        headers::join_cookies,
        pool::Pool,
        server::{Connection, Opened, Refused, Service},
    },
    identity,
    secrets::Secrets,
    token::{Mint, Tokens},
};

use attach::{Buffers, Call, presign};
use metrics::Metrics;
use refusal::Refusal;
use route::{Route, Routes};
use websocket::WebSocket;

pub use attach::{Sign, Signing, rewrite_cognito};
pub use link::public_tls;
pub use route::RouteError;
pub use tcp::Tcp;

mod attach;
mod budget;
mod link;
mod metrics;
mod refusal;
mod retry;
mod route;
mod target;
mod tcp;
mod websocket;

/// What the outbound side is made from.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The routes.
    pub config: &'a config::outbound::Outbound,
    /// Whom we are: presented where a route says `mtls`.
    pub identity: identity::Current,
    /// Whose credentials are revoked: not called where a route says `mtls`.
    pub revocations: identity::Revocations,
    /// Tokens for routes that say `jwt`.
    pub tokens: &'a Tokens,
    /// Secrets that routes name.
    pub secrets: &'a Secrets,
    /// What signs for routes that say `sigv4`, by the route's host.
    pub signers: BTreeMap<String, Arc<dyn Sign>>,
    /// What mints for routes that say `aws_web_identity`.
    pub web_identity: Option<Arc<dyn Mint>>,
    /// Verifies upstreams without `mtls`: [`public_tls`].
    pub public_tls: Arc<rustls::ClientConfig>,
    /// Connections.
    pub pool: &'a Pool,
}

/// The outbound side, as a [`Service`] for [`crate::http::server::serve`].
#[derive(Debug)]
pub struct Outbound {
    calls: Arc<Calls>,
    tcp: Vec<Arc<Tcp>>,
}

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
        let tcp = setup.config.tcp.iter();
        let tcp = tcp.map(|route| {
            let counters = metrics.tcp(&route.upstream.to_string());
            Tcp::new(route, &setup, counters)
        });
        Ok(Arc::new(Self {
            tcp: tcp.collect::<Result<_, _>>()?,
            calls: Arc::new(Calls {
                routes: Routes::new(&setup, &metrics)?,
                identity: setup.identity,
                buffers: Buffers::new(),
                metrics,
            }),
        }))
    }

    /// What carries the connections of `tcp`, in the configuration's order.
    pub fn tcp(&self) -> &[Arc<Tcp>] {
        &self.tcp
    }
}

impl Service for Outbound {
    type Session = Calls;

    fn open(&self, _: Connection) -> Result<Opened<Calls>, Refused> {
        Ok(Opened {
            session: Arc::clone(&self.calls),
            expires: None,
        })
    }

    async fn call(calls: Arc<Calls>, request: Request<Incoming>) -> Response<Body> {
        calls.answer(request).await
    }
}

impl Calls {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let route = target::host(&parts).and_then(|host| self.routes.find(&host));
        let route = match route {
            Ok(route) => route,
            Err(refusal) => {
                self.metrics.refused("", &refusal);
                return refusal.into_response();
            }
        };
        let body = Body::Upload(Upload::new(body, &route.to_network, None));
        let deadline = route.patience.deadline();
        // Futures are awaited where they are made, here and below: one that is named first is kept twice.
        let answered = async {
            let websocket = WebSocket::asked_for(&mut parts)?;
            let upgrades = websocket.is_some();
            let mut response = match deadline {
                Some(deadline) => {
                    tokio::time::timeout_at(deadline.at, self.forward(route, parts, body, upgrades))
                        .await
                        .map_err(|_| Refusal::WholeTimedOut(deadline.whole))??
                }
                None => self.forward(route, parts, body, upgrades).await?,
            };
            match websocket {
                Some(it) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    it.open(route, &mut response)?;
                }
                _ => {
                    route.from_network.strip(response.headers_mut());
                    let body = response.body_mut();
                    body.filter_trailers(&route.from_network);
                    if let Some(deadline) = deadline {
                        body.end_by(deadline);
                    }
                }
            }
            Ok(response)
        }
        .await;
        match answered {
            Ok(response) => {
                route.counters.answered(response.status());
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
        websocket: bool,
    ) -> Result<Response<Body>, Refusal> {
        let identity = self.identity.borrow().clone();
        let upstream = route
            .link
            .upstream(identity.as_deref(), SystemTime::now())?;

        parts.uri = route.rewrite(&parts.uri)?;
        // Asked before what the app says to the agent is removed.
        let presign = presign::asked(&parts.headers)?;
        route.to_network.strip(&mut parts.headers);
        join_cookies(&mut parts.headers);
        parts.headers.insert(HOST, route.authority.clone());
        if websocket {
            WebSocket::say(&mut parts);
        }

        let call = Call {
            upstream: &upstream,
            first_byte: route.patience.first_byte(&parts.headers),
            obtain: route.patience.credential(),
            retries: &route.retries,
            budget: &route.budget,
            counters: &route.counters,
            buffers: &self.buffers,
        };
        route.budget.deposit();
        match presign {
            None => route.credential.send(&call, parts, body).await,
            Some(span) => route.credential.presign(&call, parts, body, span).await,
        }
    }
}

#[cfg(test)]
mod tests;

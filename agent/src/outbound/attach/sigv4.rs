//! A SigV4 signature.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{Request, Response, request::Parts};
use http_body::Body as _;

use super::{Call, Sign, buffer::Buffered};
use crate::{
    aws::{Hasher, Payload, Plan, Profile, SignError},
    config::outbound::{Route, RouteSigV4},
    http::{body::Body, pool::Attempt},
    outbound::{refusal::Refusal, retry::Tries, route::RouteError},
};

/// A body that could be streamed is held all the same up to this size, so that the request can be sent again when a
/// reused connection turns out dead: small beside what a connection's own buffers take.
const WORTH_STREAMING: u64 = 64 * 1024;

/// How a route's requests are signed.
#[derive(Debug)]
pub(in crate::outbound) struct SigV4 {
    signer: Arc<dyn Sign>,
    profile: Profile,
    max_body: usize,
    /// The longest life of a URL the app may ask for.
    pub(super) presign: Option<Duration>,
    /// Of the upstream, for URLs.
    pub(super) scheme: &'static str,
}

impl SigV4 {
    pub(super) fn new(
        route: &Route,
        sigv4: &RouteSigV4,
        signer: Arc<dyn Sign>,
    ) -> Result<Self, RouteError> {
        let profile = Profile::of(&sigv4.service, sigv4.unsigned_payload);
        Ok(Self {
            signer,
            profile: profile.map_err(|why| RouteError::SigV4 {
                route: route.host.clone(),
                why: why.to_string(),
            })?,
            max_body: sigv4.max_body,
            presign: sigv4.presign.as_ref().map(|presign| presign.expires.0),
            scheme: if route.upstream.tls { "https" } else { "http" },
        })
    }

    pub(super) fn key_path<'a>(&self, path: &'a str) -> Option<Result<Cow<'a, str>, SignError>> {
        self.profile.key_path(path)
    }

    /// Signs, and signs again whenever the pool sends again: the time that passed, or credentials that were
    /// renewed meanwhile, are in the signature.
    pub(super) async fn send(
        &self,
        call: &Call<'_>,
        mut parts: Parts,
        body: Body,
    ) -> Result<Response<Body>, Refusal> {
        // Before a byte of it is read.
        let (payload, mut body, _room) = match self.profile.plan(&parts.headers)? {
            Plan::Hold => {
                let (held, payload) = self.hashed(call, body).await?;
                (payload, held.body(), Some(held))
            }
            Plan::Stream(payload) => match body.size_hint().exact() {
                Some(size) if size <= WORTH_STREAMING && call.buffers.have_room(size) => {
                    let held = call.buffers.read(body, WORTH_STREAMING as usize).await?;
                    (payload, held.body(), Some(held))
                }
                _ => (payload, body, None::<Buffered>),
            },
        };
        let mut tries = Tries::default();
        loop {
            // Credentials may have to be obtained first, from an STS that may be slow.
            tokio::time::timeout(call.obtain, self.signer.sign(&mut parts, &payload))
                .await
                .map_err(|_| Refusal::SignTimedOut(call.obtain))??;
            let request = Request::from_parts(parts, body);
            match call.attempt(request, &mut tries).await? {
                Attempt::Answered(response) => return Ok(response),
                Attempt::Again(request) => (parts, body) = request.into_parts(),
                Attempt::NotSent(_, error) => return Err(error.into()),
            }
        }
    }

    /// Signs once, in the query.
    pub(super) async fn sign_url(
        &self,
        call: &Call<'_>,
        parts: &mut Parts,
        body: Body,
        span: Duration,
    ) -> Result<crate::aws::Presigned, Refusal> {
        // Where bodies are signed it must be known; elsewhere whoever calls the URL sends what it likes.
        let (_room, payload) = self.hashed(call, body).await?;
        let signing = self.signer.presign(parts, &payload, span);
        Ok(tokio::time::timeout(call.obtain, signing)
            .await
            .map_err(|_| Refusal::SignTimedOut(call.obtain))??)
    }

    /// Reads a body to its end.
    async fn hashed(&self, call: &Call<'_>, body: Body) -> Result<(Buffered, Payload), Refusal> {
        let mut hasher = Hasher::new();
        let see = |piece: &[u8]| hasher.update(piece);
        let held = call.buffers.read_seen(body, self.max_body, see).await?;
        Ok((held, hasher.finish()))
    }
}

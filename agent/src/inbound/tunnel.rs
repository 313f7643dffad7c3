//! What a WebSocket becomes once the app agreed to it: bytes both ways, for as long as the caller would be let in.

use std::sync::Arc;

use http::{HeaderMap, Response, request::Parts};
use hyper::upgrade::OnUpgrade;

use super::{
    Session,
    decide::{authenticate, decide},
    quota::Places,
    refusal::{self, Refusal},
};
use crate::{
    config::defaults::WEBSOCKET_IDLE,
    http::{
        body::Body,
        headers::Filter,
        pool::Far,
        server,
        still::Still,
        tunnel::{Bounds, Tunnel},
        upgrade::{NoTunnel, Wanted},
    },
};

/// A request for a WebSocket that is allowed.
pub(super) struct Opening {
    wanted: Wanted,
    near: OnUpgrade,
    still: Still,
}

impl Opening {
    /// `parts` as they were decided on, `headers` as they came.
    pub(super) fn new(
        wanted: Wanted,
        session: &Arc<Session>,
        parts: &mut Parts,
        headers: HeaderMap,
        places: Arc<Places>,
    ) -> Result<Self, Refusal> {
        let near = parts.extensions.remove().ok_or(Refusal::Tunnel)?;
        let (session, method, uri) = (Arc::clone(session), parts.method.clone(), parts.uri.clone());
        // The very checks of a request: a token that expires, a revocation, a changed rule ends it.
        let still = Still::new(move || {
            // It takes its place for as long as it is there.
            let _places = &places;
            let refused = match authenticate(&session, &headers, |_| {}) {
                Ok(caller) => refusal::of(&decide(&session, &caller, &method, &uri, &headers)),
                Err(refusal) => Some(refusal),
            };
            let reason = refused.map(|refusal| refusal.reason().to_owned());
            reason.map_or(Ok(()), Err)
        });
        Ok(Self {
            wanted,
            near,
            still,
        })
    }

    /// Makes the app's 101 a tunnel; `filter` has removed from it what is hop-by-hop.
    pub(super) fn opened(
        self,
        session: &Session,
        response: &mut Response<Body>,
        filter: &Filter,
    ) -> Result<(), Refusal> {
        self.wanted
            .agreed(response.status(), response.headers())
            .map_err(Refusal::AppSwitched)?;
        let no_far = NoTunnel("the app's connection did not become a tunnel");
        let far = Far::of(response).ok_or(Refusal::AppSwitched(no_far))?;
        filter.strip(response.headers_mut());
        Wanted::say(response.headers_mut());
        let tunnel = Tunnel {
            near: self.near,
            far: far.into_parts(),
            bounds: Bounds::idle(WEBSOCKET_IDLE).while_still(Some(self.still)),
            meter: session.inbound.metrics.tunnels.clone(),
        };
        server::becomes(response, tunnel);
        Ok(())
    }
}

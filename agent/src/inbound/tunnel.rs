//! What a WebSocket becomes once the app agreed to it: bytes both ways, for as long as the caller would be let in.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use http::{Response, request::Parts};
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
    /// `parts` as they were decided on, with all headers that came; `let_pass` where permissive mode did.
    pub(super) fn new(
        wanted: Wanted,
        session: &Arc<Session>,
        parts: &mut Parts,
        let_pass: bool,
        places: Places,
    ) -> Result<Self, Refusal> {
        let near = parts.extensions.remove().ok_or(Refusal::Tunnel)?;
        let (session, asked) = (Arc::clone(session), parts.clone());
        // The very checks of a request: a token that expires, a revocation, a changed rule ends it.
        let still = Still::new(move || {
            // It takes its place for as long as it is there.
            let _places = &places;
            let Some(caller) = at_once(authenticate(&session, &asked.headers, |_| {})) else {
                // Keys are being fetched: the next time they are there, or can't be had.
                return Ok(());
            };
            let Parts {
                method,
                uri,
                headers,
                ..
            } = &asked;
            let refused = match caller {
                Ok(caller) => refusal::of(&decide(&session, &caller, method, uri, headers)),
                Err(refusal) => Some(refusal),
            };
            match refused {
                Some(refusal)
                    if !let_pass || !session.inbound.lets_pass(&refusal, SystemTime::now()) =>
                {
                    Err(refusal.reason().to_owned())
                }
                Some(_) | None => Ok(()),
            }
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

/// What `work` comes to, if that takes no waiting.
fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(work).poll(&mut context) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

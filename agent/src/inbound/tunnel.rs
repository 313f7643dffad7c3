//! What a WebSocket becomes once the app agreed to it: bytes both ways, for as long as the caller would be let in.

use std::{sync::Arc, time::SystemTime};

use http::{Response, request::Parts};
use hyper::upgrade::OnUpgrade;

use super::{
    Session,
    decide::{authenticate, decide},
    quota::Places,
    refusal::{self, Refusal},
    rego::Lasting,
    terms::Terms,
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
        // It takes its place for as long as it is there.
        let held = Arc::new((session, asked, Lasting::new(), places));
        let still = Still::new(move || {
            let held = Arc::clone(&held);
            async move {
                let (session, asked, lasting, _) = &*held;
                let terms = session.inbound.terms();
                match check(session, &terms, asked, lasting).await {
                    Err(refusal) if !let_pass || !terms.lets_pass(&refusal, SystemTime::now()) => {
                        Err(refusal.reason().to_owned())
                    }
                    Err(_) | Ok(()) => Ok(()),
                }
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
            meter: session.inbound.environment.metrics.tunnels.clone(),
        };
        server::becomes(response, tunnel);
        Ok(())
    }
}

/// The very checks of a request: a token that expires, a revocation, a changed rule ends it.
async fn check(
    session: &Session,
    terms: &Terms,
    asked: &Parts,
    lasting: &Lasting,
) -> Result<(), Refusal> {
    let caller = authenticate(session, terms, &asked.headers, |_| {}).await?;
    let (method, uri, headers) = (&asked.method, &asked.uri, &asked.headers);
    let decided = decide(session, terms, &caller, method, uri, headers);
    let verdict = lasting.settle(&session.inbound, decided).await;
    verdict.as_ref().and_then(refusal::of).map_or(Ok(()), Err)
}

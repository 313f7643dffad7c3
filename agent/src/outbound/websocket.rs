//! WebSockets of the app: what passes between a request for one and the tunnel.

use http::{Response, request::Parts};
use hyper::upgrade::OnUpgrade;

use super::{refusal::Refusal, route::Route};
use crate::{
    config::defaults::WEBSOCKET_IDLE,
    http::{
        body::Body,
        pool::{Far, Switches},
        server,
        tunnel::{Bounds, Tunnel},
        upgrade::{NoTunnel, Wanted},
    },
};

/// One that the app asked for.
pub(super) struct WebSocket {
    wanted: Wanted,
    near: OnUpgrade,
}

impl WebSocket {
    /// `None` where none is asked for. An offer of another protocol (`h2c`, which Java's client makes with every
    /// first request) is ignored: the header does not pass.
    pub(super) fn asked_for(parts: &mut Parts) -> Result<Option<Self>, Refusal> {
        let near = parts.extensions.remove::<OnUpgrade>();
        let Some(wanted) = Wanted::of(parts).map_err(Refusal::Upgrade)? else {
            return Ok(None);
        };
        let no_near = NoTunnel("this connection can't become a tunnel");
        let near = near.ok_or(Refusal::Upgrade(no_near))?;
        Ok(Some(Self { wanted, near }))
    }

    /// Asks the upstream, which is reached over a connection of its own.
    pub(super) fn say(parts: &mut Parts) {
        Wanted::say(&mut parts.headers);
        parts.extensions.insert(Switches);
    }

    /// Makes the upstream's 101 a tunnel, if it agrees to what was asked (S4).
    pub(super) fn open(self, route: &Route, response: &mut Response<Body>) -> Result<(), Refusal> {
        self.wanted
            .agreed(response.status(), response.headers())
            .map_err(Refusal::Switched)?;
        let no_far = NoTunnel("its connection did not become a tunnel");
        let far = Far::of(response).ok_or(Refusal::Switched(no_far))?;
        route.from_network.strip(response.headers_mut());
        Wanted::say(response.headers_mut());
        let tunnel = Tunnel {
            near: self.near,
            far: far.into_parts(),
            bounds: Bounds::idle(WEBSOCKET_IDLE),
            meter: route.counters.tunnels.clone(),
        };
        server::becomes(response, tunnel);
        Ok(())
    }
}

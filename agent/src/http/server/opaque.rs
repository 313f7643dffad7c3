//! One connection that is not HTTP, from accept to its end.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Carrier, Failed, Limits, ListenerMetrics, Remote,
    handshake::{Handshakes, Transport, Up},
    io::{Io, Stream},
    open::Open,
    slots::Slot,
};

/// What all connections of a listener share.
pub(super) struct Server<C> {
    handshakes: Handshakes,
    carrier: Arc<C>,
    limits: Limits,
    metrics: ListenerMetrics,
    open: Arc<Open>,
}

impl<C: Carrier> Server<C> {
    pub(super) fn new(
        carrier: Arc<C>,
        limits: Limits,
        metrics: ListenerMetrics,
        open: Arc<Open>,
    ) -> Self {
        Self {
            handshakes: Handshakes::within(limits.handshake),
            carrier,
            limits,
            metrics,
            open,
        }
    }

    /// Carries one connection to its end. There is no answer to tell a crowd with.
    pub(super) async fn connection(self: Arc<Self>, stream: Stream, remote: Remote, slot: Slot) {
        let _counted = self.metrics.accepted(slot.crowded);
        if slot.crowded {
            return;
        }
        match self.establish(stream, &remote).await {
            Ok(up) => {
                let mut near = match up.transport {
                    Transport::Plain(stream) => Io::Plain(stream, Bytes::new()),
                    Transport::Tls(stream) => Io::Tls(stream),
                };
                let now = Instant::now();
                let entered = self.open.enter(now, self.limits.end(now, up.expires));
                C::carry(up.session, &mut near, entered.ends).await;
            }
            Err(why) => {
                self.metrics.failed(&why);
                self.carrier.failed(&remote, &why);
            }
        }
    }

    /// Handshake, then [`Carrier::open`].
    async fn establish(&self, stream: Stream, remote: &Remote) -> Result<Up<C::Session>, Failed> {
        let security = self.carrier.security();
        let secured = self.handshakes.secure(stream, remote, security).await?;
        secured.open(|connection| self.carrier.open(connection))
    }
}

//! Whether there is an identity, and why not.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::Status;
use warifu::identity::Identity;

use crate::{http::server::Draining, identity, local::absence};

/// What every stream watches; one clone for each.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    identity: identity::Current,
    renewal: watch::Receiver<identity::Status>,
    draining: Draining,
}

impl Standing {
    pub(super) fn new(
        identity: identity::Current,
        renewal: watch::Receiver<identity::Status>,
        draining: Draining,
    ) -> Self {
        Self {
            identity,
            renewal,
            draining,
        }
    }

    /// The identity as it is now, or the status that says why there is none.
    pub(super) fn identity(&mut self) -> Result<Arc<Identity>, Status> {
        if self.draining.has_started() {
            return Err(absence::draining());
        }
        let identity = self.identity.borrow_and_update().clone();
        let renewal = self.renewal.borrow_and_update();
        identity.ok_or_else(|| absence::status(&renewal))
    }

    /// Whether the next moments may bring an identity.
    pub(super) fn may_pass(&self) -> bool {
        !self.draining.has_started() && !self.renewal.borrow().refused
    }

    /// Waits for a change since [`Standing::identity`] was asked. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        let absent = self.identity.borrow().is_none();
        tokio::select! {
            _ = self.draining.started() => {}
            Ok(()) = self.identity.changed() => {}
            // Only where there is no identity is it told how renewing goes.
            Ok(()) = self.renewal.changed(), if absent => {}
            // Nobody publishes any more.
            else => std::future::pending().await,
        }
    }
}

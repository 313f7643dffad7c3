//! A listener's configuration, replaced while it serves.

use std::{num::NonZeroU32, sync::Arc};

use super::{
    Inbound, StartError, permissive_mode,
    terms::{Made, Terms},
};
use crate::config::inbound as config;

/// A listener that serves, whose terms can change.
#[derive(Debug, Clone)]
pub struct Live(pub(super) Arc<Inbound>);

/// New terms of a listener, made and not in force yet.
#[derive(Debug)]
pub struct Change {
    inbound: Arc<Inbound>,
    made: Made,
}

impl Live {
    /// Whether `config` is of this listener: where it is, whether there is an app behind it, and whether that speaks
    /// HTTP, can't change.
    pub fn is_of(&self, config: &config::Inbound) -> bool {
        let now = &self.0.terms().config;
        now.listen == config.listen
            && now.ext_authz.is_some() == config.ext_authz.is_some()
            && now.is_opaque() == config.is_opaque()
    }

    /// What it serves by now; its rules are not in it.
    pub fn config(&self) -> config::Inbound {
        self.0.terms().config.clone()
    }

    /// Makes of `config` what the listener would serve by, and reads all that it names: nothing changes before
    /// [`Change::apply`].
    ///
    /// # Errors
    /// As [`start`](super::start).
    pub async fn prepare(
        &self,
        config: &config::Inbound,
        allowed_one_in: NonZeroU32,
    ) -> Result<Change, StartError> {
        let before = self.0.terms();
        let environment = &self.0.environment;
        let made = Terms::of(config, allowed_one_in, environment, Some(&before))?;
        if !Arc::ptr_eq(&made.terms.authenticator, &before.authenticator) {
            made.terms.authenticator.prepare().await?;
        }
        Ok(Change {
            inbound: Arc::clone(&self.0),
            made,
        })
    }
}

impl Change {
    /// From now on requests are decided by it, on live connections as well.
    pub fn apply(self) {
        let Self { inbound, made } = self;
        let terms = match made.in_force() {
            Ok(terms) => Arc::new(terms),
            // Its directory was writable a moment ago. An app that could not verify who calls would refuse everybody.
            Err(error) => {
                let listen = &inbound.address;
                tracing::error!(%listen, %error, "the listener goes on as before; reload again");
                return;
            }
        };
        let config = &terms.config;
        if let Some(permissive) = config.permissive
            && inbound.terms().config.permissive != config.permissive
        {
            permissive_mode(&config.listen, permissive);
        }
        inbound.enforce(terms);
        inbound.environment.issuers.keep_warm(None);
    }
}

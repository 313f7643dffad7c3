//! The state of the world: each request names all that is wanted, each response holds all of it.

use std::sync::Arc;

use tonic::Status;
use warifu::identity::Identity;

use super::{
    super::{
        asker::Asker,
        proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
    },
    conversation::Talk,
    metrics::Metrics,
    secrets::{Secrets, TYPE_URL, Version},
    subscription::{Subscription, Versions, of_our_type},
};

/// A client that asks for the state of the world.
#[derive(Debug)]
pub(crate) struct World {
    subscription: Subscription,
    /// Whether it ever named anything: then no name means nothing, not everything.
    named: bool,
}

impl World {
    pub(super) fn new(asker: Asker, metrics: Metrics) -> Self {
        Self {
            subscription: Subscription::new(asker, metrics),
            named: false,
        }
    }

    /// The answer to a request that is the only one.
    ///
    /// # Errors
    /// As for streams.
    pub(super) fn once(
        mut self,
        request: DiscoveryRequest,
        identity: &Arc<Identity>,
    ) -> Result<DiscoveryResponse, Status> {
        self.hear(request)?;
        let wanted = self.subscription.wanted(identity)?;
        Ok(response(&wanted, identity, String::new()))
    }
}

impl Talk for World {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn hear(&mut self, request: DiscoveryRequest) -> Result<(), Status> {
        of_our_type(&request.type_url)?;
        let nonce = &request.response_nonce;
        if let Some(why) = &request.error_detail {
            self.subscription.rejected(nonce, why);
        }
        // Said before the last response was read. Its answer will name what is wanted then.
        if self.subscription.is_stale(nonce) {
            return Ok(());
        }
        self.named |= !request.resource_names.is_empty();
        self.subscription.clear();
        match self.named {
            true => self.subscription.add(request.resource_names)?,
            false => self.subscription.add_everything(),
        }
        self.subscription.forget_the_rest();
        Ok(())
    }

    fn say(&mut self, identity: &Arc<Identity>) -> Result<Option<DiscoveryResponse>, Status> {
        let wanted = self.subscription.wanted(identity)?;
        if wanted == self.subscription.sent {
            return Ok(None);
        }
        let nonce = self.subscription.next_nonce();
        let response = response(&wanted, identity, nonce);
        self.subscription.sent = wanted;
        Ok(Some(response))
    }
}

fn response(wanted: &Versions, identity: &Identity, nonce: String) -> DiscoveryResponse {
    let secrets = Secrets(identity);
    let resource = |name: &String| Some(secrets.find(name)?.resource(name));
    DiscoveryResponse {
        version_info: version_of(wanted),
        resources: wanted.keys().filter_map(resource).collect(),
        type_url: TYPE_URL.to_owned(),
        nonce,
    }
}

/// One version for all of them.
pub(super) fn version_of(versions: &Versions) -> String {
    let mut all = Version::default();
    for (name, version) in versions {
        all.add(name.as_bytes());
        all.add(version.as_bytes());
    }
    all.finish()
}

//! Deltas: requests add and take away names, responses hold what changed.

use std::sync::Arc;

use tonic::Status;
use warifu::identity::Identity;

use super::{
    super::{
        asker::Asker,
        proto::envoy::service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
        },
    },
    conversation::Talk,
    metrics::Metrics,
    secrets::{Secrets, TYPE_URL},
    subscription::{Subscription, of_our_type},
    world::version_of,
};

/// A client that asks for deltas.
#[derive(Debug)]
pub(crate) struct Delta {
    subscription: Subscription,
    is_first: bool,
}

impl Delta {
    pub(super) fn new(asker: Asker, metrics: Metrics) -> Self {
        Self {
            subscription: Subscription::new(asker, metrics),
            is_first: true,
        }
    }
}

impl Talk for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn hear(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        of_our_type(&request.type_url)?;
        if let Some(why) = &request.error_detail {
            self.subscription.rejected(&request.response_nonce, why);
        }
        let is_first = std::mem::replace(&mut self.is_first, false);
        let asked = request.resource_names_subscribe;
        if is_first && asked.is_empty() {
            self.subscription.add_everything();
        }
        // Asked for again is sent again: the client may have dropped it meanwhile.
        for name in &asked {
            self.subscription.sent.remove(name);
        }
        self.subscription.add(asked)?;
        for name in &request.resource_names_unsubscribe {
            self.subscription.remove(name);
        }
        if is_first {
            // From a stream before this one; the versions are the same on all.
            self.subscription
                .sent
                .extend(request.initial_resource_versions);
        }
        self.subscription.forget_the_rest();
        Ok(())
    }

    fn say(&mut self, identity: &Arc<Identity>) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        let wanted = self.subscription.wanted(identity)?;
        let sent = &self.subscription.sent;
        if wanted == *sent {
            return Ok(None);
        }
        let secrets = Secrets(identity);
        let changed = wanted
            .iter()
            .filter(|(name, version)| sent.get(*name) != Some(version));
        let resources = changed.filter_map(|(name, version)| {
            Some(Resource {
                version: version.clone(),
                resource: Some(secrets.find(name)?.resource(name)),
                name: name.clone(),
            })
        });
        let resources = resources.collect();
        let removed = sent.keys().filter(|name| !wanted.contains_key(*name));
        let removed_resources = removed.cloned().collect();
        let response = DeltaDiscoveryResponse {
            system_version_info: version_of(&wanted),
            resources,
            type_url: TYPE_URL.to_owned(),
            nonce: self.subscription.next_nonce(),
            removed_resources,
        };
        self.subscription.sent = wanted;
        Ok(Some(response))
    }
}

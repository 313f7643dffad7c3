//! Envoy's secret discovery (SDS v3): the identity and the roots as Envoy's secrets, pushed when they change.
//!
//! ```text
//! requests ─▶ world │ delta ─▶ what the client asked for, and what it has
//!                 ▲
//! identity ─▶ secrets: by name, with a version ─▶ conversation ─▶ responses, one at a time
//! ```
//!
//! Versions are made of what a secret says, so they are the same on every stream and after a restart, and a push
//! that says nothing new is never made. What is sent is made when there is room for it: to a client that reads
//! slowly only the newest state is pending (S14).

use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    absence,
    asker::Asker,
    proto::envoy::service::{
        discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse},
        secret::v3::secret_discovery_service_server::{
            SecretDiscoveryService, SecretDiscoveryServiceServer,
        },
    },
};
use crate::{http::server::Draining, identity};
use conversation::Conversation;
use delta::Delta;
use standing::Standing;
use world::World;

mod conversation;
mod delta;
mod secrets;
mod standing;
mod subscription;
#[cfg(test)]
mod tests;
mod world;

/// Longest request, in bytes. One of Envoy's names a secret or two, and says who Envoy is.
const MAX_REQUEST: usize = 64 * 1024;

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Sds(Standing);

/// Secrets of `identity`, for as long as it is not `draining`.
pub(super) fn service(
    identity: identity::Current,
    renewal: watch::Receiver<identity::Status>,
    draining: Draining,
) -> SecretDiscoveryServiceServer<Sds> {
    let sds = Sds(Standing::new(identity, renewal, draining));
    SecretDiscoveryServiceServer::new(sds).max_decoding_message_size(MAX_REQUEST)
}

#[async_trait]
impl SecretDiscoveryService for Sds {
    type DeltaSecretsStream = Conversation<Delta, Streaming<DeltaDiscoveryRequest>>;
    type StreamSecretsStream = Conversation<World, Streaming<DiscoveryRequest>>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        let talk = Delta::new(admitted(&request)?);
        let stream = Conversation::new(talk, request.into_inner(), self.0.clone());
        Ok(Response::new(stream))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let talk = World::new(admitted(&request)?);
        let stream = Conversation::new(talk, request.into_inner(), self.0.clone());
        Ok(Response::new(stream))
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let talk = World::new(admitted(&request)?);
        let identity = self.0.clone().identity()?;
        talk.once(request.into_inner(), &identity)
            .map(Response::new)
    }
}

/// Who asks, if it may (S20).
fn admitted<T>(request: &Request<T>) -> Result<Asker, Status> {
    let asker = request.extensions().get::<Asker>();
    match asker.filter(|asker| asker.may_ask()) {
        Some(asker) => Ok(asker.clone()),
        None => {
            let asker = asker.map(|asker| asker.remote().to_string());
            tracing::debug!(
                asker,
                "a process that may not ask asked for Envoy's secrets"
            );
            Err(absence::not_for_you())
        }
    }
}

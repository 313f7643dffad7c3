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
use tonic::{Code, Request, Response, Status, Streaming, async_trait};

use super::{
    absence,
    asker::Asker,
    calls::{Open, Places},
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

pub(super) use metrics::Metrics;

mod conversation;
mod delta;
mod metrics;
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
pub(super) struct Sds {
    standing: Standing,
    places: Places,
    metrics: Metrics,
}

/// Secrets of `identity`, for as long as it is not `draining`.
pub(super) fn service(
    identity: identity::Current,
    renewal: watch::Receiver<identity::Status>,
    draining: Draining,
    (places, metrics): (Places, Metrics),
) -> SecretDiscoveryServiceServer<Sds> {
    let sds = Sds {
        standing: Standing::new(identity, renewal, draining),
        places,
        metrics,
    };
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
        let opened = self.opened(&request);
        self.answered(
            "DeltaSecrets",
            opened.map(|(asker, open)| {
                let talk = Delta::new(asker, self.metrics.clone());
                Conversation::new(talk, request.into_inner(), self.standing.clone(), open)
            }),
        )
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let opened = self.opened(&request);
        self.answered(
            "StreamSecrets",
            opened.map(|(asker, open)| {
                let talk = World::new(asker, self.metrics.clone());
                Conversation::new(talk, request.into_inner(), self.standing.clone(), open)
            }),
        )
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let fetched = admitted(&request).and_then(|asker| {
            let talk = World::new(asker, self.metrics.clone());
            let identity = self.standing.clone().identity()?;
            talk.once(request.into_inner(), &identity)
        });
        self.answered("FetchSecrets", fetched)
    }
}

impl Sds {
    /// Who asks, if it may, and the place of its stream, if there is one.
    fn opened<T>(&self, request: &Request<T>) -> Result<(Asker, Open), Status> {
        Ok((admitted(request)?, self.metrics.calls.open(&self.places)?))
    }

    fn answered<T>(
        &self,
        method: &'static str,
        answer: Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        self.metrics.calls.answered(method, code);
        answer.map(Response::new)
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

//! The unix socket of gRPC: SPIFFE Workload API, Envoy's secret discovery, health, reflection.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::{
    Setup,
    asker::Door,
    grpc::{Server, Services},
    proto, sds,
};
use crate::{
    config::local::WorkloadApi,
    http::server::{self, Limits, Listener},
};

/// Serves on `listener`, in a task of the current runtime.
pub(super) fn start(
    config: &WorkloadApi,
    listener: Listener,
    setup: &Setup<'_>,
) -> JoinHandle<usize> {
    let services = Services::new(Door::new(&config.clients));
    let services = services.with(sds::service(
        setup.identity.clone(),
        setup.renewal.watch_status(),
        setup.draining.clone(),
    ));
    let services = match reflection() {
        Ok(reflection) => services.with(reflection),
        Err(why) => {
            tracing::error!(%why, "server reflection is not served; please report this");
            services
        }
    };
    tokio::spawn(server::serve(
        listener,
        Arc::new(Server(Arc::new(services))),
        Limits::default(),
        setup.server_metrics.listener("workload-api"),
        setup.draining.clone(),
    ))
}

/// What is served here, for clients that ask.
fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<
        impl tonic_reflection::server::v1::ServerReflection,
    >,
    tonic_reflection::server::Error,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .build_v1()
}

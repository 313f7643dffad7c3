//! The unix socket of gRPC: SPIFFE Workload API, Envoy's secret discovery, health, reflection.

use std::{convert::Infallible, sync::Arc};

use tokio::task::JoinHandle;
use tonic::server::NamedService as _;
use tonic_health::ServingStatus;

use super::{
    Setup,
    asker::Door,
    calls::{MAX_STREAMS, Places},
    grpc::Services,
    proto, sds,
    server::Server,
};
use crate::{
    config::{local::WorkloadApi, value::Listen},
    http::server::{self, Limits, Listener, ListenerMetrics},
    identity,
};
use service::Api;

pub use metrics::Metrics;

mod jwt;
mod metrics;
mod service;
mod snapshot;
#[cfg(test)]
mod tests;
mod updates;

/// Serves on `listener`, in a task of the current runtime.
pub(super) fn start(
    config: &WorkloadApi,
    listener: Listener,
    setup: &Setup<'_>,
) -> JoinHandle<usize> {
    let places = Places::new(MAX_STREAMS);
    let api = Api::new(
        setup.identity.clone(),
        setup.renewal.watch_status(),
        setup.tokens.requested(),
        config.hint.clone().unwrap_or_default(),
        (places.clone(), setup.metrics.workload_api.clone()),
    );
    if let Listen::Tcp(address) = &config.listen {
        tracing::warn!(
            %address,
            "local.workload_api.unsafe_tcp: every process of this machine (its pod or task) may have this workload's private key"
        );
    }
    let sds = sds::service(
        setup.identity.clone(),
        setup.renewal.watch_status(),
        setup.draining.clone(),
        (places, setup.metrics.sds.clone()),
    );
    let services = Services::new(setup.draining.clone()).with(api).with(sds);
    let metrics = setup.server_metrics.listener("workload-api");
    let door = Door::new(&config.clients);
    serve(listener, door, services, setup.identity.clone(), metrics)
}

/// Serves `services`, and beside them what every server of gRPC has.
fn serve(
    listener: Listener,
    door: Door,
    services: Services,
    identity: identity::Current,
    metrics: ListenerMetrics,
) -> JoinHandle<usize> {
    let draining = services.draining();
    let services = services.at(listener.address());
    let (reporter, health) = tonic_health::server::health_reporter();
    let services = services.with(health);
    let services = match reflection() {
        Ok(reflection) => services.with(reflection),
        Err(why) => {
            tracing::error!(%why, "server reflection is not served; please report this");
            services
        }
    };
    let server = Server::new(door, Arc::new(services));
    let serving = server::serve(listener, server, Limits::default(), metrics, draining);
    let reporting = report_health(reporter, identity);
    tokio::spawn(async move {
        tokio::select! {
            // First, so that nobody hears of health before there is an identity.
            biased;
            never = reporting => match never {},
            cut = serving => cut,
        }
    })
}

/// Tells whether there is an identity, for the server and for the service.
async fn report_health(
    reporter: tonic_health::server::HealthReporter,
    mut identity: identity::Current,
) -> Infallible {
    loop {
        let status = match identity.borrow_and_update().is_some() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        for service in ["", Api::NAME] {
            reporter.set_service_status(service, status).await;
        }
        if identity.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
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
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
}

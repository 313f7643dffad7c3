//! gRPC over the process's own HTTP server: it knows who asks, limits connections and drains; tonic knows the
//! messages.

use std::{convert::Infallible, future::Future, pin::Pin, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::{Status, body::Body as Message, server::NamedService};
use tower_service::Service as Tower;

use super::{absence, asker::Asker, guard::guard, server::Answers};
use crate::{
    config::value::Listen,
    http::{body::Body, grpc, server::Draining},
};

/// Time until an answer begins: for the request's message to come, and for a token to be minted. Streams may then go
/// on for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

type Answer = Pin<Box<dyn Future<Output = Response<Message>> + Send>>;
type Handler = Box<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// gRPC services. Each request carries its [`Asker`] as an extension.
pub(super) struct Services {
    draining: Draining,
    /// Where they are, over TCP.
    tcp: Option<Listen>,
    services: Vec<(String, Handler)>,
}

impl Services {
    /// None yet. Streams end when `draining` starts, as [`absence::draining`] has it.
    pub(super) fn new(draining: Draining) -> Self {
        Self {
            draining,
            tcp: None,
            services: Vec::new(),
        }
    }

    /// Over TCP, only what is meant for a listener at `address` is served (S20). On a unix socket Envoy says for whom
    /// it asks, as a proxy.
    #[must_use]
    pub(super) fn at(mut self, address: &Listen) -> Self {
        self.tcp = matches!(address, Listen::Tcp(_)).then(|| address.clone());
        self
    }

    /// What ends them.
    pub(super) fn draining(&self) -> Draining {
        self.draining.clone()
    }

    /// Adds a service, as tonic generates them.
    #[must_use]
    pub(super) fn with<S>(mut self, service: S) -> Self
    where
        S: Tower<Request<Incoming>, Response = Response<Message>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let handler = move |request| -> Answer {
            let mut service = service.clone();
            // Services of tonic's are always ready, and never fail.
            let answer = service.call(request);
            Box::pin(async move {
                match answer.await {
                    Ok(answer) => answer,
                    Err(never) => match never {},
                }
            })
        };
        self.services
            .push((format!("/{}/", S::NAME), Box::new(handler)));
        self
    }

    fn handle(&self, request: Request<Incoming>) -> Answer {
        if let Some(listen) = &self.tcp
            && let Err(why) = guard(listen, &request)
        {
            let refused = Status::invalid_argument(why.to_string());
            return Box::pin(std::future::ready(refused.into_http()));
        }
        let path = request.uri().path();
        let service = self
            .services
            .iter()
            .find(|(prefix, _)| path.starts_with(prefix.as_str()));
        match service {
            Some((_, handler)) => handler(request),
            None => {
                let unknown = Status::unimplemented(format!("{path}: no such method here"));
                Box::pin(std::future::ready(unknown.into_http()))
            }
        }
    }
}

impl Answers for Services {
    async fn answer(&self, asker: &Asker, mut request: Request<Incoming>) -> Response<Body> {
        request.extensions_mut().insert(asker.clone());
        let answer = match self.draining.has_started() {
            true => absence::draining().into_http(),
            false => tokio::time::timeout(ANSWER_WITHIN, self.handle(request))
                .await
                .unwrap_or_else(|_| late().into_http()),
        };
        let mut draining = self.draining.clone();
        grpc::answer_until(answer, async move {
            draining.started().await;
            absence::draining()
        })
    }
}

fn late() -> Status {
    Status::deadline_exceeded(format!("no answer within {ANSWER_WITHIN:?}"))
}

//! gRPC over the process's own HTTP server: it knows who asks, limits connections and drains; tonic knows the
//! messages.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tonic::{Code, Status, body::Body as Message, server::NamedService};
use tower_service::Service as Tower;

use super::asker::{Asker, Door};
use crate::http::{
    body::Body,
    server::{self, Connection, Opened, Refused},
};

type Answer = Pin<Box<dyn Future<Output = Response<Message>> + Send>>;
type Handler = Box<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// gRPC services behind one door. Each request carries its [`Asker`] as an extension.
pub(super) struct Services {
    door: Door,
    services: Vec<(String, Handler)>,
}

/// What the requests of one connection share.
pub(super) struct Session {
    asker: Asker,
    services: Arc<Services>,
}

impl Services {
    pub(super) fn new(door: Door) -> Self {
        Self {
            door,
            services: Vec::new(),
        }
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

    fn answer(&self, request: Request<Incoming>) -> Answer {
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

/// A service on a listener.
pub(super) struct Server(pub(super) Arc<Services>);

impl server::Service for Server {
    type Session = Session;

    fn open(&self, connection: Connection) -> Result<Opened<Session>, Refused> {
        let session = Session {
            asker: self.0.door.asker(connection.remote),
            services: Arc::clone(&self.0),
        };
        Ok(Opened {
            session: Arc::new(session),
            expires: None,
        })
    }

    async fn call(session: Arc<Session>, mut request: Request<Incoming>) -> Response<Body> {
        request.extensions_mut().insert(session.asker.clone());
        let answer = session.services.answer(request).await;
        answer.map(|body| Body::stream(Infallibly(body)))
    }
}

/// A body whose errors became the status that gRPC ends a stream with.
struct Infallibly(Message);

impl http_body::Body for Infallibly {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = Pin::new(&mut self.0).poll_frame(cx);
        frame.map(|frame| frame.map(|frame| Ok(frame.unwrap_or_else(|status| ended_with(&status)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

fn ended_with(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        let code = Code::Internal as i32;
        trailers.insert("grpc-status", HeaderValue::from(code));
    }
    Frame::trailers(trailers)
}

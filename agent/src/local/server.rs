//! Servers of this machine: every request comes with who asks.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use super::asker::{Asker, Door};
use crate::http::{
    body::Body,
    server::{self, Connection, Opened, Refused},
};

/// What answers requests of this machine.
pub(super) trait Answers: Send + Sync + 'static {
    /// Answers `asker`, who may turn out to be one that may not ask.
    fn answer(
        &self,
        asker: &Asker,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Something that answers, on a listener.
pub(super) struct Server<A> {
    door: Door,
    answers: Arc<A>,
}

/// What the requests of one connection share.
pub(super) struct Session<A> {
    asker: Asker,
    answers: Arc<A>,
}

impl<A> Server<A> {
    pub(super) fn new(door: Door, answers: Arc<A>) -> Arc<Self> {
        Arc::new(Self { door, answers })
    }
}

impl<A: Answers> server::Service for Server<A> {
    type Session = Session<A>;

    fn open(&self, connection: Connection) -> Result<Opened<Session<A>>, Refused> {
        let session = Session {
            asker: self.door.asker(connection.remote),
            answers: Arc::clone(&self.answers),
        };
        Ok(Opened {
            session: Arc::new(session),
            expires: None,
        })
    }

    async fn call(session: Arc<Session<A>>, request: Request<Incoming>) -> Response<Body> {
        session.answers.answer(&session.asker, request).await
    }
}

//! The body of a stream: the whole state first, and again whenever it changed.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;

use super::snapshot::{Content, Snapshots};
use crate::{
    identity,
    local::{absence, calls::Open},
};

/// Where a stream stands.
pub(super) struct Follower {
    pub(super) identity: identity::Current,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) content: Content,
    /// What was sent last.
    pub(super) sent: Option<Bytes>,
    /// Its place among the open streams.
    pub(super) _open: Open,
}

/// A stream of frames. It ends with an error always: a client takes an `OK` for the end of all.
pub(super) struct Updates(State);

type Step = Pin<Box<dyn Future<Output = (Follower, Result<Bytes, Status>)> + Send>>;

enum State {
    Following(Step),
    Ended,
}

impl Follower {
    /// The next state that differs from the last that was sent. What came and went meanwhile is skipped.
    async fn next(&mut self) -> Result<Bytes, Status> {
        loop {
            let Some(identity) = self.identity.borrow_and_update().clone() else {
                self.snapshots.forget();
                return Err(absence::withdrawn());
            };
            let snapshot = self.snapshots.of(&identity);
            let bytes = snapshot.get(self.content);
            if self.sent.as_ref() != Some(bytes) {
                self.sent = Some(bytes.clone());
                return Ok(bytes.clone());
            }
            drop((identity, snapshot));
            if self.identity.changed().await.is_err() {
                return Err(absence::draining());
            }
        }
    }
}

impl Updates {
    pub(super) fn new(follower: Follower) -> Self {
        Self(State::Following(step(follower)))
    }
}

fn step(mut follower: Follower) -> Step {
    Box::pin(async move {
        let next = follower.next().await;
        (follower, next)
    })
}

impl http_body::Body for Updates {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let State::Following(next) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let Poll::Ready((follower, next)) = next.as_mut().poll(cx) else {
            return Poll::Pending;
        };
        match next {
            Ok(bytes) => {
                self.0 = State::Following(step(follower));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Err(status) => {
                self.0 = State::Ended;
                Poll::Ready(Some(Err(status)))
            }
        }
    }
}

//! A connection in use, and the response body it is tied to.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::{Inner, lock, shelf::Connection};
use crate::http::{
    body::BodyError,
    headers::Filter,
    patience::Deadline,
    still::{Asked, Still},
};

/// A connection that carries a request. Dropped before its response ended, it takes the connection
/// along (HTTP/1.1) or just its stream (HTTP/2).
#[derive(Debug)]
pub(super) struct Lease {
    upstream: Arc<Inner>,
    connection: Option<Connection>,
}

impl Lease {
    pub(super) fn new(upstream: &Arc<Inner>, connection: Connection) -> Self {
        Self {
            upstream: Arc::clone(upstream),
            connection: Some(connection),
        }
    }

    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }

    /// Why the connection broke, where its task knows.
    pub(super) fn ended(&self) -> Option<String> {
        let driver = match self.connection.as_ref()? {
            Connection::H1(h1) => &h1.driver,
            Connection::H2(h2) => &h2.driver,
        };
        driver.ended.get().cloned()
    }

    /// The response was read to its end: the next request may have the connection.
    pub(super) fn finished(&mut self) {
        self.give_back();
    }

    /// Nothing was sent at all.
    pub(super) fn unused(&mut self) {
        self.give_back();
    }

    fn give_back(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let now = Instant::now();
        let mut shelf = lock(&self.upstream.shelf);
        let surplus = match connection {
            Connection::H1(h1) => shelf.put(h1, now, &self.upstream.keep),
            Connection::H2(h2) => {
                shelf.stream_ended(h2.id, now);
                None
            }
        };
        drop(shelf);
        drop(surplus);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.connection.take() {
            // The task might wait for a peer that neither reads nor writes: don't leave it to that.
            Some(Connection::H1(h1)) => h1.driver.task.abort(),
            Some(Connection::H2(h2)) => {
                lock(&self.upstream.shelf).stream_ended(h2.id, Instant::now());
            }
            None => {}
        }
    }
}

/// A response's body that gives its connection back when it was read to its end.
#[derive(Debug)]
pub struct PooledBody {
    body: Incoming,
    lease: Lease,
    /// What is removed from its trailers.
    filter: Option<Arc<Filter>>,
    late: Option<Late>,
    /// Whether it may go on. In a box: few are open for so long that anyone asks.
    asked: Option<Box<Asked>>,
}

/// When a body has to have ended.
#[derive(Debug)]
struct Late {
    at: Pin<Box<Sleep>>,
    limit: Duration,
}

impl PooledBody {
    pub(super) fn new(body: Incoming, lease: Lease) -> Self {
        Self {
            body,
            lease,
            filter: None,
            late: None,
            asked: None,
        }
    }

    /// Removes from its trailers what `filter` removes.
    pub(in crate::http) fn filter_trailers(&mut self, filter: &Arc<Filter>) {
        self.filter = Some(Arc::clone(filter));
    }

    /// Breaks off at this time.
    pub(in crate::http) fn end_by(&mut self, deadline: Deadline) {
        let at = Box::pin(tokio::time::sleep_until(deadline.at));
        let limit = deadline.whole;
        self.late = Some(Late { at, limit });
    }

    /// Breaks off when `still` says that it may not go on.
    pub(in crate::http) fn while_still(&mut self, still: Still) {
        self.asked = Some(Box::new(Asked::new(still)));
    }

    pub(in crate::http) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(asked) = &mut self.asked
            && let Err(why) = asked.poll(cx)
        {
            return Poll::Ready(Some(Err(BodyError::Withdrawn(why))));
        }
        let Poll::Ready(mut frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            let Some(late) = &mut self.late else {
                return Poll::Pending;
            };
            ready!(late.at.as_mut().poll(cx));
            return Poll::Ready(Some(Err(BodyError::Late(late.limit))));
        };
        match &frame {
            // Readers with a length stop at the last byte; those without at trailers or the end.
            Some(Ok(frame)) if frame.is_data() && !self.body.is_end_stream() => {}
            Some(Ok(_)) | None => self.lease.finished(),
            Some(Err(_)) => {}
        }
        if let (Some(filter), Some(Ok(frame))) = (&self.filter, &mut frame)
            && let Some(trailers) = frame.trailers_mut()
        {
            filter.strip_trailers(trailers);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    pub(in crate::http) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(in crate::http) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! gRPC's answers as bodies of ours: whatever happens, they end with a status.

use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body as Message};

use super::body::Body;

/// `answer`, which ends by itself.
pub fn answer(answer: Response<Message>) -> Response<Body> {
    answer_until(answer, pending())
}

/// The same, ended with the status of `until` where that comes first.
pub fn answer_until(
    answer: Response<Message>,
    until: impl Future<Output = Status> + Send + 'static,
) -> Response<Body> {
    answer.map(|body| {
        Body::stream(Ending {
            body: Some(body),
            until: Box::pin(until),
        })
    })
}

/// A body that ends with a status: its own, that of its error, or another's.
struct Ending {
    /// Until it has ended.
    body: Option<Message>,
    until: Pin<Box<dyn Future<Output = Status> + Send>>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let status = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Err(status))) => status,
            Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Some(Ok(frame))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => match self.until.as_mut().poll(cx) {
                Poll::Ready(status) => status,
                Poll::Pending => return Poll::Pending,
            },
        };
        self.body = None;
        Poll::Ready(Some(Ok(ended_with(&status))))
    }

    fn is_end_stream(&self) -> bool {
        self.body
            .as_ref()
            .is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map(http_body::Body::size_hint)
            .unwrap_or_default()
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

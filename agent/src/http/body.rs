//! The body of a proxied message: streamed, whole, or empty. An enum, so the common case costs no allocation.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use thiserror::Error;

use super::{headers::Filter, patience::Deadline, pool::PooledBody, still::Still};
pub use upload::{Phase, Progress, Upload};

mod upload;

/// A body on its way through.
#[derive(Debug)]
pub enum Body {
    /// As it comes from the other side.
    Incoming(Incoming),
    /// Known whole: an answer of ours, or a request that was buffered to be signed.
    Full(Full<Bytes>),
    /// A response of a pooled connection, which it gives back at its end.
    Pooled(PooledBody),
    /// An answer of ours that is made as it is sent.
    Stream(Stream),
    /// A request on its way.
    Upload(Upload),
}

/// Why a body broke off.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Its connection did.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// It had not ended when its time had.
    #[error("it took longer than {0:?}")]
    Late(Duration),
    /// It has more bytes than this.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// What let it in no longer does.
    #[error("it may not go on: {0}")]
    Withdrawn(String),
}

/// Ends only by itself.
pub struct Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Infallible> + Send>>);

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl Body {
    /// An answer that is made as it is sent.
    pub fn stream(
        body: impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
    ) -> Self {
        Self::Stream(Stream(Box::pin(body)))
    }

    /// No body.
    pub fn empty() -> Self {
        Self::Full(Full::default())
    }

    /// Removes from a response's trailers what `filter` removes from its headers.
    pub fn filter_trailers(&mut self, filter: &Arc<Filter>) {
        if let Self::Pooled(body) = self {
            body.filter_trailers(filter);
        }
    }

    /// A response must have ended by then, or breaks off.
    pub fn end_by(&mut self, deadline: Deadline) {
        if let Self::Pooled(body) = self {
            body.end_by(deadline);
        }
    }

    /// A response breaks off when `still` says that it may not go on. One that is nearly over is not asked.
    pub fn while_still(&mut self, still: impl FnOnce() -> Still) {
        if is_long(self)
            && let Self::Pooled(body) = self
        {
            body.while_still(still());
        }
    }

    /// The same body again, where that is possible: it is whole, or empty.
    pub fn replay(&self) -> Option<Self> {
        match self {
            Self::Full(body) => Some(Self::Full(body.clone())),
            _ if http_body::Body::is_end_stream(self) => Some(Self::empty()),
            _ => None,
        }
    }
}

/// A body that may take long: nobody knows how much there is of it, or it is more than this. So much is under way
/// anyway, in the buffers between its ends, before anybody could be asked about it.
const SHORT: u64 = 256 * 1024;

/// Whether a body may take long.
pub fn is_long(body: &impl http_body::Body) -> bool {
    !body.is_end_stream() && body.size_hint().exact().is_none_or(|size| size > SHORT)
}

impl From<Incoming> for Body {
    fn from(body: Incoming) -> Self {
        Self::Incoming(body)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Full::new(bytes))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Self::Full(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Self::Pooled(body) => body.poll_frame(cx),
            Self::Stream(Stream(body)) => {
                body.as_mut().poll_frame(cx).map_err(|never| match never {})
            }
            Self::Upload(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Incoming(body) => body.is_end_stream(),
            Self::Full(body) => body.is_end_stream(),
            Self::Pooled(body) => body.is_end_stream(),
            Self::Stream(Stream(body)) => body.is_end_stream(),
            Self::Upload(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(body) => body.size_hint(),
            Self::Full(body) => body.size_hint(),
            Self::Pooled(body) => body.size_hint(),
            Self::Stream(Stream(body)) => body.size_hint(),
            Self::Upload(body) => body.size_hint(),
        }
    }
}

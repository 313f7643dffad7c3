//! A request's body that a test sends piece by piece.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// Sends; the body ends when it is dropped.
#[derive(Debug)]
pub struct Sender(mpsc::Sender<Frame<Bytes>>);

/// The body.
#[derive(Debug)]
pub struct Streamed(mpsc::Receiver<Frame<Bytes>>);

/// A body and what sends it; one piece waits between them.
pub fn streamed() -> (Sender, Streamed) {
    let (sender, receiver) = mpsc::channel(1);
    (Sender(sender), Streamed(receiver))
}

impl Sender {
    /// Sends data, when the other end has room.
    pub async fn data(&self, data: impl Into<Bytes>) {
        let frame = Frame::data(data.into());
        self.0.send(frame).await.expect("the body is still read");
    }

    /// Sends trailers.
    pub async fn trailers(self, trailers: HeaderMap) {
        let frame = Frame::trailers(trailers);
        self.0.send(frame).await.expect("the body is still read");
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

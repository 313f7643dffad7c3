//! The byte streams a server reads and writes.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::server::TlsStream;

use super::socket_path::SocketPath;
use crate::http::origin;

/// What an HTTP/2 client without TLS begins with (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An accepted connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Where it was accepted, as the client saw it.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

impl origin::Stream for Stream {
    fn cut(&mut self) {
        match self {
            Self::Tcp(stream) => stream.cut(),
            Self::Unix(stream) => stream.cut(),
        }
    }
}

impl origin::Stream for Io {
    fn cut(&mut self) {
        match self {
            Self::Plain(stream, _) => stream.cut(),
            Self::Local(stream, ..) => stream.cut(),
            Self::Tls(stream) => stream.cut(),
        }
    }
}

/// A connection that HTTP is spoken over.
#[derive(Debug)]
pub(super) enum Io {
    /// Without TLS, and what was read of it already.
    Plain(Stream, Bytes),
    /// HTTP/2 over a unix socket, and what was read of it already.
    Local(UnixStream, Bytes, SocketPath),
    Tls(Box<TlsStream<Stream>>),
}

impl Io {
    /// Reads until it is clear which HTTP a client without TLS speaks; true for HTTP/2.
    pub(super) async fn plain(mut stream: Stream) -> io::Result<(Self, bool)> {
        let mut read = Vec::with_capacity(PREFACE.len());
        while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
            let mut rest = (&mut stream).take((PREFACE.len() - read.len()) as u64);
            if rest.read_buf(&mut read).await? == 0 {
                break;
            }
        }
        let h2 = read == PREFACE;
        let read = read.into();
        let io = match stream {
            Stream::Unix(stream) if h2 => Self::Local(stream, read, SocketPath::new()),
            stream => Self::Plain(stream, read),
        };
        Ok((io, h2))
    }

    /// What is below.
    pub(super) fn socket(&mut self) -> &mut (dyn AsyncRead + Send + Unpin) {
        match self {
            Self::Plain(stream, _) => stream,
            Self::Local(stream, ..) => stream,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Plain(stream, read) if read.is_empty() => Pin::new(stream).poll_read(cx, buf),
            Self::Local(stream, read, path) if read.is_empty() => {
                let before = buf.filled().len();
                let polled = Pin::new(stream).poll_read(cx, buf);
                path.rewrite(buf.filled_mut().get_mut(before..).unwrap_or_default());
                polled
            }
            Self::Plain(_, read) | Self::Local(_, read, _) => {
                let length = read.len().min(buf.remaining());
                buf.put_slice(read.get(..length).unwrap_or_default());
                read.advance(length);
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// Passes the call on to whatever is inside.
macro_rules! each {
    ($self:ident, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Plain($inner, _) => $call,
            Self::Local($inner, ..) => $call,
            Self::Tls($inner) => $call,
        }
    };
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

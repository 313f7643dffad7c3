//! HTTP/1.1 with clients that are slow: to take what is written to them, and to stop sending.
//!
//! Who takes nothing holds a place of ours and one of the app's, so after a while it is cut. (HTTP/2 has its pings.)
//!
//! Who is refused before its body was read hears so while it sends. Were the connection closed then, the kernel would
//! answer what still comes with RST, and a client that hears that drops the answer it has not read yet. So our side is
//! closed, and what comes is thrown away until the client closes its own, or for a moment (RFC 9112 §9.6).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::io::Io;

/// How long a client may take nothing of an answer, whatever it is busy with: as long as Envoy leaves a stream alone.
const STALLED: Duration = Duration::from_secs(300);

/// How long a client may take to hear that it is refused, and stop: some round trips, over half the world.
const LINGERS: Duration = Duration::from_secs(2);

/// Bytes that are thrown away at once.
const PIECE: usize = 8 * 1024;

/// Whether something may have been left unread when the last request was answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    pub(super) fn is(&self, unread: bool) {
        self.0.store(unread, Ordering::Relaxed);
    }
}

/// Ends with clients that don't.
#[derive(Debug)]
pub(super) struct Bounded {
    io: Io,
    unread: Unread,
    /// When it has taken too long to take something; kept from one time to the next.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whether it takes nothing now.
    stalls: bool,
    /// Our side is closed; until when the other is listened to.
    until: Option<Pin<Box<Sleep>>>,
}

impl Bounded {
    pub(super) fn new(io: Io, unread: Unread) -> Self {
        Self {
            io,
            unread,
            stalled: None,
            stalls: false,
            until: None,
        }
    }

    /// Writes, and ends where that was waited for too long.
    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Io>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let polled = write(Pin::new(&mut self.io), cx);
        if polled.is_ready() {
            self.stalls = false;
            return polled;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED)));
        if !self.stalls {
            self.stalls = true;
            stalled.as_mut().reset(Instant::now() + STALLED);
        }
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client took nothing of its answer",
        )))
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write(cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(cx, |io, cx| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write(cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let until = match &mut this.until {
            Some(until) => until,
            None => {
                ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
                if !this.unread.0.load(Ordering::Relaxed) {
                    return Poll::Ready(Ok(()));
                }
                this.until.insert(Box::pin(tokio::time::sleep(LINGERS)))
            }
        };
        if until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut piece = [0; PIECE];
        loop {
            let mut piece = ReadBuf::new(&mut piece);
            // As it came: there is no need to decrypt it.
            let read = Pin::new(this.io.socket()).poll_read(cx, &mut piece);
            if ready!(read).is_err() || piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
        time::timeout,
    };

    use super::{super::io::Stream, *};

    fn pair() -> (Bounded, UnixStream, Unread) {
        let (near, far) = UnixStream::pair().unwrap();
        let unread = Unread::default();
        let io = Io::Plain(Stream::Unix(near), Bytes::new());
        (Bounded::new(io, unread.clone()), far, unread)
    }

    /// More than a socket holds.
    const MUCH: usize = 8 << 20;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_after_a_while_and_one_that_is_slow_is_not() {
        let (mut near, mut far, _) = pair();
        let start = Instant::now();
        let slow = tokio::spawn(async move {
            let mut taken = 0;
            let mut piece = vec![0; 1 << 20];
            while taken < MUCH {
                tokio::time::sleep(STALLED / 2).await;
                taken += far.read(&mut piece).await.unwrap();
            }
            far
        });
        near.write_all(&vec![0; MUCH]).await.unwrap();
        assert!(start.elapsed() > STALLED, "{:?}", start.elapsed());
        let far = slow.await.unwrap();

        let start = Instant::now();
        let cut = timeout(STALLED * 3, near.write_all(&vec![0; MUCH])).await;
        let cut = cut.expect("it is cut").unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
        let waited = start.elapsed();
        assert!(waited >= STALLED && waited < STALLED * 2, "{waited:?}");
        drop(far);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_unread_at_the_end_is_read_until_the_client_stops_or_a_moment_has_passed() {
        let (mut near, mut far, unread) = pair();
        unread.is(true);
        let sends = tokio::spawn(async move {
            far.write_all(&vec![0; MUCH]).await.unwrap();
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await.unwrap();
            rest
        });
        near.write_all(b"refused").await.unwrap();
        near.shutdown().await.unwrap();
        let heard = timeout(LINGERS * 2, sends).await.expect("it is read");
        assert_eq!(heard.unwrap(), b"refused");

        let (mut near, far, unread) = pair();
        unread.is(true);
        let start = Instant::now();
        near.shutdown().await.unwrap();
        let waited = start.elapsed();
        assert!(waited >= LINGERS && waited < LINGERS * 2, "{waited:?}");
        drop(far);

        // Where nothing was unread nothing is waited for.
        let (mut near, far, _) = pair();
        let start = Instant::now();
        near.shutdown().await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        drop(far);
    }
}

//! Two connections joined: bytes pass both ways until one of the two ends, or something else does.
//!
//! A half that ends is passed on as such: what still comes the other way arrives. What was read is written
//! before more is read, so neither side can make us hold more than one buffer each way.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::Extensions;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, MissedTickBehavior},
};

use super::{
    origin::Stream,
    pool::FarParts,
    still::{CHECK_EVERY, Still},
};

/// What waits for bytes has a buffer of this size, each way …
const SMALL: usize = 2 * 1024;
/// … which grows, while it is filled at once, up to this: a TLS record is 16 KiB, and four of them in one
/// go are as fast as more …
const LARGE: usize = 64 * 1024;
/// … by this factor.
const GROWTH: usize = 8;

/// What an end of ours may take to reach both sides.
const GOODBYE: Duration = Duration::from_secs(1);

/// What ends a tunnel beside its two sides.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// No byte either way for this long.
    pub idle: Duration,
    /// When what either side proved expires.
    pub ends: Option<Instant>,
    /// Asked now and then; all must agree.
    pub still: Vec<Still>,
    /// Whether an end of ours is told both sides as an end.
    goodbye: bool,
}

/// What the tunnels of one side count.
#[derive(Debug, Default)]
pub struct Metrics {
    open: Family<To, Gauge>,
    bytes: Family<Direction, Counter>,
    ended: Family<Ended, Counter>,
}

/// What the tunnels to one destination count.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    to: String,
    open: Gauge,
    /// From the near side to the far one.
    sent: Counter,
    received: Counter,
    ended: Family<Ended, Counter>,
}

/// The bytes that went through one tunnel.
#[derive(Debug, Default)]
pub struct Passed {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Passed {
    /// From the near side to the far one.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The other way.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct To {
    to: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    to: String,
    /// `sent` by who opened the tunnel, or `received`.
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    to: String,
    why: &'static str,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("tunnels", "Open tunnels, by destination", new.open.clone());
        registry.register(
            "tunnel_bytes",
            "Bytes through tunnels, by destination and direction",
            new.bytes.clone(),
        );
        registry.register(
            "tunnels_ended",
            "Tunnels that ended, by destination and reason",
            new.ended.clone(),
        );
        new
    }

    /// Those of a destination, by the name it has in the configuration.
    pub fn meter(&self, to: &str) -> Meter {
        let bytes = |direction| {
            let to = to.to_owned();
            self.bytes.get_or_create_owned(&Direction { to, direction })
        };
        let label = To { to: to.to_owned() };
        Meter {
            open: self.open.get_or_create_owned(&label),
            sent: bytes("sent"),
            received: bytes("received"),
            ended: self.ended.clone(),
            to: label.to,
        }
    }
}

/// Why a tunnel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Both sides had enough.
    Closed,
    /// One of them broke.
    Broken(String),
    /// Nothing moved for too long.
    Idle,
    /// What one of them proved has expired.
    Expired,
    /// It may not go on: why.
    Withdrawn(String),
}

impl End {
    /// A word for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken(_) => "broken",
            Self::Idle => "idle",
            Self::Expired => "expired",
            Self::Withdrawn(_) => "withdrawn",
        }
    }
}

/// A tunnel that begins where HTTP ends on the near side: when our own 101 is sent.
pub struct Tunnel {
    /// The near side, soon.
    pub near: OnUpgrade,
    /// The far side.
    pub far: FarParts,
    /// What ends it beside the two, and beside the far side's proof.
    pub bounds: Bounds,
    /// What it counts in.
    pub meter: Meter,
}

impl Tunnel {
    /// Runs it to its end, which is at `ends` at the latest.
    pub(super) async fn run(self, ends: Option<Instant>) {
        let Self {
            near,
            far,
            bounds,
            meter,
        } = self;
        match near.await {
            Ok(near) => {
                let bounds = bounds.until(ends);
                let passed = Passed::default();
                carry(&mut TokioIo::new(near), far, bounds, &meter, &passed).await;
            }
            Err(error) => {
                tracing::debug!(%error, to = meter.to, "a tunnel did not begin");
            }
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("far", &self.far)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

impl Bounds {
    /// Ends by itself after this long without a byte.
    pub fn idle(idle: Duration) -> Self {
        Self {
            idle,
            ends: None,
            still: Vec::new(),
            goodbye: true,
        }
    }

    /// An end of ours is a cut, for what has no ends of its own: a part would be taken for the whole.
    #[must_use]
    pub fn abrupt(mut self) -> Self {
        self.goodbye = false;
        self
    }

    /// Ends at this time, if not before.
    #[must_use]
    pub fn until(mut self, ends: Option<Instant>) -> Self {
        self.ends = self.ends.into_iter().chain(ends).min();
        self
    }

    /// Goes on only while `still` agrees, too.
    #[must_use]
    pub fn while_still(mut self, still: Option<Still>) -> Self {
        self.still.extend(still);
        self
    }
}

/// Ends a connection over which nothing is carried, so that its client knows it for an end.
pub async fn close(near: &mut impl Stream) {
    let _ = tokio::time::timeout(GOODBYE, near.shutdown()).await;
}

/// Passes bytes between `near` and `far` until the tunnel ends. Dropped, it cuts both.
pub async fn carry(
    near: &mut impl Stream,
    far: FarParts,
    bounds: Bounds,
    meter: &Meter,
    passed: &Passed,
) -> End {
    let FarParts {
        stream,
        ends,
        still,
        place: _place,
    } = far;
    let bounds = bounds.until(ends).while_still(still);
    join(near, stream, &bounds, meter, passed).await
}

async fn join(
    near: &mut impl Stream,
    far: impl Stream,
    bounds: &Bounds,
    meter: &Meter,
    passed: &Passed,
) -> End {
    let mut open = Open::new(meter);
    let mut both = Both {
        near,
        far,
        ended: false,
    };
    let end = until_an_end(both.near, &mut both.far, bounds, (meter, passed)).await;
    open.why = end.as_str();
    tracing::debug!(to = meter.to, ?end, "a tunnel ended");
    match end {
        End::Closed => both.ended = true,
        // What broke on one side is not passed off as an end on the other.
        End::Broken(_) => {}
        End::Idle | End::Expired | End::Withdrawn(_) if bounds.goodbye => {
            let goodbye = async { tokio::join!(both.near.shutdown(), both.far.shutdown()) };
            let _ = tokio::time::timeout(GOODBYE, goodbye).await;
            both.ended = true;
        }
        End::Idle | End::Expired | End::Withdrawn(_) => {}
    }
    end
}

/// The two sides. Dropped before they have ended, at the end of a drain too, they are cut.
struct Both<'a, N: Stream, F: Stream> {
    near: &'a mut N,
    far: F,
    ended: bool,
}

impl<N: Stream, F: Stream> Drop for Both<'_, N, F> {
    fn drop(&mut self) {
        if !self.ended {
            self.near.cut();
            self.far.cut();
        }
    }
}

async fn until_an_end(
    near: &mut impl Stream,
    far: &mut impl Stream,
    bounds: &Bounds,
    (meter, passed): (&Meter, &Passed),
) -> End {
    let moved = Moved::new();
    let (near_in, near_out) = tokio::io::split(near);
    let (far_in, far_out) = tokio::io::split(far);
    let mut both = pin!(async {
        tokio::try_join!(
            one_way(near_in, far_out, (&meter.sent, &passed.sent), &moved),
            one_way(
                far_in,
                near_out,
                (&meter.received, &passed.received),
                &moved
            ),
        )
    });
    let mut expired = pin!(async {
        match bounds.ends {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    });
    let every = CHECK_EVERY.min(bounds.idle / 2).max(MIN_CHECK);
    // Bytes pass while it is asked.
    let mut withdrawn = pin!(withdrawn(&bounds.still, every));
    let mut check = tokio::time::interval(every);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            ended = both.as_mut() => return match ended {
                Ok(_) => End::Closed,
                Err(error) => End::Broken(error.to_string()),
            },
            () = expired.as_mut() => return End::Expired,
            _ = check.tick() => {
                if moved.not_for() >= bounds.idle {
                    return End::Idle;
                }
            }
            why = withdrawn.as_mut() => return End::Withdrawn(why),
        }
    }
}

/// Waits until one of them no longer agrees; says why.
async fn withdrawn(still: &[Still], every: Duration) -> String {
    let mut check = tokio::time::interval(every);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        check.tick().await;
        for still in still {
            if let Err(why) = still.says().await {
                return why;
            }
        }
    }
}

/// A timer of no length is none.
const MIN_CHECK: Duration = Duration::from_millis(1);

/// From one side to the other, to the end, which is passed on.
async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (all, here): (&Counter, &AtomicU64),
    moved: &Moved,
) -> io::Result<()> {
    let mut buffer = vec![0; SMALL];
    loop {
        let read = read_some(&mut from, &mut buffer).await?;
        let Some(data) = buffer.get(..read).filter(|data| !data.is_empty()) else {
            return to.shutdown().await;
        };
        moved.note();
        to.write_all(data).await?;
        to.flush().await?;
        all.inc_by(read as u64);
        here.fetch_add(read as u64, Ordering::Relaxed);
        moved.note();
        if read == buffer.len() && read < LARGE {
            buffer = vec![0; (read * GROWTH).min(LARGE)];
        }
    }
}

/// As much as there is. While there is nothing, the buffer is a small one: a thousand tunnels that wait
/// hold what they need to wait.
async fn read_some(from: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut read = ReadBuf::new(buffer);
        match Pin::new(&mut *from).poll_read(cx, &mut read) {
            Poll::Ready(done) => Poll::Ready(done.map(|()| read.filled().len())),
            Poll::Pending => {
                if buffer.len() > SMALL {
                    *buffer = vec![0; SMALL];
                }
                Poll::Pending
            }
        }
    })
    .await
}

/// When something last moved, either way.
struct Moved {
    start: Instant,
    /// Milliseconds since `start`.
    last: AtomicU64,
}

impl Moved {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    fn note(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn not_for(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

/// Counts an open tunnel, and its end.
struct Open<'a> {
    meter: &'a Meter,
    why: &'static str,
}

impl<'a> Open<'a> {
    fn new(meter: &'a Meter) -> Self {
        meter.open.inc();
        // What it stays if this is dropped while bytes pass: at the end of a drain.
        let why = "cut";
        Self { meter, why }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.meter.open.dec();
        let (to, why) = (self.meter.to.clone(), self.why);
        self.meter.ended.get_or_create(&Ended { to, why }).inc();
    }
}

/// Hands something on in a message's extensions, which must be copyable, to the one who takes it.
pub struct Handover<T>(Arc<Mutex<Option<T>>>);

impl<T: Send + 'static> Handover<T> {
    /// Puts `it` into the extensions.
    pub fn put(extensions: &mut Extensions, it: T) {
        extensions.insert(Self(Arc::new(Mutex::new(Some(it)))));
    }

    /// What was put there, if nobody took it.
    pub fn take(extensions: &mut Extensions) -> Option<T> {
        let handover = extensions.remove::<Self>()?;
        let mut it = handover.0.lock().unwrap_or_else(PoisonError::into_inner);
        it.take()
    }
}

impl<T> Clone for Handover<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests;

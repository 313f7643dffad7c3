//! The time AWS has: our clock, corrected by what STS says when ours is wrong.
//!
//! The correction is for SigV4 and the expiry of STS credentials only, never for certificates or tokens.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_smithy_async::time::SharedTimeSource;
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{
            Intercept,
            context::{
                BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
            },
            dyn_dispatch_hint,
        },
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::{
    DateTime,
    config_bag::{ConfigBag, Storable, StoreReplace},
    date_time::Format,
};

/// A smaller difference is not corrected: AWS allows five minutes, and `Date` has whole seconds.
const WORTH_CORRECTING: Duration = Duration::from_secs(4 * 60);

/// A slower exchange says nothing about the clocks. Both limits are those of the AWS SDKs.
const SLOWEST_EXCHANGE: Duration = Duration::from_secs(15 * 60);

/// Our clock and how far STS's is ahead of it.
#[derive(Clone)]
pub(super) struct Clock {
    source: SharedTimeSource,
    ahead_millis: Arc<AtomicI64>,
}

impl Clock {
    pub(super) fn new(source: SharedTimeSource) -> Self {
        let ahead_millis = Arc::default();
        Self {
            source,
            ahead_millis,
        }
    }

    /// The uncorrected clock, for the SDK, which corrects for itself.
    pub(super) fn source(&self) -> SharedTimeSource {
        self.source.clone()
    }

    /// This machine's time.
    pub(super) fn uncorrected(&self) -> SystemTime {
        self.source.now()
    }

    /// AWS's time.
    pub(super) fn now(&self) -> SystemTime {
        let now = self.source.now();
        match self.skew() {
            Some(Skew::Behind(by)) => now + by,
            Some(Skew::Ahead(by)) => now.checked_sub(by).unwrap_or(now),
            None => now,
        }
    }

    /// How wrong our clock is, if that is worth correcting.
    pub(super) fn skew(&self) -> Option<Skew> {
        let millis = self.ahead_millis.load(Ordering::Relaxed);
        let by = Duration::from_millis(millis.unsigned_abs());
        match millis {
            _ if by < WORTH_CORRECTING => None,
            0.. => Some(Skew::Behind(by)),
            _ => Some(Skew::Ahead(by)),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({:?})", self.skew())
    }
}

/// Our clock against STS's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skew {
    /// Ours is late.
    Behind(Duration),
    /// Ours is early.
    Ahead(Duration),
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (by, how) = match self {
            Self::Behind(by) => (by, "behind"),
            Self::Ahead(by) => (by, "ahead of"),
        };
        write!(f, "this machine's clock is {} s {how} STS's", by.as_secs())
    }
}

/// How far the server's clock is ahead of ours, in milliseconds: its `Date` against the middle of the exchange.
fn ahead_millis(sent: SystemTime, received: SystemTime, date: &str) -> Option<i64> {
    let took = received.duration_since(sent).unwrap_or_default();
    if took > SLOWEST_EXCHANGE {
        return None;
    }
    let date = DateTime::from_str(date, Format::HttpDate).ok()?;
    let date = date.to_millis().ok()?;
    let middle = DateTime::from(sent + took / 2).to_millis().ok()?;
    date.checked_sub(middle)
}

/// Learns the skew from every answer of STS, refusals included.
#[derive(Debug)]
pub(super) struct LearnSkew(pub(super) Clock);

#[derive(Debug)]
struct Sent(SystemTime);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

#[dyn_dispatch_hint]
impl Intercept for LearnSkew {
    fn name(&self) -> &'static str {
        "LearnSkew"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let now = self.0.source.now();
        cfg.interceptor_state().store_put(Sent(now));
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        // An answer with `age` comes from a cache, and so does its `date`.
        if let (Some(Sent(sent)), Some(date), None) =
            (cfg.load::<Sent>(), headers.get("date"), headers.get("age"))
            && let Some(ahead) = ahead_millis(*sent, self.0.source.now(), date)
        {
            self.0.ahead_millis.store(ahead, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_async::time::StaticTimeSource;

    /// `Sun, 09 Sep 2001 01:46:40 GMT`
    const SECONDS: u64 = 1_000_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn measures_against_the_middle_of_the_exchange() {
        let date = "Sun, 09 Sep 2001 01:56:40 GMT";
        assert_eq!(ahead_millis(at(SECONDS), at(SECONDS), date), Some(600_000));
        assert_eq!(
            ahead_millis(at(SECONDS), at(SECONDS + 10), date),
            Some(595_000)
        );
        assert_eq!(ahead_millis(at(SECONDS), at(SECONDS + 901), date), None);
        assert_eq!(ahead_millis(at(SECONDS), at(SECONDS), "yesterday"), None);
    }

    #[test]
    fn corrects_a_clock_ten_minutes_off_and_leaves_one_that_is_a_minute_off() {
        let clock = Clock::new(SharedTimeSource::new(StaticTimeSource::from_secs(SECONDS)));
        clock.ahead_millis.store(-600_000, Ordering::Relaxed);
        assert_eq!(clock.now(), at(SECONDS - 600));
        assert_eq!(
            clock.skew().unwrap().to_string(),
            "this machine's clock is 600 s ahead of STS's"
        );
        clock.ahead_millis.store(600_000, Ordering::Relaxed);
        assert_eq!(clock.now(), at(SECONDS + 600));
        clock.ahead_millis.store(60_000, Ordering::Relaxed);
        assert_eq!(clock.now(), at(SECONDS));
    }
}

//! What gRPC on the socket of this machine counts and bounds, whichever service is called.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

/// Streams open at once. At about 10 KiB each with what carries it, 40 MiB.
pub(super) const MAX_STREAMS: usize = 4096;

/// The places of streams, which all services of one socket share. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    most: usize,
}

/// What is counted of one service. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls {
    streams: Gauge,
    answers: Family<Answer, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    method: &'static str,
    code: &'static str,
}

/// An open stream: its place, and that it is counted.
#[derive(Debug)]
pub(super) struct Open {
    _place: OwnedSemaphorePermit,
    _counted: Counted,
}

/// Counted as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Places {
    /// For `most` streams.
    pub(super) fn new(most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most)),
            most,
        }
    }
}

impl Calls {
    /// Registers the metrics.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let calls = Self::default();
        registry.register("streams", "Open streams", calls.streams.clone());
        registry.register(
            "answers",
            "Calls, by how they were answered",
            calls.answers.clone(),
        );
        calls
    }

    /// Streams that are open now.
    pub(super) fn streams(&self) -> i64 {
        self.streams.get()
    }

    /// Opens a stream, if there is a place for it.
    pub(super) fn open(&self, places: &Places) -> Result<Open, Status> {
        let place = Arc::clone(&places.free).try_acquire_owned();
        let most = places.most;
        let place = place.map_err(|_| {
            Status::unavailable(format!("{most} streams are open, as many as may be"))
        })?;
        Ok(Open {
            _place: place,
            _counted: Counted::new(&self.streams),
        })
    }

    pub(super) fn answered(&self, method: &'static str, code: Code) {
        let code = match code {
            Code::Ok => "ok",
            Code::InvalidArgument => "invalid_argument",
            Code::PermissionDenied => "permission_denied",
            Code::Unavailable => "unavailable",
            Code::Unimplemented => "unimplemented",
            _ => "other",
        };
        self.answers.get_or_create(&Answer { method, code }).inc();
    }
}

impl Counted {
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

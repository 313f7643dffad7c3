//! A request's body on its way, watched.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::BodyError;
use crate::http::headers::Filter;

/// A request's body, whose trailers are filtered as its headers were.
#[derive(Debug)]
pub struct Upload {
    body: Incoming,
    filter: Arc<Filter>,
    room: Option<Room>,
    progress: Option<Progress>,
}

/// What a body may hold.
#[derive(Debug, Clone, Copy)]
struct Room {
    most: u64,
    left: u64,
}

impl Upload {
    /// Of at most so many bytes, where there is a limit.
    pub fn new(body: Incoming, filter: &Arc<Filter>, most: Option<u64>) -> Self {
        Self {
            body,
            filter: Arc::clone(filter),
            room: most.map(|most| Room { most, left: most }),
            progress: None,
        }
    }

    /// From now on it is told what becomes of it.
    pub fn watch(&mut self) -> Progress {
        let progress = Progress::new();
        self.progress = Some(progress.clone());
        progress
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Pending, Some(progress)) = (&polled, &self.progress) {
            progress.is(Phase::Awaited);
        }
        let Some(frame) = ready!(polled) else {
            self.note(Phase::Moving);
            return Poll::Ready(None);
        };
        let taken = frame.map_err(BodyError::from).and_then(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                self.filter.strip_trailers(trailers);
            }
            self.take(frame)
        });
        self.note(match taken {
            Ok(_) => Phase::Moving,
            Err(BodyError::TooLarge(_)) => Phase::TooLarge,
            Err(_) => Phase::Broken,
        });
        Poll::Ready(Some(taken))
    }

    /// `frame`, if there is room for it.
    fn take(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        if let Some(room) = &mut self.room {
            let left = room.left.checked_sub(length);
            room.left = left.ok_or(BodyError::TooLarge(room.most))?;
        }
        Ok(frame)
    }

    fn note(&self, phase: Phase) {
        if let Some(progress) = &self.progress {
            progress.moved();
            progress.is(phase);
        }
    }

    /// Whether nothing more will come.
    pub fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What becomes of a request's body.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// Milliseconds from `start` to when something last moved.
    last: AtomicU64,
    phase: AtomicU8,
}

/// How it stands with a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// What came went on; or it has ended.
    Moving,
    /// The next piece is waited for: whoever sends it is slow, and not who receives it.
    Awaited,
    /// It was more than it may be.
    TooLarge,
    /// It broke off.
    Broken,
}

impl Progress {
    fn new() -> Self {
        Self(Arc::new(Shared {
            start: Instant::now(),
            last: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Moving as u8),
        }))
    }

    fn moved(&self) {
        let now = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(now, Ordering::Relaxed);
    }

    fn is(&self, phase: Phase) {
        self.0.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// For how long nothing moved.
    pub fn idle(&self) -> Duration {
        let last = Duration::from_millis(self.0.last.load(Ordering::Relaxed));
        self.0.start.elapsed().saturating_sub(last)
    }

    /// How it stands.
    pub fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::Relaxed) {
            phase if phase == Phase::Awaited as u8 => Phase::Awaited,
            phase if phase == Phase::TooLarge as u8 => Phase::TooLarge,
            phase if phase == Phase::Broken as u8 => Phase::Broken,
            _ => Phase::Moving,
        }
    }
}

#[cfg(test)]
impl Progress {
    /// Of a body that a test makes up.
    pub fn made_up() -> Self {
        Self::new()
    }

    /// A piece came.
    pub fn piece(&self) {
        self.moved();
    }

    /// The next is waited for.
    pub fn awaits(&self) {
        self.is(Phase::Awaited);
    }
}

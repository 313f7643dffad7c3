//! Bodies that are held whole, because they are hashed or may have to be sent again: bounded each, and all together (S14).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{http::body::Body, outbound::refusal::Refusal};

/// What all of them may hold together: small beside a sidecar's usual memory limit of 128 MiB, and
/// enough for a thousand requests of 64 KiB at once. One larger body alone may exceed it.
const ALL: usize = 64 * 1024 * 1024;

/// What is accounted for is counted in these.
const UNIT: usize = 1024;

#[derive(Debug)]
pub(in crate::outbound) struct Buffers(Arc<Semaphore>);

/// A whole body. Its room is given back when this is dropped.
#[derive(Debug)]
pub(in crate::outbound) struct Buffered {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Buffered {
    pub(in crate::outbound) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// To be sent: as often as need be.
    pub(in crate::outbound) fn body(&self) -> Body {
        self.bytes.clone().into()
    }
}

impl Buffers {
    pub(in crate::outbound) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ALL / UNIT)))
    }

    /// Whether there is room for a body that need not be held.
    pub(in crate::outbound) fn have_room(&self, bytes: u64) -> bool {
        usize::try_from(bytes).is_ok_and(|bytes| bytes.div_ceil(UNIT) <= self.0.available_permits())
    }

    /// Reads `body` to its end; refuses it beyond `max` bytes, without reading it where its length
    /// is declared.
    pub(in crate::outbound) async fn read(
        &self,
        body: Body,
        max: usize,
    ) -> Result<Buffered, Refusal> {
        self.read_seen(body, max, |_| ()).await
    }

    /// As [`Self::read`]; `see` sees each piece as it comes, and all of them where this is `Ok`.
    pub(in crate::outbound) async fn read_seen(
        &self,
        mut body: Body,
        max: usize,
        mut see: impl FnMut(&[u8]),
    ) -> Result<Buffered, Refusal> {
        let declared = body.size_hint();
        if body.is_end_stream() {
            let bytes = Bytes::new();
            return Ok(Buffered { bytes, _room: None });
        }
        if declared.lower() > u64::try_from(max).unwrap_or(u64::MAX) {
            return Err(Refusal::BodyTooLarge { limit: max });
        }
        // Within `max`, so within usize.
        let expected = declared.exact().map_or(0, |length| length as usize);
        let mut room = None;
        self.make_room(&mut room, expected)?;
        // The common case: one chunk, which needs no copy.
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Refusal::RequestBody(error.to_string()))?;
            // Trailers are not signed, so they are not sent.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let held = first.len() + rest.len();
            if held + data.len() > max {
                return Err(Refusal::BodyTooLarge { limit: max });
            }
            self.make_room(&mut room, held + data.len())?;
            see(&data);
            if first.is_empty() && rest.is_empty() {
                first = data;
                continue;
            }
            if rest.is_empty() {
                rest.reserve(expected.max(held + data.len()));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        let bytes = if rest.is_empty() {
            first
        } else {
            rest.freeze()
        };
        Ok(Buffered { bytes, _room: room })
    }

    /// Makes sure that `room` is enough for `bytes`.
    fn make_room(
        &self,
        room: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
    ) -> Result<(), Refusal> {
        let wanted = bytes.min(ALL).div_ceil(UNIT);
        let have = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more @ 1..) = wanted.checked_sub(have) else {
            return Ok(());
        };
        // `ALL / UNIT` fits.
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.0)
            .try_acquire_many_owned(more)
            .map_err(|_| Refusal::Crowded)?;
        match room {
            Some(room) => room.merge(more),
            None => *room = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use http_body::Frame;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::aws::{Hasher, Payload};

    #[tokio::test]
    async fn s14_bodies_are_bounded_each_and_together() {
        let buffers = Buffers::new();
        let body = |size: usize| Body::from(Bytes::from(vec![7; size]));
        let small = buffers.read(body(1000), 1000).await.unwrap();
        assert_eq!(small.bytes().len(), 1000);
        let error = buffers.read(body(1001), 1000).await.unwrap_err();
        assert!(matches!(error, Refusal::BodyTooLarge { limit: 1000 }));
        let all = buffers.read(body(ALL - UNIT), ALL).await.unwrap();
        let error = buffers.read(body(1), 1000).await.unwrap_err();
        assert!(matches!(error, Refusal::Crowded));
        drop(all);
        buffers.read(body(1), 1000).await.unwrap();
    }

    struct Pieces(VecDeque<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Frame::data).map(Ok))
        }
    }

    proptest! {
        #[test]
        fn a_body_is_the_same_and_has_the_same_hash_however_it_comes(
            pieces in vec(vec(any::<u8>(), 0..200), 0..20)
        ) {
            let whole = pieces.concat();
            let body = Body::stream(Pieces(pieces.into_iter().map(Bytes::from).collect()));
            let (buffers, mut hasher) = (Buffers::new(), Hasher::new());
            let read = buffers.read_seen(body, whole.len(), |piece| hasher.update(piece));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let held = runtime.block_on(read).unwrap();
            prop_assert_eq!(held.bytes(), &whole);
            prop_assert_eq!(hasher.finish(), Payload::hash(&whole));
        }
    }

    #[tokio::test]
    async fn no_body_takes_no_room() {
        let buffers = Buffers::new();
        let _all = buffers
            .read(Body::from(Bytes::from(vec![7; ALL])), ALL)
            .await
            .unwrap();
        assert!(
            buffers
                .read(Body::empty(), 0)
                .await
                .unwrap()
                .bytes()
                .is_empty()
        );
    }
}

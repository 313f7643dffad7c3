//! Places for those whose evidence takes more than this process to judge: an issuer's keys, a cluster's API,
//! STS. One pool for each attestor, so that one that waits keeps nobody of another from being answered.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use tokio::sync::Semaphore;

use crate::authority::{denied::Denied, metrics::Metrics};

/// Requests of one attestor that may wait at once: an eighth of all the front door has under way.
pub(super) const PLACES: usize = 128;

/// The places of one attestor.
#[derive(Debug)]
pub(super) struct Pool {
    attestor: String,
    places: Semaphore,
    metrics: Metrics,
}

impl Pool {
    pub(super) fn new(attestor: &str, places: usize, metrics: &Metrics) -> Self {
        Self {
            attestor: attestor.to_owned(),
            places: Semaphore::new(places),
            metrics: metrics.clone(),
        }
    }

    /// What `work` comes to. It needs a place only if it has to wait: what is judged with what is at hand
    /// goes on while every place is taken.
    ///
    /// # Errors
    /// 503, when there is no place.
    pub(super) async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Denied> {
        let mut work = pin!(work);
        let at_once = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
        if let Poll::Ready(done) = at_once {
            return Ok(done);
        }
        let Ok(_place) = self.places.try_acquire() else {
            self.metrics.attestor_turned_away(&self.attestor);
            return Err(Denied::evidence_unavailable(format!(
                "too much evidence for attestor {:?} is being judged",
                self.attestor
            )));
        };
        Ok(work.await)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn s14_who_has_to_wait_needs_a_place_and_who_has_not_needs_none() {
        let pool = Pool::new("aws", 1, &Metrics::default());
        let (done, waiting) = oneshot::channel();
        let mut first = pin!(pool.run(waiting));
        let started = poll_fn(|context| Poll::Ready(first.as_mut().poll(context))).await;
        assert!(started.is_pending());

        let turned_away = pool.run(pending::<()>()).await.unwrap_err();
        assert!(turned_away.retry_after.is_some(), "{turned_away:?}");
        assert_eq!(pool.run(ready(7)).await.unwrap(), 7);

        done.send(1).unwrap();
        assert_eq!(first.await.unwrap(), Ok(1));
        let (done, waiting) = oneshot::channel();
        tokio::spawn(async { done.send(2) });
        assert_eq!(
            pool.run(waiting).await.unwrap(),
            Ok(2),
            "the place is free again"
        );
    }
}

//! Waiting for what evidence takes more than this process to judge: an issuer's keys, a cluster's API. Who waits
//! has a place of the attestor's, so that one attestor's trouble keeps nobody of another from being answered, and
//! of what is waited for, so that one account's issuer does not take what its attestor has.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use super::places::Places;
use crate::authority::{denied::Denied, metrics::Metrics};

/// Requests of one attestor that may wait at once: an eighth of all the front door has under way.
const OF_ATTESTOR: usize = 128;
/// … and for one thing.
const OF_ONE: usize = 32;

/// The places of one attestor. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    attestor: Arc<str>,
    places: Arc<Places>,
    metrics: Metrics,
}

/// The places of those who wait for one thing.
#[derive(Debug)]
pub(super) struct Waiting {
    pool: Pool,
    places: Places,
}

impl Pool {
    pub(super) fn new(attestor: &str, metrics: &Metrics) -> Self {
        Self {
            attestor: attestor.into(),
            places: Arc::new(Places::new("judging this evidence", OF_ATTESTOR)),
            metrics: metrics.clone(),
        }
    }

    /// For those who wait for one thing, named for messages: `fetching an issuer's keys`.
    pub(super) fn waiting(&self, work: &'static str) -> Waiting {
        Waiting {
            pool: self.clone(),
            places: Places::new(work, OF_ONE),
        }
    }
}

impl Waiting {
    /// What `work` comes to, for a request from `remote`. It needs a place only if it has to wait: what is judged
    /// with what is at hand goes on while every place is taken.
    ///
    /// # Errors
    /// 503, when there is no place.
    pub(super) async fn run<T>(
        &self,
        remote: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, Denied> {
        let mut work = pin!(work);
        let at_once = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
        if let Poll::Ready(done) = at_once {
            return Ok(done);
        }
        let turned_away = |_: &Denied| self.pool.metrics.attestor_turned_away(&self.pool.attestor);
        let _of_one = self.places.enter(remote).inspect_err(turned_away)?;
        let _of_attestor = self.pool.places.enter(remote).inspect_err(turned_away)?;
        Ok(work.await)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, pending, ready};

    use tokio::sync::oneshot;

    use super::*;

    const HERE: &str = "192.0.2.1:1";
    const THERE: &str = "192.0.2.2:1";

    #[tokio::test]
    async fn s14_who_has_to_wait_needs_a_place_and_who_has_not_needs_none() {
        let pool = Pool {
            places: Arc::new(Places::new("judging", 1)),
            ..Pool::new("aws", &Metrics::default())
        };
        let (keys, others) = (pool.waiting("fetching"), pool.waiting("asking"));
        let (done, answer) = oneshot::channel::<u8>();
        let mut first = pin!(keys.run(HERE, answer));
        let started = poll_fn(|context| Poll::Ready(first.as_mut().poll(context))).await;
        assert!(started.is_pending());

        // Of this and of everything the attestor waits for.
        for waiting in [&keys, &others] {
            let turned_away = waiting.run(THERE, pending::<()>()).await.unwrap_err();
            assert!(turned_away.retry_after.is_some(), "{turned_away:?}");
            let at_hand: Ready<u8> = ready(7);
            assert_eq!(waiting.run(THERE, at_hand).await.unwrap(), 7);
        }

        done.send(1).unwrap();
        assert_eq!(first.await.unwrap(), Ok(1));
        let (done, answer) = oneshot::channel();
        tokio::spawn(async { done.send(2) });
        let answer = others.run(THERE, answer).await.unwrap();
        assert_eq!(answer, Ok(2), "the place is free again");
    }

    #[tokio::test]
    async fn s14_one_thing_that_is_waited_for_takes_no_more_than_its_share() {
        let pool = Pool::new("aws", &Metrics::default());
        let (away, other) = (pool.waiting("fetching"), pool.waiting("fetching"));
        let remotes: Vec<String> = (0..200).map(|n| format!("192.0.2.{n}:1")).collect();
        let mut waits: Vec<_> = remotes
            .iter()
            .map(|remote| Box::pin(away.run(remote, pending::<()>())))
            .collect();
        let mut waiting = 0;
        for wait in &mut waits {
            let polled = poll_fn(|context| Poll::Ready(wait.as_mut().poll(context))).await;
            waiting += usize::from(polled.is_pending());
        }
        assert_eq!(waiting, OF_ONE);
        let (done, answer) = oneshot::channel();
        tokio::spawn(async { done.send(2) });
        assert_eq!(other.run(HERE, answer).await.unwrap(), Ok(2));
    }
}

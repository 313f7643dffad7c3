//! What is sent again, and when: only what cannot be done twice by it (S4), and within the route's budget.
//!
//! | what happened | which requests | after |
//! | --- | --- | --- |
//! | no connection: nothing was sent | all | 25 to 75 ms, doubled each time |
//! | 503 with `retry-after` (`retries.on_503`) | idempotent, body at hand | that time and up to half as much |
//!
//! What breaks on a reused connection is the pool's to repeat: see [`crate::http::pool`].

use std::time::Duration;

use http::{Request, Response, StatusCode, header::RETRY_AFTER};

use super::{attach::Call, refusal::Refusal};
use crate::http::{
    body::Body,
    pool::{Attempt, Attempts, SendError, replay},
};

/// The middle of the wait before the first retry: another address of a name is there at once, a process that
/// restarts is not.
const WAIT: Duration = Duration::from_millis(50);

/// The longest `retry-after` that is waited for. Whoever waits longer is better told.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(2);

/// What was tried with one request so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    pool: Attempts,
    retries: u32,
}

impl Call<'_> {
    /// One attempt: an answer, or the request again, when it is time to send it again.
    pub(super) async fn attempt(
        &self,
        request: Request<Body>,
        tries: &mut Tries,
    ) -> Result<Attempt, Refusal> {
        let again = tries.retries < self.retries.max;
        let copy = match again && self.retries.on_503 {
            true => replay(&request),
            false => None,
        };
        let attempts = &mut tries.pool;
        let (request, wait) = match self
            .upstream
            .attempt(request, self.first_byte, attempts)
            .await?
        {
            Attempt::NotSent(request, error) => {
                let passes = matches!(
                    error,
                    SendError::Connect { .. } | SendError::ConnectTimedOut { .. }
                );
                if !(again && passes && self.budget.withdraw()) {
                    return Err(error.into());
                }
                (request, WAIT * 2_u32.saturating_pow(tries.retries))
            }
            Attempt::Answered(response) => {
                let Some((wait, request)) = retry_after(&response).zip(copy) else {
                    return Ok(Attempt::Answered(response));
                };
                if !self.budget.withdraw() {
                    return Ok(Attempt::Answered(response));
                }
                // Not before it said.
                (request, wait + wait / 2)
            }
            again @ Attempt::Again(_) => return Ok(again),
        };
        tries.retries += 1;
        self.counters.retried();
        tokio::time::sleep(jittered(wait)).await;
        Ok(Attempt::Again(request))
    }

    /// Attempts until there is an answer.
    pub(super) async fn until_answered(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        let mut tries = Tries::default();
        loop {
            match self.attempt(request, &mut tries).await? {
                Attempt::Answered(response) => return Ok(response),
                Attempt::Again(again) => request = again,
                Attempt::NotSent(_, error) => return Err(error.into()),
            }
        }
    }
}

/// How long to wait, where a 503 says so in seconds, and few of them.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    if response.status() != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let wait = Duration::from_secs(seconds.parse().ok()?);
    (wait <= MAX_RETRY_AFTER).then_some(wait.max(WAIT))
}

/// From two thirds of it to four thirds of it: what failed together does not come back together.
fn jittered(middle: Duration) -> Duration {
    let mut byte = [128];
    // Without randomness: no jitter.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    middle * 2 / 3 + middle * 2 / 3 * u32::from(byte[0]) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_spread_around_its_middle() {
        for _ in 0..1_000 {
            let wait = jittered(WAIT * 3);
            assert!(wait >= WAIT * 2 && wait <= WAIT * 4, "{wait:?}");
        }
    }

    #[test]
    fn only_a_503_that_says_soon_is_waited_for() {
        let answer = |status: u16, after: Option<&'static str>| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(after) = after {
                let after = http::HeaderValue::from_static(after);
                response.headers_mut().insert(RETRY_AFTER, after);
            }
            retry_after(&response)
        };
        assert_eq!(answer(503, Some("1")), Some(Duration::from_secs(1)));
        assert_eq!(answer(503, Some("0")), Some(WAIT));
        for (status, after) in [
            (503, None),
            (503, Some("3")),
            (503, Some("Fri, 31 Dec 2027 23:59:59 GMT")),
            (503, Some("-1")),
            (502, Some("1")),
            (200, Some("1")),
        ] {
            assert_eq!(answer(status, after), None, "{status} {after:?}");
        }
    }
}

//! What is known about one token and its successors, and what to do next. No I/O; time is passed in.

use std::time::{Duration, SystemTime};

use super::{MintError, Token};

/// A token is refreshed in the background once this share of its life has passed, plus up to
/// [`JITTER`] more: two thirds of it are left to outlast an authority that is away, as of a certificate.
const REFRESH_AT: f64 = 0.27;
const JITTER: f64 = 0.03;

/// A token is not given out in the last part of its life, this long or a fiftieth of it: it has to
/// arrive, and the verifier's clock may be ahead.
const MARGIN: Duration = Duration::from_secs(5);

/// How long a refusal stands. Rules change rarely, and whoever changes one watches what happens.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Waits between failing mints double from the first to the last of these …
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// … but to no more than this while requests fail for want of a token: a returning authority is to
/// be noticed within two seconds.
const RETRY_EMPTY: Duration = Duration::from_millis(1500);

/// The same without a request that wants one: nobody waits, and every agent asks.
const IDLE_LAST: Duration = Duration::from_secs(30);
const IDLE_REFUSED: Duration = Duration::from_secs(5 * 60);

/// Between mints that were forced by an upstream's 401.
const FORCED_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Cache {
    current: Option<Current>,
    minting: bool,
    failure: Option<Failure>,
    forced_at: Option<SystemTime>,
    /// A random share of one, renewed with every mint.
    jitter: f64,
}

/// What to do for someone who wants a token.
#[derive(Debug)]
pub(super) enum Step {
    /// Here it is.
    Serve(Token),
    /// Here it is; start minting the next one. The cache counts it as started.
    ServeAndRefresh(Token),
    /// There is none: start minting, then wait. The cache counts it as started.
    Refresh,
    /// There is none; one is being minted.
    Wait,
    /// There is none, and asking again is too early.
    Fail(MintError),
}

#[derive(Debug)]
struct Current {
    token: Token,
    refresh_at: SystemTime,
    /// Not given out from then on.
    until: SystemTime,
}

#[derive(Debug)]
struct Failure {
    error: MintError,
    at: SystemTime,
    /// How many in a row.
    count: u32,
}

impl Cache {
    pub(super) fn new(jitter: f64) -> Self {
        Self {
            current: None,
            minting: false,
            failure: None,
            forced_at: None,
            jitter,
        }
    }

    pub(super) fn step(&mut self, now: SystemTime) -> Step {
        let current = self.current.take_if(|current| now >= current.until);
        drop(current);
        match &self.current {
            Some(current) => {
                let token = current.token.clone();
                if now >= current.refresh_at && !self.minting && !self.too_early(now) {
                    self.minting = true;
                    return Step::ServeAndRefresh(token);
                }
                Step::Serve(token)
            }
            None if self.minting => Step::Wait,
            None => match &self.failure {
                Some(failure) if self.too_early(now) => Step::Fail(failure.error.clone()),
                _ => {
                    self.minting = true;
                    Step::Refresh
                }
            },
        }
    }

    /// When the token in use expires, and how many mints have failed since the last that didn't, the
    /// last for this reason.
    pub(super) fn status(&self) -> (Option<SystemTime>, u32, Option<String>) {
        let expires = self.current.as_ref().map(|it| it.token.expires_at());
        let failure = self.failure.as_ref();
        (
            expires,
            failure.map_or(0, |failure| failure.count),
            failure.map(|failure| failure.error.to_string()),
        )
    }

    /// A valid token that is not `refused`.
    pub(super) fn other_than(&self, refused: &Token, now: SystemTime) -> Option<Token> {
        let current = self.current.as_ref()?;
        (!current.token.is(refused) && now < current.until).then(|| current.token.clone())
    }

    /// Whether the caller is to start a mint (else one is under way); `None` where it is too early
    /// for another. Counts as started.
    pub(super) fn start_forced(&mut self, now: SystemTime) -> Option<bool> {
        if self.minting {
            return Some(false);
        }
        let recently = self
            .forced_at
            .is_some_and(|at| since(at, now) < FORCED_EVERY);
        if recently || self.too_early(now) {
            return None;
        }
        self.forced_at = Some(now);
        self.minting = true;
        Some(true)
    }

    /// A mint ended.
    pub(super) fn settle(
        &mut self,
        outcome: Result<Token, MintError>,
        now: SystemTime,
        jitter: f64,
    ) {
        self.minting = false;
        self.jitter = jitter;
        match outcome {
            Ok(token) => {
                let life = since(now, token.expires_at());
                let margin = MARGIN.min(life / 50);
                self.failure = None;
                self.current = Some(Current {
                    refresh_at: now + life.mul_f64(REFRESH_AT + JITTER * jitter),
                    until: token.expires_at() - margin,
                    token,
                });
            }
            Err(error) => {
                let count = self.failure.as_ref().map_or(0, |failure| failure.count) + 1;
                self.failure = Some(Failure {
                    error,
                    at: now,
                    count,
                });
            }
        }
    }

    /// When to look again for whoever keeps a token at hand that nobody asked for.
    pub(super) fn due(&self, now: SystemTime) -> SystemTime {
        let refresh_at = self.current.as_ref().map_or(now, |it| it.refresh_at);
        let Some(failure) = &self.failure else {
            return refresh_at;
        };
        let wait = match (&failure.error, &self.current) {
            (error, _) if error.is_refusal() => IDLE_REFUSED,
            (_, Some(current)) if now < current.until => self.pause(failure, self.most(now)),
            _ => self.pause(failure, IDLE_LAST),
        };
        refresh_at.max(failure.at + wait)
    }

    /// The scopes of the token in use.
    pub(super) fn scopes(&self) -> Vec<String> {
        let current = self.current.as_ref();
        current.map_or_else(Vec::new, |it| it.token.scopes().to_vec())
    }

    /// Whether a mint is under way.
    pub(super) fn is_minting(&self) -> bool {
        self.minting
    }

    /// Why the last mint failed, if it did.
    pub(super) fn trouble(&self) -> Option<String> {
        self.failure.as_ref().map(|it| it.error.to_string())
    }

    /// Whether the last mint failed so recently that the next one has to wait.
    fn too_early(&self, now: SystemTime) -> bool {
        let Some(failure) = &self.failure else {
            return false;
        };
        let wait = match failure.error.is_refusal() {
            true => REFUSED_FOR.mul_f64(self.spread()),
            false => self.pause(failure, self.most(now)),
        };
        since(failure.at, now) < wait
    }

    /// The longest pause between mints: with a token in hand so that several fit into what is left of it.
    fn most(&self, now: SystemTime) -> Duration {
        match &self.current {
            Some(current) if now < current.until => RETRY_LAST.min(since(now, current.until) / 4),
            _ => RETRY_EMPTY,
        }
    }

    fn pause(&self, failure: &Failure, most: Duration) -> Duration {
        let doublings = failure.count.saturating_sub(1).min(10);
        (RETRY_FIRST * (1 << doublings))
            .min(most)
            .mul_f64(self.spread())
    }

    /// What a pause is multiplied with, so that agents that failed together don't ask together.
    fn spread(&self) -> f64 {
        1.0 - 0.2 * self.jitter
    }
}

/// From `start` to `end`; nothing where the clock went backwards.
fn since(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Minted, Objection};
    use warifu::Secret;

    const START: SystemTime = SystemTime::UNIX_EPOCH;
    const LIFE: Duration = Duration::from_secs(300);

    fn token(expires_at: SystemTime) -> Token {
        let token = Secret::new("a.b.c".to_owned());
        let scopes = Vec::new();
        let minted = Minted {
            token,
            expires_at,
            scopes,
        };
        Token::new(minted, "payments").unwrap()
    }

    fn filled() -> Cache {
        let mut cache = Cache::new(0.0);
        assert!(matches!(cache.step(START), Step::Refresh));
        cache.settle(Ok(token(START + LIFE)), START, 0.0);
        cache
    }

    fn unavailable() -> MintError {
        MintError::Unavailable {
            audience: "payments".into(),
            why: "away".into(),
        }
    }

    fn refused() -> MintError {
        MintError::Refused {
            audience: "payments".into(),
            to: Objection::Any,
            why: "no rule".into(),
        }
    }

    #[test]
    fn refreshes_ahead_and_once() {
        let mut cache = filled();
        assert!(matches!(cache.step(START + LIFE / 4), Step::Serve(_)));
        let half = START + LIFE / 2;
        assert!(matches!(cache.step(half), Step::ServeAndRefresh(_)));
        assert!(matches!(cache.step(half), Step::Serve(_)));
        cache.settle(Ok(token(half + LIFE)), half, 0.0);
        assert!(matches!(cache.step(half + LIFE / 4), Step::Serve(_)));
    }

    #[test]
    fn s13_a_valid_token_is_served_while_refreshing_fails_and_an_expired_one_never() {
        let mut cache = filled();
        let mut mints = 0;
        for second in 0..LIFE.as_secs() - MARGIN.as_secs() {
            let now = START + Duration::from_secs(second);
            match cache.step(now) {
                Step::Serve(_) => {}
                Step::ServeAndRefresh(_) => {
                    mints += 1;
                    cache.settle(Err(unavailable()), now, 0.0);
                }
                step => panic!("after {second} s: {step:?}"),
            }
        }
        assert!((10..30).contains(&mints), "{mints} mints");
        let end = START + LIFE - MARGIN;
        assert!(matches!(cache.step(end), Step::Refresh | Step::Fail(_)));
        assert!(matches!(
            cache.step(START + LIFE),
            Step::Refresh | Step::Wait
        ));
    }

    #[test]
    fn short_lived_tokens_are_used_for_most_of_their_life() {
        let mut cache = Cache::new(0.0);
        let _ = cache.step(START);
        let life = Duration::from_secs(4);
        cache.settle(Ok(token(START + life)), START, 0.0);
        let late = START + Duration::from_millis(3_500);
        assert!(matches!(cache.step(late), Step::ServeAndRefresh(_)));
    }

    #[test]
    fn a_refusal_stands_for_a_while_and_an_outage_is_asked_about_within_two_seconds() {
        for (error, wait) in [(refused(), REFUSED_FOR), (unavailable(), RETRY_EMPTY)] {
            let mut cache = Cache::new(0.0);
            let mut now = START;
            for _ in 0..10 {
                assert!(matches!(cache.step(now), Step::Refresh));
                cache.settle(Err(error.clone()), now, 0.0);
                assert!(matches!(cache.step(now), Step::Fail(_)));
                now += wait;
            }
        }
    }

    #[test]
    fn two_thirds_of_a_tokens_life_are_left_when_it_is_refreshed_with_time_for_attempts() {
        for jitter in [0.0, 1.0] {
            let mut cache = Cache::new(jitter);
            let _ = cache.step(START);
            let life = Duration::from_secs(3600);
            cache.settle(Ok(token(START + life)), START, jitter);
            let due = cache.due(START);
            assert!(matches!(cache.step(due), Step::ServeAndRefresh(_)));
            let left = (START + life - MARGIN).duration_since(due).unwrap();
            let outage = Duration::from_secs(40 * 60);
            assert!(left > outage + 2 * RETRY_LAST, "{left:?}");
        }
    }

    #[test]
    fn who_keeps_a_token_at_hand_asks_seldom_where_nobody_waits() {
        for (error, first, last) in [
            (unavailable(), RETRY_FIRST, IDLE_LAST),
            (refused(), IDLE_REFUSED, IDLE_REFUSED),
        ] {
            let mut cache = Cache::new(0.0);
            let mut now = START;
            for attempt in 0..12 {
                assert_eq!(cache.due(now), now, "attempt {attempt}");
                let _ = cache.step(now);
                cache.settle(Err(error.clone()), now, 0.0);
                let wait = cache.due(now).duration_since(now).unwrap();
                assert!(
                    (first..=last).contains(&wait),
                    "attempt {attempt}: {wait:?}"
                );
                now += wait;
            }
            // With a token that is still good it hurries, the more the less of its life is left.
            let mut cache = filled();
            let late = START + LIFE - Duration::from_secs(12);
            let _ = cache.step(late);
            for _ in 0..10 {
                cache.settle(Err(unavailable()), late, 0.0);
            }
            let wait = cache.due(late).duration_since(late).unwrap();
            assert!(wait <= Duration::from_secs(2), "{wait:?}");
        }
    }

    #[test]
    fn a_flood_of_401_forces_one_mint_at_a_time_and_few() {
        let mut cache = filled();
        let Step::Serve(first) = cache.step(START) else {
            panic!("nothing to serve")
        };
        assert!(cache.other_than(&first, START).is_none());
        assert_eq!(cache.start_forced(START), Some(true));
        assert_eq!(cache.start_forced(START), Some(false));
        // The token that was refused is still the best there is.
        assert!(matches!(cache.step(START), Step::Serve(_)));
        cache.settle(Ok(token(START + LIFE)), START, 0.0);
        let second = cache.other_than(&first, START).unwrap();
        assert!(cache.other_than(&second, START).is_none());
        assert_eq!(cache.start_forced(START), None);
        assert_eq!(cache.start_forced(START + FORCED_EVERY), Some(true));
    }

    #[test]
    fn a_clock_that_goes_backwards_is_survived() {
        let mut cache = filled();
        let _ = cache.start_forced(START);
        cache.settle(Err(unavailable()), START, 0.5);
        let before = START - Duration::from_secs(3600);
        assert!(matches!(cache.step(before), Step::Serve(_)));
        assert_eq!(cache.start_forced(before), None);
    }
}

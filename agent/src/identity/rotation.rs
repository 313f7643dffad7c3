//! When to renew, and when to try again: pure, time and chance are handed in.

use std::time::{Duration, SystemTime};

/// Longest wait between attempts while there is no identity: the agent must be ready within 2 s of
/// the authority's return.
const MAX_WAIT_WITHOUT: Duration = Duration::from_secs(1);
/// Longest wait while the current identity is still good.
const MAX_WAIT_WITH: Duration = Duration::from_secs(60);
/// Longest wait after a decided refusal without an identity: only a person changes that, and a
/// person will not wait longer than this after fixing it.
const MAX_WAIT_REFUSED: Duration = Duration::from_secs(5);
/// Shortest wait, so that nothing we are sent makes us spin.
const MIN_WAIT: Duration = Duration::from_millis(50);

/// Shares of a life after which it is renewed, at the earliest and at the latest: before a third of it, so that an
/// authority may be away for two thirds (40 minutes of an hour) and for the time of a few attempts more.
const RENEW: (f64, f64) = (0.27, 0.3);

/// When to renew what is valid from `not_before` to `not_after` and was obtained at `now`: before a third
/// of the life that was left then (a backdated start does not count), a little earlier or later by
/// `random` (0 to 1) so that agents started together don't renew together.
pub fn renew_at(
    now: SystemTime,
    not_before: SystemTime,
    not_after: SystemTime,
    random: f64,
) -> SystemTime {
    let from = now.max(not_before);
    let life = not_after.duration_since(from).unwrap_or_default();
    let wait = life.mul_f64(RENEW.0 + (RENEW.1 - RENEW.0) * unit(random));
    now.max(from + wait.max(MIN_WAIT))
}

/// How an attempt failed, as far as the next one is concerned.
#[derive(Debug, Clone, Copy, Default)]
pub struct Failure {
    /// Failures in a row, this one included.
    pub count: u32,
    /// The authority decided against us (and did not merely fail).
    pub refused: bool,
    /// When it wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// How long to wait after `failure`, with `remaining` life of a good identity (`None` without one):
/// doubling, half of it by `random` (0 to 1). With an identity at most a quarter of what remains,
/// so that several attempts fit before it expires.
pub fn retry_in(failure: Failure, remaining: Option<Duration>, random: f64) -> Duration {
    let (first, most) = match remaining {
        None if failure.refused => (MAX_WAIT_WITHOUT, MAX_WAIT_REFUSED),
        None => (Duration::from_millis(100), MAX_WAIT_WITHOUT),
        Some(left) => (Duration::from_secs(1), MAX_WAIT_WITH.min(left / 4)),
    };
    let doublings = failure.count.saturating_sub(1).min(16);
    let wait = first.saturating_mul(1 << doublings).min(most);
    let wait = wait.mul_f64(0.5 + 0.5 * unit(random));
    match failure.retry_after {
        // What it asked for, and up to half more: it asks everybody for the same.
        Some(asked) => wait.max(asked.mul_f64(1.0 + 0.5 * unit(random))),
        None => wait.max(MIN_WAIT),
    }
}

/// Moves `moment` by up to 10 % of the way from `now`: for polling.
pub fn jittered(wait: Duration, random: f64) -> Duration {
    wait.mul_f64(0.9 + 0.2 * unit(random)).max(MIN_WAIT)
}

/// A random number from 0 to 1.
pub fn random() -> f64 {
    let mut bytes = [0; 4];
    // Chance only spreads load here; without it everything still works.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

fn unit(random: f64) -> f64 {
    if random.is_finite() {
        random.clamp(0.0, 1.0)
    } else {
        0.5
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn t0() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn renews_before_a_third_of_the_life_with_jitter_so_that_forty_minutes_of_an_hour_are_left() {
        let at = |random| renew_at(t0(), t0(), t0() + HOUR, random);
        assert_eq!(at(0.0), t0() + Duration::from_secs(972));
        assert_eq!(at(1.0), t0() + Duration::from_secs(1080));
        let left = |random| (t0() + HOUR).duration_since(at(random)).unwrap();
        let attempts = 2 * MAX_WAIT_WITH;
        assert!(left(1.0) >= Duration::from_secs(40 * 60) + attempts);
    }

    #[test]
    fn a_backdated_start_does_not_make_a_short_life_renew_at_once() {
        let backdated = t0() - Duration::from_secs(30);
        let at = renew_at(t0(), backdated, t0() + Duration::from_secs(6), 0.5);
        assert_eq!(at, t0() + Duration::from_millis(1710));
    }

    #[test]
    fn what_has_expired_is_renewed_now_but_not_in_a_spin() {
        let at = renew_at(t0(), t0() - HOUR, t0() - HOUR / 2, 0.5);
        assert_eq!(at, t0() + MIN_WAIT);
    }

    #[test]
    fn an_agent_without_identity_tries_at_least_once_a_second() {
        for count in 1..100 {
            let failure = Failure {
                count,
                ..Failure::default()
            };
            assert!(retry_in(failure, None, 1.0) <= Duration::from_secs(1));
        }
    }

    #[test]
    fn several_attempts_fit_into_what_remains_of_a_good_identity() {
        let failure = Failure {
            count: 20,
            ..Failure::default()
        };
        assert!(retry_in(failure, Some(Duration::from_secs(8)), 1.0) <= Duration::from_secs(2));
        assert_eq!(retry_in(failure, Some(HOUR * 9), 1.0), MAX_WAIT_WITH);
    }

    #[test]
    fn a_retry_after_is_a_lower_bound() {
        let failure = Failure {
            count: 1,
            refused: false,
            retry_after: Some(Duration::from_secs(3)),
        };
        assert!(retry_in(failure, None, 0.0) >= Duration::from_secs(3));
    }

    proptest! {
        #[test]
        fn waits_are_bounded_and_never_zero(
            count in any::<u32>(), refused in any::<bool>(), left in proptest::option::of(0u64..1_000_000),
            random in any::<f64>(),
        ) {
            let failure = Failure { count, refused, retry_after: None };
            let wait = retry_in(failure, left.map(Duration::from_secs), random);
            prop_assert!(wait >= MIN_WAIT && wait <= MAX_WAIT_WITH);
        }

        #[test]
        fn renewal_falls_between_now_and_expiry(
            before in 0u64..100_000, after in 1u64..100_000, random in any::<f64>(),
        ) {
            let end = t0() + Duration::from_secs(after);
            let at = renew_at(t0(), t0() - Duration::from_secs(before), end, random);
            prop_assert!(at > t0() && at < end);
        }
    }
}

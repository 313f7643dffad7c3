//! When credentials are renewed: pure functions of times and a jitter in `0.0..1.0`.
//!
//! The windows are those the AWS SDKs agreed on: long-lived credentials are renewed well ahead of their
//! expiry in the background (advisory), and in the last minute a caller waits for it (mandatory).

use std::time::{Duration, SystemTime};

/// The last minute of credentials: a caller waits for new ones.
const MANDATORY: Duration = Duration::from_secs(60);

/// Credentials that never expire (a user's keys in a file or the environment) are read again this
/// often, so that rotated ones are noticed.
const REREAD: Duration = Duration::from_secs(15 * 60);

/// After a failed renewal with time left: 5 to 10 minutes, so that a fleet doesn't keep STS down.
const PATIENT: (Duration, Duration) = (Duration::from_secs(5 * 60), Duration::from_secs(10 * 60));

/// After a failure that callers wait for: half a second, doubled up to this. Calls fail meanwhile, so
/// the end of an outage is to be noticed soon; STS takes hundreds of such questions a second.
const IMPATIENT_MAX: Duration = Duration::from_secs(10);
const IMPATIENT_FIRST: Duration = Duration::from_millis(500);

/// After a decided refusal (`AccessDenied`): asking again soon changes nothing, but a trust policy
/// that was corrected should be noticed while its author still watches.
const REFUSED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

/// What to do with credentials, fixed when they are obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    /// From here on they are renewed in the background.
    pub(super) advisory: SystemTime,
    /// From here on a caller waits for the renewal; `None`: they don't expire.
    pub(super) mandatory: Option<SystemTime>,
    /// From here on they are not used.
    pub(super) expires: Option<SystemTime>,
}

/// Where a schedule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing to do.
    Fresh,
    /// Use them, renew in the background.
    Advisory,
    /// Wait for new ones, use these if none come.
    Mandatory,
    /// Never use them.
    Expired,
}

impl Schedule {
    /// The schedule of credentials obtained at `now`. The jitter moves the background renewal by up
    /// to a fifth of its window, so that agents started together don't renew together.
    pub(super) fn new(now: SystemTime, expires: Option<SystemTime>, jitter: f64) -> Self {
        let Some(expires) = expires else {
            return Self {
                advisory: now + REREAD.mul_f64(0.8 + 0.2 * jitter),
                mandatory: None,
                expires: None,
            };
        };
        let life = expires.duration_since(now).unwrap_or_default();
        // What has little time left when it is obtained would otherwise be renewed at once, forever.
        let window = advisory_window(life).min(life * 3 / 4);
        let mandatory = MANDATORY.min(life / 4);
        Self {
            advisory: now + (life - window.mul_f64(1.0 - 0.2 * jitter)),
            mandatory: Some(now + (life - mandatory)),
            expires: Some(expires),
        }
    }

    pub(super) fn phase(&self, now: SystemTime) -> Phase {
        let past = |at: Option<SystemTime>| at.is_some_and(|at| now >= at);
        if past(self.expires) {
            Phase::Expired
        } else if past(self.mandatory) {
            Phase::Mandatory
        } else if now >= self.advisory {
            Phase::Advisory
        } else {
            Phase::Fresh
        }
    }

    /// The same credentials, to be renewed at once: AWS said they are no good, and may be mistaken.
    pub(super) fn doubted(self, now: SystemTime) -> Self {
        Self {
            advisory: now.min(self.advisory),
            mandatory: Some(self.mandatory.map_or(now, |at| at.min(now))),
            expires: self.expires,
        }
    }
}

fn advisory_window(life: Duration) -> Duration {
    let minutes = |n: u64| Duration::from_secs(n * 60);
    if life <= minutes(20) {
        minutes(5)
    } else if life < minutes(90) {
        minutes(15)
    } else {
        minutes(60)
    }
}

/// When a failed renewal is tried again. `failures` counts this one; `held` are the credentials still there.
pub(super) fn retry_at(
    now: SystemTime,
    held: Option<&Schedule>,
    failures: u32,
    refused: bool,
    jitter: f64,
) -> SystemTime {
    let between = |(from, to): (Duration, Duration)| from + (to - from).mul_f64(jitter);
    match held.map(|held| (held.phase(now), held.mandatory)) {
        Some((Phase::Fresh | Phase::Advisory, mandatory)) => {
            let at = now + between(PATIENT);
            // The last minute is tried whatever happened before.
            mandatory.map_or(at, |mandatory| at.min(mandatory))
        }
        _ if refused => now + between(REFUSED),
        _ => {
            let doublings = failures.saturating_sub(1).min(16);
            let pause = (IMPATIENT_FIRST * 2_u32.pow(doublings)).min(IMPATIENT_MAX);
            now + pause.mul_f64(0.5 + 0.5 * jitter)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn window(life: u64, jitter: f64) -> u64 {
        let schedule = Schedule::new(NOW, Some(NOW + seconds(life)), jitter);
        let advisory = schedule.advisory.duration_since(NOW).unwrap();
        life - advisory.as_secs()
    }

    #[test]
    fn the_advisory_window_follows_the_lifetime() {
        assert_eq!(window(900, 0.0), 300);
        assert_eq!(window(1200, 0.0), 300);
        assert_eq!(window(3600, 0.0), 900);
        assert_eq!(window(5400, 0.0), 3600);
        assert_eq!(window(43_200, 0.0), 3600);
        // What arrives with little time left is not renewed at once.
        assert_eq!(window(240, 0.0), 180);
        // Jitter shortens it by at most a fifth.
        assert_eq!(window(3600, 1.0), 720);
    }

    #[test]
    fn phases_follow_each_other() {
        let schedule = Schedule::new(NOW, Some(NOW + seconds(3600)), 0.0);
        let phase = |at| schedule.phase(NOW + seconds(at));
        assert_eq!(phase(0), Phase::Fresh);
        assert_eq!(phase(2699), Phase::Fresh);
        assert_eq!(phase(2700), Phase::Advisory);
        assert_eq!(phase(3539), Phase::Advisory);
        assert_eq!(phase(3540), Phase::Mandatory);
        assert_eq!(phase(3599), Phase::Mandatory);
        assert_eq!(phase(3600), Phase::Expired);
    }

    #[test]
    fn keys_without_an_expiry_are_read_again_and_never_block() {
        let schedule = Schedule::new(NOW, None, 0.0);
        assert_eq!(schedule.phase(NOW + seconds(719)), Phase::Fresh);
        assert_eq!(schedule.phase(NOW + seconds(720)), Phase::Advisory);
        assert_eq!(schedule.phase(NOW + seconds(1_000_000)), Phase::Advisory);
    }

    #[test]
    fn a_failure_with_time_left_waits_minutes_but_not_past_the_last_one() {
        let held = Schedule::new(NOW, Some(NOW + seconds(3600)), 0.0);
        let at = |now, jitter| retry_at(NOW + seconds(now), Some(&held), 1, false, jitter);
        assert_eq!(at(2700, 0.0), NOW + seconds(3000));
        assert_eq!(at(2700, 1.0), NOW + seconds(3300));
        assert_eq!(at(3500, 0.5), NOW + seconds(3540));
    }

    #[test]
    fn a_failure_nobody_can_wait_out_is_tried_again_soon() {
        let none = |failures| retry_at(NOW, None, failures, false, 1.0);
        assert_eq!(none(1), NOW + Duration::from_millis(500));
        assert_eq!(none(2), NOW + Duration::from_millis(1000));
        assert_eq!(none(40), NOW + seconds(10));
        assert_eq!(retry_at(NOW, None, 1, true, 0.0), NOW + seconds(10));
        assert_eq!(retry_at(NOW, None, 9, true, 1.0), NOW + seconds(20));
    }

    proptest! {
        #[test]
        fn a_schedule_is_in_order(life in 0u64..100_000, jitter in 0.0f64..1.0) {
            let expires = NOW + seconds(life);
            let schedule = Schedule::new(NOW, Some(expires), jitter);
            prop_assert!(NOW <= schedule.advisory);
            prop_assert!(schedule.advisory <= schedule.mandatory.unwrap());
            prop_assert!(schedule.mandatory.unwrap() <= expires);
        }

        #[test]
        fn a_retry_is_later_and_within_ten_minutes(
            life in 1u64..50_000, now in 0u64..60_000, failures in 1u32..100,
            refused: bool, jitter in 0.0f64..1.0,
        ) {
            let now = NOW + seconds(now);
            let held = Schedule::new(NOW, Some(NOW + seconds(life)), jitter);
            let at = retry_at(now, Some(&held), failures, refused, jitter);
            prop_assert!(at > now);
            prop_assert!(at <= now + PATIENT.1);
        }
    }
}

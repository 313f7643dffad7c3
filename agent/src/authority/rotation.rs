//! When a root or a key is prepared, activated, retired: pure.
//!
//! ```text
//! next ──publish_ahead──▶ current ─────────▶ old ──outlives──▶ gone
//! published, signs nothing   signs           published until nothing it signed is alive
//! ```

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Unix time in milliseconds.
pub(super) type Millis = u64;

/// A root or a key with its place in the rotation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Slot<T> {
    pub(super) phase: Phase,
    /// When the phase began.
    pub(super) since: Millis,
    /// When it must not sign any more: a root's end, a key's planned one.
    pub(super) until: Millis,
    #[serde(flatten)]
    pub(super) body: T,
}

/// The place in the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    Next,
    Current,
    Old,
}

/// How one line of roots or keys rotates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// From making to end. At least twice `publish_ahead + outlives`.
    pub(super) life: Duration,
    /// How long it is published before it signs.
    pub(super) publish_ahead: Duration,
    /// How long something it signed may be alive after it stopped signing.
    pub(super) outlives: Duration,
}

impl Schedule {
    /// How long a rotation is under way.
    pub(super) fn step(&self) -> Duration {
        self.publish_ahead.saturating_add(self.outlives)
    }
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Make the next one and publish it.
    Prepare,
    /// Sign with the next one; the current one becomes old.
    Activate,
    /// Forget the old one.
    Retire,
}

/// What is due now, if anything; asked again after each action until there is nothing.
pub(super) fn due<T>(slots: &[Slot<T>], now: Millis, schedule: &Schedule) -> Option<Action> {
    let old = slot(slots, Phase::Old);
    if old.is_some_and(|old| old.since + millis(schedule.outlives) <= now || old.until <= now) {
        return Some(Action::Retire);
    }
    let Some(current) = slot(slots, Phase::Current) else {
        // Not a state we make; a next one can repair it.
        return Some(match slot(slots, Phase::Next) {
            Some(_) => Action::Activate,
            None => Action::Prepare,
        });
    };
    let ended = current.until <= now;
    match slot(slots, Phase::Next) {
        // Whoever was off beyond the current one's end has nothing to sign with: better a root some
        // have not heard of than none.
        Some(next) => (next.since + millis(schedule.publish_ahead) <= now || ended)
            .then_some(Action::Activate),
        // One rotation at a time, so that there are never more than two published.
        None => (old.is_none() && is_half_over(current, now, schedule) || ended)
            .then_some(Action::Prepare),
    }
}

/// Whether a rotation is under way, and when the next step is due.
pub(super) fn under_way<T>(slots: &[Slot<T>], schedule: &Schedule) -> Option<(Action, Millis)> {
    if let Some(next) = slot(slots, Phase::Next) {
        return Some((
            Action::Activate,
            next.since + millis(schedule.publish_ahead),
        ));
    }
    let old = slot(slots, Phase::Old)?;
    Some((Action::Retire, old.since + millis(schedule.outlives)))
}

/// The slot in `phase`.
pub(super) fn slot<T>(slots: &[Slot<T>], phase: Phase) -> Option<&Slot<T>> {
    slots.iter().find(|slot| slot.phase == phase)
}

/// Milliseconds since 1970.
pub(super) fn to_millis(time: SystemTime) -> Millis {
    millis(
        time.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

/// The moment.
pub(super) fn from_millis(at: Millis) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(at)
}

/// A duration in milliseconds, bounded so that sums of a few don't overflow.
pub(super) fn millis(span: Duration) -> Millis {
    u64::try_from(span.as_millis())
        .unwrap_or(u64::MAX)
        .min(u64::MAX / 8)
}

fn is_half_over<T>(current: &Slot<T>, now: Millis, schedule: &Schedule) -> bool {
    current.until.saturating_sub(millis(schedule.life) / 2) <= now
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCHEDULE: Schedule = Schedule {
        life: Duration::from_millis(1000),
        publish_ahead: Duration::from_millis(100),
        outlives: Duration::from_millis(200),
    };

    fn at(phase: Phase, since: Millis, until: Millis) -> Slot<()> {
        Slot {
            phase,
            since,
            until,
            body: (),
        }
    }

    #[test]
    fn the_next_one_is_prepared_at_half_life() {
        let slots = [at(Phase::Current, 0, 1000)];
        assert_eq!(due(&slots, 499, &SCHEDULE), None);
        assert_eq!(due(&slots, 500, &SCHEDULE), Some(Action::Prepare));
    }

    #[test]
    fn the_next_one_signs_only_after_it_was_published_long_enough() {
        let slots = [at(Phase::Current, 0, 1000), at(Phase::Next, 500, 1500)];
        assert_eq!(due(&slots, 599, &SCHEDULE), None);
        assert_eq!(due(&slots, 600, &SCHEDULE), Some(Action::Activate));
    }

    #[test]
    fn the_old_one_is_published_until_nothing_it_signed_is_alive() {
        let slots = [at(Phase::Old, 600, 1000), at(Phase::Current, 600, 1500)];
        assert_eq!(due(&slots, 799, &SCHEDULE), None);
        assert_eq!(due(&slots, 800, &SCHEDULE), Some(Action::Retire));
    }

    #[test]
    fn there_is_no_second_rotation_while_one_is_under_way() {
        let slots = [at(Phase::Old, 600, 9000), at(Phase::Current, 0, 700)];
        assert_eq!(due(&slots, 650, &SCHEDULE), None);
        assert_eq!(under_way(&slots, &SCHEDULE), Some((Action::Retire, 800)));
    }

    #[test]
    fn one_that_ended_while_nobody_ran_is_replaced_at_once() {
        let slots = [at(Phase::Current, 0, 1000)];
        assert_eq!(due(&slots, 5000, &SCHEDULE), Some(Action::Prepare));
        let slots = [at(Phase::Current, 0, 1000), at(Phase::Next, 5000, 6000)];
        assert_eq!(due(&slots, 5000, &SCHEDULE), Some(Action::Activate));
    }

    proptest! {
        /// Runs a line for a few lives and holds it to what the module promises.
        #[test]
        fn at_any_pace_one_signs_two_are_published_and_none_signs_early(step in 1u64..100) {
            let mut slots = vec![at(Phase::Current, 0, 1000)];
            let mut now = 0;
            while now < 5000 {
                while let Some(action) = due(&slots, now, &SCHEDULE) {
                    match action {
                        Action::Prepare => slots.push(at(Phase::Next, now, now + 1000)),
                        Action::Activate => {
                            for slot in &mut slots {
                                let phase = match slot.phase {
                                    Phase::Next => {
                                        prop_assert!(slot.since + 100 <= now, "signs early");
                                        Phase::Current
                                    }
                                    _ => Phase::Old,
                                };
                                *slot = at(phase, now, slot.until);
                            }
                        }
                        Action::Retire => slots.retain(|slot| slot.phase != Phase::Old),
                    }
                }
                prop_assert!(slots.len() <= 2);
                let current: Vec<_> = slots.iter().filter(|s| s.phase == Phase::Current).collect();
                prop_assert_eq!(current.len(), 1);
                // What it signs lives 200: there must be that much left, at our pace.
                prop_assert!(current[0].until >= now + 200, "{:?} at {}", current[0], now);
                now += step;
            }
        }
    }
}

//! Windows of time.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::inbound::{Day, When};

const MINUTES_OF_DAY: i64 = 24 * 60;

/// Whether `now` is in the window.
pub(super) fn holds(when: &When, now: SystemTime) -> bool {
    if when.not_before.is_some_and(|start| now < start.0)
        || when.not_after.is_some_and(|end| now >= end.0)
    {
        return false;
    }
    if when.days.is_empty() && when.from.is_none() && when.to.is_none() {
        return true;
    }
    let (day, minute) = local(when, now);
    let is_on = |day: i64| when.days.is_empty() || when.days.iter().any(|it| number(*it) == day);
    let from = when.from.map_or(0, |from| from.0);
    let to = when.to.map_or(MINUTES_OF_DAY, |to| to.0);
    match from < to {
        true => (from..to).contains(&minute) && is_on(day),
        // Across midnight: what began yesterday, or begins today.
        false => minute >= from && is_on(day) || minute < to && is_on((day + 6) % 7),
    }
}

/// Day of the week (Monday is 0) and minute of the day, by the window's clock.
fn local(when: &When, now: SystemTime) -> (i64, i64) {
    let since = match now.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX / 2),
        // A clock before 1970 is wrong; any answer will do that does not panic.
        Err(_) => 0,
    };
    let minutes = (since + when.offset.0).div_euclid(60);
    let day = minutes.div_euclid(MINUTES_OF_DAY);
    // 1970-01-01 was a Thursday.
    ((day + 3).rem_euclid(7), minutes.rem_euclid(MINUTES_OF_DAY))
}

fn number(day: Day) -> i64 {
    match day {
        Day::Mon => 0,
        Day::Tue => 1,
        Day::Wed => 2,
        Day::Thu => 3,
        Day::Fri => 4,
        Day::Sat => 5,
        Day::Sun => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Moment;

    fn at(text: &str) -> SystemTime {
        text.parse::<Moment>().unwrap().0
    }

    fn when(days: &[Day], from: &str, to: &str, offset: &str) -> When {
        When {
            days: days.to_vec(),
            from: from.parse().ok(),
            to: to.parse().ok(),
            offset: offset.parse().unwrap(),
            ..When::default()
        }
    }

    #[test]
    fn office_hours_are_those_of_the_clock_they_are_about() {
        // 2026-11-20 is a Friday.
        let office = when(&[Day::Mon, Day::Fri], "08:00", "18:00", "+09:00");
        for (moment, inside) in [
            ("2026-11-20T08:00:00+09:00", true),
            ("2026-11-20T17:59:59+09:00", true),
            ("2026-11-20T18:00:00+09:00", false),
            ("2026-11-20T07:59:59+09:00", false),
            ("2026-11-20T00:30:00Z", true),
            ("2026-11-19T23:30:00Z", true),
            ("2026-11-20T10:00:00Z", false),
            ("2026-11-19T12:00:00+09:00", false),
            ("2026-11-21T12:00:00+09:00", false),
            ("2026-11-23T12:00:00+09:00", true),
        ] {
            assert_eq!(holds(&office, at(moment)), inside, "{moment}");
        }
    }

    #[test]
    fn a_window_across_midnight_belongs_to_the_day_it_begins_on() {
        let night = when(&[Day::Fri], "22:00", "06:00", "Z");
        for (moment, inside) in [
            ("2026-11-20T21:59:00Z", false),
            ("2026-11-20T22:00:00Z", true),
            ("2026-11-21T05:59:59Z", true),
            ("2026-11-21T06:00:00Z", false),
            ("2026-11-21T23:00:00Z", false),
            // The night before.
            ("2026-11-20T05:00:00Z", false),
        ] {
            assert_eq!(holds(&night, at(moment)), inside, "{moment}");
        }
        let sunday = when(&[Day::Sun], "22:00", "06:00", "-05:00");
        assert!(holds(&sunday, at("2026-11-23T05:00:00-05:00")));
        assert!(!holds(&sunday, at("2026-11-22T05:00:00-05:00")));
    }

    #[test]
    fn an_end_may_be_open() {
        let morning = when(&[], "", "12:00", "Z");
        assert!(holds(&morning, at("2026-11-20T00:00:00Z")));
        assert!(!holds(&morning, at("2026-11-20T12:00:00Z")));
        let evening = when(&[], "18:00", "24:00", "Z");
        assert!(holds(&evening, at("2026-11-20T23:59:59Z")));
        assert!(!holds(&evening, at("2026-11-20T00:00:00Z")));
        let moments = When {
            not_before: "2026-01-01T00:00:00Z".parse().ok(),
            not_after: "2026-02-01T00:00:00Z".parse().ok(),
            ..When::default()
        };
        assert!(!holds(&moments, at("2025-12-31T23:59:59Z")));
        assert!(holds(&moments, at("2026-01-01T00:00:00Z")));
        assert!(!holds(&moments, at("2026-02-01T00:00:00Z")));
    }
}

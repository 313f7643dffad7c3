//! Moments, as RFC 3339 writes them.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use warifu::calendar::{date_of, days_since_1970};

use super::text::{Kind, reads_from_text};

/// A moment from 1970 on, such as `2026-12-31T00:00:00Z` or `2026-12-31T09:00:00+09:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub SystemTime);

reads_from_text!(Moment);

impl Kind for Moment {
    type Value = Self;
    const NAME: &'static str = "Moment";
    const EXPECTED: &'static str =
        "a moment such as 2026-12-31T00:00:00Z or 2026-12-31T09:00:00+09:00";
    const PATTERN: Option<&'static str> =
        Some("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})$");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let (date, time) = text.split_once('T').ok_or("")?;
        let (time, offset) = time
            .split_at_checked(8)
            .ok_or("after the T comes HH:MM:SS")?;
        let offset = match offset {
            "Z" => 0,
            "" => return Err("its offset is missing: Z, or +09:00".into()),
            offset => seconds_of_offset(offset).ok_or("it ends in Z, or +HH:MM")?,
        };
        let [year, month, day] = numbers(date, '-', [4, 2, 2]).ok_or("a date is YYYY-MM-DD")?;
        let [hour, minute, second] =
            numbers(time, ':', [2, 2, 2]).ok_or("after the T comes HH:MM:SS")?;
        if !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) {
            return Err("there is no such day".into());
        }
        if hour > 23 || minute > 59 || second > 59 {
            return Err("there is no such time of day".into());
        }
        let seconds =
            days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
                - offset;
        let seconds = u64::try_from(seconds).map_err(|_| "it is before 1970")?;
        Ok(Self(UNIX_EPOCH + Duration::from_secs(seconds)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (year, month, day) = date_of(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// `+09:00` in seconds east of Greenwich.
pub(super) fn seconds_of_offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let [hours, minutes] = numbers(rest, ':', [2, 2])?;
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Numbers of exactly so many digits each.
pub(super) fn numbers<const N: usize>(
    text: &str,
    between: char,
    digits: [usize; N],
) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut found = [0; N];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        let is_number = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        *number = is_number.then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(found)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str) -> u64 {
        let Moment(at) = text.parse().unwrap();
        at.duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn reads_rfc_3339() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), 0);
        assert_eq!(seconds("2000-02-29T00:00:00Z"), 951_782_400);
        assert_eq!(seconds("2000-02-29T09:00:00+09:00"), 951_782_400);
        assert_eq!(seconds("2000-02-28T18:30:00-05:30"), 951_782_400);
    }

    #[test]
    fn refuses_what_is_no_moment() {
        for wrong in [
            "",
            "2026-12-31",
            "2026-12-31T00:00:00",
            "2026-12-31 00:00:00Z",
            "2026-12-31T00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00+9:00",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00.5Z",
            "+026-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-01-01Tää:00:00Z",
        ] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same_moment(seconds in 0_u64..253_402_300_800) {
            let at = Moment(UNIX_EPOCH + Duration::from_secs(seconds));
            prop_assert_eq!(at.to_string().parse::<Moment>().unwrap(), at);
        }
    }
}

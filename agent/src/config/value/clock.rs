//! Times of day, and how far a clock is ahead of UTC.

use std::{borrow::Cow, fmt};

use super::{
    moment::{numbers, seconds_of_offset},
    text::{Kind, reads_from_text},
};

/// A time of day, in minutes from midnight: `08:00`, up to `24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clock(pub i64);

/// Seconds ahead of UTC: `+09:00`, or `Z`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UtcOffset(pub i64);

reads_from_text!(Clock, UtcOffset);

impl Kind for Clock {
    type Value = Self;
    const NAME: &'static str = "Clock";
    const EXPECTED: &'static str = "a time of day such as \"08:00\", in quotes";
    const PATTERN: Option<&'static str> = Some("^[0-9]{2}:[0-9]{2}$");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let [hours, minutes] = numbers(text, ':', [2, 2]).ok_or("")?;
        match minutes <= 59 && hours * 60 + minutes <= 24 * 60 {
            true => Ok(Self(hours * 60 + minutes)),
            false => Err("there is no such time of day".into()),
        }
    }
}

impl Kind for UtcOffset {
    type Value = Self;
    const NAME: &'static str = "UtcOffset";
    const EXPECTED: &'static str = "an offset from UTC such as \"+09:00\", or Z";
    const PATTERN: Option<&'static str> = Some("^(Z|[+-][0-9]{2}:[0-9]{2})$");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let seconds = match text {
            "Z" => 0,
            _ => seconds_of_offset(text).ok_or("")?,
        };
        // The clocks of the world are between -12:00 and +14:00.
        match (-12 * 3600..=14 * 3600).contains(&seconds) {
            true => Ok(Self(seconds)),
            false => Err("no clock is that far from UTC".into()),
        }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl fmt::Display for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, minutes) = (if self.0 < 0 { '-' } else { '+' }, self.0.abs() / 60);
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_of_day_and_offsets_in_their_plain_form_only() {
        assert_eq!("24:00".parse(), Ok(Clock(1440)));
        assert_eq!("08:05".parse::<Clock>().unwrap().to_string(), "08:05");
        for wrong in ["8:00", "08:60", "24:01", "25:00", "08:00:00", "", "0800"] {
            assert!(wrong.parse::<Clock>().is_err(), "{wrong}");
        }
        assert_eq!("-03:30".parse(), Ok(UtcOffset(-12_600)));
        assert_eq!("-03:30".parse::<UtcOffset>().unwrap().to_string(), "-03:30");
        for wrong in ["+9", "+15:00", "-12:01", "09:00", "Asia/Tokyo", ""] {
            assert!(wrong.parse::<UtcOffset>().is_err(), "{wrong}");
        }
    }
}

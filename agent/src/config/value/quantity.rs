//! Durations and sizes.

use std::{borrow::Cow, fmt, time::Duration};

use serde::{Deserialize, Serialize, Serializer};

use super::text::{Kind, reads_from_text};

/// A span of time: `30s`, `15m`, `1h`, `500ms`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes: `512KiB`, `1MiB`, `100B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

reads_from_text!(Span, Size);

/// `deserialize_with` for a size that is kept as a number.
pub(in crate::config) fn size<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<usize, D::Error> {
    Ok(Size::deserialize(deserializer)?.0)
}

impl Kind for Span {
    type Value = Self;
    const NAME: &'static str = "Duration";
    const EXPECTED: &'static str = "a duration such as 500ms, 30s, 15m, 1h or 7d";
    const PATTERN: Option<&'static str> = Some(r"^[0-9]+(ms|s|m|h|d)$");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let (number, unit) = number(text)?;
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60 * 1_000,
            "h" => 60 * 60 * 1_000,
            "d" => 24 * 60 * 60 * 1_000,
            _ => return Err("".into()),
        };
        let total = number.checked_mul(milliseconds).filter(|total| {
            // A hundred years: whatever is added to a time stays one.
            *total <= 100 * 365 * 24 * 60 * 60 * 1_000
        });
        total
            .map(|total| Self(Duration::from_millis(total)))
            .ok_or_else(|| "that is too long".into())
    }
}

impl Kind for Size {
    type Value = Self;
    const NAME: &'static str = "Size";
    const EXPECTED: &'static str = "a size such as 64KiB, 1MiB or 1GiB";
    const PATTERN: Option<&'static str> = Some(r"^[0-9]+(B|KiB|MiB|GiB)$");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let (number, unit) = number(text)?;
        let bytes: u64 = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err("".into()),
        };
        number
            .checked_mul(bytes)
            .and_then(|total| usize::try_from(total).ok())
            .map(Self)
            .ok_or_else(|| "that is too large".into())
    }
}

/// As it is written, so that the JSON Schema shows defaults.
impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        match milliseconds {
            0 => f.write_str("0s"),
            ms if ms % 86_400_000 == 0 => write!(f, "{}d", ms / 86_400_000),
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1_000 == 0 => write!(f, "{}s", ms / 1_000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

fn number(text: &str) -> Result<(u64, &str), Cow<'static, str>> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err("".into());
    }
    let number = digits.parse().map_err(|_| "the number is too large")?;
    Ok((number, unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_durations() {
        let read = |text: &str| text.parse::<Span>().unwrap().0;
        assert_eq!(read("500ms"), Duration::from_millis(500));
        assert_eq!(read("30s"), Duration::from_secs(30));
        assert_eq!(read("15m"), Duration::from_secs(900));
        assert_eq!(read("1h"), Duration::from_secs(3600));
        assert_eq!(read("7d"), Duration::from_secs(7 * 86_400));
    }

    #[test]
    fn refuses_what_is_no_duration_and_shows_one_that_is() {
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5h",
            "30 s",
            "1w",
            "99999999999999999999s",
            "400000d",
        ] {
            let error = text.parse::<Span>().unwrap_err().to_string();
            assert!(error.contains("such as 500ms"), "{text}: {error}");
        }
    }

    #[test]
    fn reads_sizes() {
        let read = |text: &str| text.parse::<Size>().unwrap().0;
        assert_eq!(read("1MiB"), 1 << 20);
        assert_eq!(read("64KiB"), 64 << 10);
        assert_eq!(read("100B"), 100);
        assert!("1MB".parse::<Size>().is_err() && "65536".parse::<Size>().is_err());
        assert!("20000000000GiB".parse::<Size>().is_err());
    }

    proptest! {
        #[test]
        fn a_duration_reads_what_it_shows(ms in 0_u64..10_000_000_000) {
            let span = Span(Duration::from_millis(ms));
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }

        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = text.parse::<Span>();
            let _ = text.parse::<Size>();
        }
    }
}

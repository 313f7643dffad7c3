//! How far this machine's clock is from the authority's.

use std::{fmt, time::Duration};

use crate::config::value::Span;

/// A difference below this is the network and the authority's rounding.
const NOTABLE: Duration = Duration::from_secs(5);

const MINUTE: u64 = 60;

/// This machine's clock against the authority's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    /// Ours is early.
    Ahead(Duration),
    /// Ours is late.
    Behind(Duration),
}

impl Skew {
    /// Of the authority's clock minus ours, in milliseconds; `None` where they agree.
    pub(super) fn of(millis: i64) -> Option<Self> {
        let by = Duration::from_millis(millis.unsigned_abs());
        match millis {
            _ if by < NOTABLE => None,
            0.. => Some(Self::Behind(by)),
            _ => Some(Self::Ahead(by)),
        }
    }

    /// How far.
    pub fn by(self) -> Duration {
        match self {
            Self::Ahead(by) | Self::Behind(by) => by,
        }
    }
}

/// To ten seconds, from a minute on to the minute: the text is compared with the last one, and must
/// not change with every measurement.
impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (by, where_to) = match self {
            Self::Ahead(by) => (by, "ahead of"),
            Self::Behind(by) => (by, "behind"),
        };
        let by = nearest(by.as_secs(), unit(by.as_secs()));
        write!(
            f,
            "this machine's clock is about {by} {where_to} the authority's"
        )
    }
}

/// `by`, or a little less, as [`Skew`] would write it.
pub(super) fn at_least(by: Duration) -> Span {
    let seconds = by.as_secs();
    Span(Duration::from_secs(seconds - seconds % unit(seconds)))
}

fn nearest(seconds: u64, unit: u64) -> Span {
    let units = seconds.saturating_add(unit / 2) / unit;
    Span(Duration::from_secs(units.max(1).saturating_mul(unit)))
}

fn unit(seconds: u64) -> u64 {
    if seconds < MINUTE { 10 } else { MINUTE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_way_and_about_how_far() {
        let told = |millis| Skew::of(millis).map(|skew| skew.to_string());
        for (millis, expected) in [
            (5_000, "10s behind"),
            (19_400, "20s behind"),
            (600_400, "10m behind"),
            (599_100, "10m behind"),
            (-598_000, "10m ahead of"),
            (-86_399_000, "1d ahead of"),
        ] {
            let expected = format!("this machine's clock is about {expected} the authority's");
            assert_eq!(told(millis), Some(expected));
        }
        assert_eq!((told(4_999), told(-4_999), told(0)), (None, None, None));
        assert!(told(i64::MIN).is_some() && told(i64::MAX).is_some());
    }

    #[test]
    fn a_lower_bound_is_rounded_down() {
        let told = |seconds| at_least(Duration::from_secs(seconds)).to_string();
        assert_eq!(
            (told(570), told(59), told(3)),
            ("9m".into(), "50s".into(), "0s".into())
        );
    }
}

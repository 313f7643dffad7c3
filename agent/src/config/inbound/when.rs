//! Times at which a rule is for a request.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{Clock, Moment, UtcOffset};

/// A window of time. All parts that are present must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// On which days of the week; on all where empty. A window across midnight belongs to the day it begins on.
    #[serde(default)]
    pub days: Vec<Day>,
    /// From this time of day on; from 00:00 where absent.
    pub from: Option<Clock>,
    /// Until before this time of day, on the next day where it is not after `from`; until 24:00 where absent.
    pub to: Option<Clock>,
    /// How far the clock that `days`, `from` and `to` are about is ahead of UTC; not at all where absent.
    #[serde(default)]
    pub offset: UtcOffset,
    /// Not before this moment.
    pub not_before: Option<Moment>,
    /// Not at or after this moment.
    pub not_after: Option<Moment>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

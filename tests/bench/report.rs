//! Rows of a result: printed as a table, written as JSON.

use std::{fs, path::Path};

use serde::Serialize;

use crate::{
    Result,
    proxies::Kind,
    stats::{deviation, median, paired_ratio},
};

/// How a benchmark ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No bar was missed.
    Met,
    /// At least one bar was missed.
    Missed,
    /// No bar was missed, but something to compare was not there.
    Absent,
}

/// What a row must not exceed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    /// Nothing is demanded.
    None,
    /// Of `ours / peer`.
    Ratio(f64),
    /// Of `ours / peer`, as a goal: shown, but missing it fails nothing yet.
    Goal(f64),
    /// Of `ours` alone, in the row's unit.
    Ours(f64),
}

/// One line of the result: the design's `{measure, unit, ours, peer, …}`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) measure: &'static str,
    unit: &'static str,
    /// Median over the runs, and how far a run typically lies from it.
    ours: f64,
    ours_deviation: f64,
    peer: Option<f64>,
    peer_deviation: Option<f64>,
    peer_name: Option<&'static str>,
    /// Median of the rounds' `ours / peer`.
    ratio: Option<f64>,
    bar: Option<f64>,
    /// `ratio` or `ours`: what the bar is held against.
    bar_on: Option<&'static str>,
    /// `null` where there is no bar.
    pass: Option<bool>,
    /// Whether missing the bar is only shown.
    goal: bool,
    runs: Vec<Run>,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
struct Run {
    ours: f64,
    peer: Option<f64>,
}

impl Row {
    /// Ours beside a peer's, a value for each round.
    pub(crate) fn beside(
        measure: &'static str,
        unit: &'static str,
        ours: &[f64],
        (peer_name, peer): (&'static str, &[f64]),
        bar: Bar,
    ) -> Self {
        let mut row = Self::alone(measure, unit, ours, bar);
        row.peer = median(peer);
        row.peer_deviation = deviation(peer);
        row.peer_name = Some(peer_name);
        row.ratio = paired_ratio(ours, peer);
        if let Bar::Ratio(most) | Bar::Goal(most) = bar {
            // A ratio that could not be had passes nothing.
            row.pass = Some(row.ratio.is_some_and(|ratio| ratio <= most));
        }
        for (run, peer) in row.runs.iter_mut().zip(peer) {
            run.peer = Some(*peer);
        }
        row
    }

    /// Ours only. A ratio has no meaning here, and a bar on one is missed.
    pub(crate) fn alone(measure: &'static str, unit: &'static str, ours: &[f64], bar: Bar) -> Self {
        let value = median(ours).unwrap_or(f64::NAN);
        let (most, bar_on, pass) = match bar {
            Bar::None => (None, None, None),
            Bar::Ratio(most) | Bar::Goal(most) => (Some(most), Some("ratio"), Some(false)),
            Bar::Ours(most) => (Some(most), Some("ours"), Some(value <= most)),
        };
        Self {
            measure,
            unit,
            ours: value,
            ours_deviation: deviation(ours).unwrap_or(f64::NAN),
            peer: None,
            peer_deviation: None,
            peer_name: None,
            ratio: None,
            bar: most,
            bar_on,
            pass,
            goal: matches!(bar, Bar::Goal(_)),
            runs: ours
                .iter()
                .map(|ours| Run {
                    ours: *ours,
                    peer: None,
                })
                .collect(),
        }
    }

    /// Whether it misses what is demanded.
    pub(crate) fn fails(&self) -> bool {
        self.pass == Some(false) && !self.goal
    }
}

/// Prints the rows as a table.
pub(crate) fn print(subject: Kind, rows: &[Row]) {
    println!(
        "{:<38}{:>16}{:>10}{:>16}{:>8}  bar",
        "measure",
        subject.name(),
        "peer",
        "",
        "ratio"
    );
    for row in rows {
        let peer = row
            .peer
            .map(|peer| with_deviation(peer, row.peer_deviation));
        let ratio = row.ratio.map(|ratio| format!("{ratio:.3}"));
        println!(
            "{:<38}{:>16}{:>10}{:>16}{:>8}  {}",
            format!("{}, {}", row.measure, row.unit),
            with_deviation(row.ours, Some(row.ours_deviation)),
            row.peer_name.unwrap_or("-"),
            peer.unwrap_or_default(),
            ratio.unwrap_or_default(),
            bar_text(row),
        );
    }
}

/// Writes the rows to `path`, making its directory.
pub(crate) fn write(rows: &[Row], path: &Path) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut json = serde_json::to_vec_pretty(rows)?;
    json.push(b'\n');
    Ok(fs::write(path, json)?)
}

fn with_deviation(value: f64, deviation: Option<f64>) -> String {
    let decimals = if value < 1_000.0 { 1 } else { 0 };
    format!(
        "{value:.decimals$} ±{:.decimals$}",
        deviation.unwrap_or(f64::NAN)
    )
}

fn bar_text(row: &Row) -> String {
    let (Some(bar), Some(on), Some(pass)) = (row.bar, row.bar_on, row.pass) else {
        return "-".to_owned();
    };
    let verdict = match (pass, row.goal) {
        (true, _) => "met",
        (false, true) => "missed (a goal)",
        (false, false) => "MISSED",
    };
    format!("{on} ≤ {bar} {verdict}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_on_the_ratio_is_held_against_the_paired_ratio() {
        let row = |bar| {
            Row::beside(
                "m",
                "u",
                &[9.0, 10.0],
                ("p", &[20.0, 20.0]),
                Bar::Ratio(bar),
            )
        };
        assert_eq!(row(0.475).pass, Some(true));
        assert_eq!(row(0.474).pass, Some(false));
    }

    #[test]
    fn a_goal_that_is_missed_is_shown_and_fails_nothing() {
        let row = |bar| Row::beside("m", "u", &[9.0], ("p", &[10.0]), bar);
        assert_eq!(row(Bar::Goal(0.8)).pass, Some(false));
        assert!(!row(Bar::Goal(0.8)).fails());
        assert!(row(Bar::Ratio(0.8)).fails());
        assert!(!row(Bar::Ratio(0.9)).fails());
    }

    #[test]
    fn a_bar_on_ours_needs_no_peer() {
        assert_eq!(
            Row::alone("m", "u", &[10.0], Bar::Ours(10.0)).pass,
            Some(true)
        );
        assert_eq!(
            Row::alone("m", "u", &[10.1], Bar::Ours(10.0)).pass,
            Some(false)
        );
    }

    #[test]
    fn nothing_measured_meets_no_bar() {
        assert_eq!(Row::alone("m", "u", &[], Bar::Ours(10.0)).pass, Some(false));
        assert_eq!(
            Row::beside("m", "u", &[], ("p", &[]), Bar::Ratio(9.0)).pass,
            Some(false)
        );
    }

    #[test]
    fn a_row_without_a_bar_neither_passes_nor_fails() {
        let row = Row::beside("m", "u", &[1.0], ("p", &[2.0]), Bar::None);
        assert_eq!(row.pass, None);
        assert_eq!(row.ratio, Some(0.5));
    }

    #[test]
    fn the_json_has_the_members_readers_rely_on() {
        let row = Row::beside("m", "u", &[1.0], ("p", &[2.0]), Bar::Ratio(0.5));
        let json = serde_json::to_value(&row).unwrap();
        for member in [
            "measure",
            "unit",
            "ours",
            "peer",
            "peer_name",
            "ratio",
            "bar",
            "pass",
            "runs",
        ] {
            assert!(!json[member].is_null(), "{member}");
        }
        assert_eq!(
            json["runs"][0],
            serde_json::json!({"ours": 1.0, "peer": 2.0})
        );
    }
}

//! What the reader sees: coloured on a terminal, plain in a pipe.

use std::{
    fmt::Display,
    io::{IsTerminal, Write},
    time::Duration,
};

/// Prints the demo's story.
#[derive(Debug, Clone, Copy)]
pub(super) struct Narrator {
    colour: bool,
}

impl Narrator {
    /// Colours only where a person looks, and not where they asked for none (<https://no-color.org>).
    pub(super) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            colour: wanted && std::io::stdout().is_terminal(),
        }
    }

    /// A numbered step: what is about to be shown.
    pub(super) fn step(self, number: usize, title: &str) {
        self.line(&format!(
            "\n{}",
            self.paint("1;36", &format!("{number}. {title}"))
        ));
    }

    /// A sentence of explanation.
    pub(super) fn say(self, text: impl Display) {
        self.line(&format!("   {text}"));
    }

    /// Code, a command or an answer, as it is.
    pub(super) fn show(self, text: impl Display) {
        for line in text.to_string().lines() {
            self.line(&format!("     {}", self.paint("2", line)));
        }
    }

    /// Something that was checked and held.
    pub(super) fn held(self, text: impl Display) {
        self.line(&format!("   {} {text}", self.paint("32", "✓")));
    }

    /// Something that was left out, and how to run it.
    pub(super) fn left_out(self, text: impl Display) {
        self.line(&format!("   {} {text}", self.paint("33", "–")));
    }

    /// The step that did not do what it said.
    pub(super) fn failed(self, text: impl Display) {
        self.line(&format!("   {} {text}", self.paint("31", "✗")));
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A reader who closed the pipe has seen enough: that is not a failure of the demo.
    fn line(self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

/// `340 µs`, `1.2 ms`, `3.0 s`.
pub(super) fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", duration.as_secs_f64() * 1_000.0),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_in_the_unit_a_person_would_use() {
        assert_eq!(duration(Duration::from_micros(340)), "340 µs");
        assert_eq!(duration(Duration::from_micros(1_240)), "1.2 ms");
        assert_eq!(duration(Duration::from_secs(3)), "3.0 s");
    }
}

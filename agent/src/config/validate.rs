//! What concerns several fields at once. Values are valid by now; here they are held against each other.

mod agent;
mod authority;
mod aws;
mod inbound;
mod local;
mod outbound;
mod timeouts;

pub(super) use agent::agent;
pub(super) use authority::authority;

use std::time::Duration;

use super::{
    node::Path,
    value::{Listen, Span},
};

/// Longest hint, in bytes: SPIFFE Workload API §5.2.1.
const MAX_HINT: usize = 1024;

/// Headers that frame a message, say what it is, or whose it is: nothing else has a place there.
const OF_THE_MESSAGE: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether the header `name` is the message's own.
fn is_of_the_message(name: &str) -> bool {
    OF_THE_MESSAGE.contains(&name)
}

/// A mistake, by the path of its field.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) at: Path,
    pub(super) what: String,
}

/// Collects problems.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    fn add(&mut self, at: Path, what: impl Into<String>) {
        self.0.push(Problem {
            at,
            what: what.into(),
        });
    }

    pub(super) fn add_if(&mut self, wrong: bool, at: Path, what: impl Into<String>) {
        if wrong {
            self.add(at, what);
        }
    }

    /// So many, and no more.
    fn at_most(&mut self, most: usize, found: usize, at: Path) {
        self.add_if(
            found > most,
            at,
            format!("expected at most {most}, found {found}"),
        );
    }

    /// `span` must be from `least` to `most`.
    fn span(&mut self, at: Path, span: Span, least: Duration, most: Duration) {
        self.add_if(
            span.0 < least || span.0 > most,
            at,
            format!("expected {} to {}, found {span}", Span(least), Span(most)),
        );
    }

    /// What a workload is told an identity is for.
    fn hint(&mut self, at: Path, hint: Option<&str>) {
        let is_usable = |hint: &str| {
            (1..=MAX_HINT).contains(&hint.len()) && !hint.chars().any(char::is_control)
        };
        self.add_if(
            hint.is_some_and(|hint| !is_usable(hint)),
            at,
            format!("expected 1 to {MAX_HINT} bytes without control characters"),
        );
    }

    /// No two listeners may want the same address.
    fn listeners(&mut self, listeners: &[(Path, Listen)]) {
        for (index, (at, listen)) in listeners.iter().enumerate() {
            let earlier = listeners.iter().take(index);
            if let Some((other, _)) = earlier.into_iter().find(|(_, l)| l.collides_with(listen)) {
                self.add(
                    at.clone(),
                    format!(
                        "{listen} is taken by {other}; give each listener an address of its own"
                    ),
                );
            }
        }
    }
}

pub(super) fn root() -> Path {
    Path::default()
}

//! What concerns several fields at once. Values are valid by now; here they are held against each other.

mod agent;
mod authority;
mod local;
mod outbound;

pub(super) use agent::agent;
pub(super) use authority::authority;

use std::time::Duration;

use super::{
    node::Path,
    value::{Listen, Span},
};

/// A mistake, by the path of its field.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) at: Path,
    pub(super) what: String,
}

/// Collects problems.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, at: Path, what: impl Into<String>) {
        self.0.push(Problem {
            at,
            what: what.into(),
        });
    }

    fn add_if(&mut self, wrong: bool, at: Path, what: impl Into<String>) {
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

fn root() -> Path {
    Path::default()
}

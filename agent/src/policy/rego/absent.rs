//! In place of the engine, where the program was built without it.

use std::time::Duration;

use super::Undecided;

/// There is none.
#[derive(Debug)]
pub(super) enum Engine {}

impl Engine {
    pub(super) fn compile(_: Vec<(String, String)>, _: &str) -> Result<Self, String> {
        Err(
            "this program was built without Rego; build it with the cargo feature rego, or remove rego from the listener"
                .to_owned(),
        )
    }

    pub(super) fn evaluate(&self, _: &str, _: Duration) -> Result<bool, Undecided> {
        match *self {}
    }
}

//! What requests may take, on their way out or in.

use std::time::Duration;

use super::{Path, Problems, agent::HOUR};
use crate::config::outbound::Timeouts;

const LEAST: Duration = Duration::from_millis(1);

pub(super) fn timeouts(timeouts: &Timeouts, at: &Path, problems: &mut Problems) {
    problems.span(at.key("connect"), timeouts.connect, LEAST, HOUR);
    // 0s is none.
    if let Some(first_byte) = timeouts.first_byte.filter(|limit| !limit.0.is_zero()) {
        problems.span(at.key("first_byte"), first_byte, LEAST, HOUR);
    }
    if let Some(whole) = timeouts.whole {
        problems.span(at.key("whole"), whole, LEAST, 24 * HOUR);
    }
}

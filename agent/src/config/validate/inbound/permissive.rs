//! Permissive mode.

use std::time::{Duration, SystemTime};

use super::{Path, Problems};
use crate::config::inbound::Inbound;

/// The furthest end of permissive mode: a quarter is enough for a migration, and a year is none.
const MAX_AHEAD: Duration = Duration::from_secs(90 * 24 * 60 * 60);

pub(super) fn permissive(inbound: &Inbound, now: SystemTime, at: &Path, problems: &mut Problems) {
    let Some(permissive) = &inbound.permissive else {
        return;
    };
    let ahead = permissive.until.0.duration_since(now).unwrap_or_default();
    problems.add_if(
        ahead > MAX_AHEAD,
        at.key("permissive").key("until"),
        "expected a moment within 90 days: until then anybody may call; it can be put off when it is near",
    );
}

//! A policy in Rego. Whether its files are one is seen where they are compiled.

use std::time::Duration;

use super::{Path, Problems};
use crate::config::inbound::Rego;

/// Most files of a policy: what is larger is made one file of.
const MAX_FILES: usize = 64;

pub(super) fn rego(rego: &Rego, at: &Path, problems: &mut Problems) {
    problems.add_if(
        rego.files.is_empty() || rego.files.len() > MAX_FILES,
        at.key("files"),
        format!("expected 1 to {MAX_FILES} files, such as [/etc/warifu/policy.rego]"),
    );
    // Below, a busy machine refuses everybody; above, whoever waits has long gone.
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(5));
    problems.span(at.key("timeout"), rego.timeout, least, most);
}

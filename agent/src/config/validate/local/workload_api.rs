//! `local.workload_api`.

use crate::config::{
    local::WorkloadApi,
    validate::{Path, Problems},
    value::Listen,
};

pub(super) fn workload_api(api: &WorkloadApi, at: &Path, problems: &mut Problems) {
    super::listener(&api.listen, &api.clients, at, problems);
    problems.add_if(
        matches!(api.listen, Listen::Tcp(_)) && !api.unsafe_tcp,
        at.key("listen"),
        "expected a unix socket: over TCP every process of this machine (its pod or task) has this workload's private \
         key for the asking. If that is meant, say unsafe_tcp: true",
    );
    problems.hint(at.key("hint"), api.hint.as_deref());
}

//! What is said where there is nothing to give.

use tonic::Status;

use crate::identity;

/// `PermissionDenied` only where the authority decided so; whatever may pass is `Unavailable`.
pub(super) fn status(renewal: &identity::Status) -> Status {
    let why = renewal.last_error.as_deref();
    match renewal.refused {
        true => Status::permission_denied(format!(
            "no identity issued: {}",
            why.unwrap_or("the authority refused")
        )),
        false => Status::unavailable(format!(
            "this agent has no identity now and goes on trying: {}",
            why.unwrap_or("the first attestation is under way")
        )),
    }
}

/// For a process that may not ask.
pub(super) fn not_for_you() -> Status {
    Status::permission_denied("no identity issued")
}

/// While draining.
pub(super) fn draining() -> Status {
    Status::unavailable("the agent is draining; try again in a moment")
}

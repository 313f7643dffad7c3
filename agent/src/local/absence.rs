//! What a workload is told when there is no identity for it.

use tonic::Status;

use crate::identity;

/// What clients know a decided refusal by (crate `spiffe` looks for these words).
const NO_IDENTITY_ISSUED: &str = "no identity issued";

/// Longest reason told, in bytes: it travels in a header.
const MAX_REASON: usize = 1024;

/// Why there is no identity now. `PermissionDenied` only where the authority decided so: some clients never ask
/// again after it. Whatever may pass is `Unavailable`.
pub(super) fn status(renewal: &identity::Status) -> Status {
    let why = renewal.last_error.as_deref();
    match (renewal.refused, why) {
        (true, why) => refused(why.unwrap_or("the authority refused")),
        (false, Some(why)) => unavailable(why),
        (false, None) => unavailable("the first attestation is under way"),
    }
}

/// Decided, by the authority: asking again changes nothing until a rule does.
pub(super) fn refused(why: &str) -> Status {
    Status::permission_denied(format!("{NO_IDENTITY_ISSUED}: {}", shortened(why)))
}

/// May pass.
pub(super) fn unavailable(why: &str) -> Status {
    Status::unavailable(format!("not now, but perhaps soon: {}", shortened(why)))
}

/// For a process that may not ask. Why is told to our log alone.
pub(super) fn not_for_you() -> Status {
    Status::permission_denied(NO_IDENTITY_ISSUED)
}

/// For whoever asks for an identity that is not this workload's.
pub(super) fn not_ours(asked: &str) -> Status {
    let asked = shortened(asked);
    Status::permission_denied(format!("{NO_IDENTITY_ISSUED} for {asked:?}"))
}

/// For the streams of an identity that expired. What comes of asking again is told then.
pub(super) fn withdrawn() -> Status {
    unavailable("the X.509-SVID expired and could not be renewed")
}

/// While draining.
pub(super) fn draining() -> Status {
    Status::unavailable("the agent is draining; try again in a moment")
}

fn shortened(text: &str) -> &str {
    let end = text.floor_char_boundary(MAX_REASON);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn renewal(refused: bool, last_error: Option<&str>) -> identity::Status {
        identity::Status {
            refused,
            last_error: last_error.map(str::to_owned),
            ..identity::Status::default()
        }
    }

    #[test]
    fn permission_denied_is_said_only_where_the_authority_decided_and_names_no_identity_issued() {
        let denied = status(&renewal(true, Some("no rule matches")));
        assert_eq!(denied.code(), Code::PermissionDenied);
        assert_eq!(denied.message(), "no identity issued: no rule matches");
        for passing in [None, Some("the authority is away")] {
            let status = status(&renewal(false, passing));
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert!(!status.message().contains(NO_IDENTITY_ISSUED), "{status}");
            assert!(status.message().contains(passing.unwrap_or("under way")));
        }
    }

    #[test]
    fn who_may_not_ask_is_told_no_more_than_that() {
        assert_eq!(not_for_you().code(), Code::PermissionDenied);
        assert_eq!(not_for_you().message(), NO_IDENTITY_ISSUED);
        let other = not_ours("spiffe://example.org/other");
        assert_eq!(other.code(), Code::PermissionDenied);
        assert!(other.message().contains(NO_IDENTITY_ISSUED), "{other}");
    }

    #[test]
    fn a_reason_is_cut_where_a_header_could_not_carry_it() {
        let long = "ä".repeat(MAX_REASON);
        assert!(status(&renewal(false, Some(&long))).message().len() < MAX_REASON + 100);
    }
}

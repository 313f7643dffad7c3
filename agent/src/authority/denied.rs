//! Why a request was not granted, in the API's words.

use std::time::Duration;

use super::{ca::CsrError, rules::Refusal, state::StoreError};
use crate::attest::wire::ErrorCode;

/// When to ask again after something failed here: long enough for a store's failover to begin,
/// short enough that agents are back within 2 s.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A refusal or a failure.
#[derive(Debug, Clone)]
pub(super) struct Denied {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    pub(super) retry_after: Option<Duration>,
}

impl Denied {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::Unavailable,
            message: message.into(),
            retry_after: Some(RETRY_AFTER),
        }
    }

    /// Over what one account may ask.
    pub(super) fn too_many(attestor: &str, wait: Duration) -> Self {
        Self {
            code: ErrorCode::TooManyRequests,
            message: format!(
                "attestor {attestor:?} has proved this account, namespace or subject too often; wait, or raise \
                 `attestations_per_second` of the authority"
            ),
            // In whole seconds on the wire; agents add jitter of their own.
            retry_after: Some(wait.max(RETRY_AFTER)),
        }
    }

    /// What it takes to verify this evidence is away or busy: no verdict on the evidence (S10). Agents may renew
    /// with a record meanwhile.
    pub(super) fn evidence_unavailable(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::EvidenceUnavailable,
            message: message.into(),
            retry_after: Some(RETRY_AFTER),
        }
    }

    /// Something of ours failed: the log gets the reason, the agent that it is not its fault.
    pub(super) fn failed(doing: &'static str, why: &dyn std::error::Error) -> Self {
        tracing::error!(%why, "{doing} failed");
        Self::busy(format!(
            "{doing} failed; the authority's log has the reason"
        ))
    }
}

impl From<CsrError> for Denied {
    fn from(why: CsrError) -> Self {
        Self::new(ErrorCode::InvalidCsr, format!("csr: {why}"))
    }
}

impl From<StoreError> for Denied {
    fn from(why: StoreError) -> Self {
        Self::failed("asking the state store", &why)
    }
}

impl From<Refusal> for Denied {
    fn from(why: Refusal) -> Self {
        Self::new(
            ErrorCode::NoRule,
            format!(
                "{why}; the authority's `rules` decide, and `warifu authority explain` says how"
            ),
        )
    }
}

//! What the authority writes of each decision, before anything is released.

use serde::Serialize;

use super::{denied::Denied, rules::Facts};
use crate::telemetry::timestamp::Timestamp;

/// One line of the audit log.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    time: Timestamp,
    /// `attest`, `renew`, `jwt-svid`, `access-token`, `exchange`.
    event: &'static str,
    /// `issued` or `refused`.
    decision: &'static str,
    /// Where the request came from.
    remote: &'a str,
    #[serde(flatten)]
    who: Who,
    #[serde(flatten)]
    issued: Option<Issued>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refused<'a>>,
}

/// Who asked, as far as that got proved.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Who {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attestor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) facts: Option<Facts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lineage: Option<String>,
}

/// What was issued.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Issued {
    pub(super) rule: usize,
    pub(super) spiffe_id: String,
    /// Of a certificate, lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serial: Option<String>,
    /// Of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jti: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) audiences: Vec<String>,
    /// The certificates of further identities.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) further: Vec<Further>,
    pub(super) expires_at: Timestamp,
}

/// A certificate of a further identity.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Further {
    pub(super) spiffe_id: String,
    pub(super) serial: String,
    pub(super) expires_at: Timestamp,
}

#[derive(Debug, Serialize)]
struct Refused<'a> {
    code: String,
    why: &'a str,
}

impl<'a> Line<'a> {
    pub(super) fn issued(
        event: &'static str,
        time: Timestamp,
        remote: &'a str,
        who: Who,
        issued: Issued,
    ) -> Self {
        Self {
            time,
            event,
            decision: "issued",
            remote,
            who,
            issued: Some(issued),
            refused: None,
        }
    }

    pub(super) fn refused(
        event: &'static str,
        time: Timestamp,
        remote: &'a str,
        who: Who,
        why: &'a Denied,
    ) -> Self {
        Self {
            time,
            event,
            decision: "refused",
            remote,
            who,
            issued: None,
            refused: Some(Refused {
                code: why.code.to_string(),
                why: &why.message,
            }),
        }
    }
}

//! What can go wrong between an agent and its authority.

use std::time::Duration;

use thiserror::Error;

use super::wire::ErrorCode;

/// Why the authority gave us nothing.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection.
    #[error(
        "cannot reach the authority at {authority}: {why}; check `authority.url`, that the authority runs, and that this host may connect to it"
    )]
    Unreachable {
        /// Its URL.
        authority: String,
        /// What failed.
        why: String,
    },
    /// Something answers, and cannot prove to be the authority.
    #[error(
        "what answers at {authority} is not the authority of {trust_domain}: {why}; compare `authority.root_spki_sha256` (or `bundle`) with the root pins the authority logs at start"
    )]
    NotTheAuthority {
        /// Its URL.
        authority: String,
        /// Whose authority was expected.
        trust_domain: String,
        /// What the TLS stack says.
        why: String,
    },
    /// Certificates are not valid by this machine's clock.
    #[error(
        "{what}; {skew}: correct this machine's clock (chrony, systemd-timesyncd or the host's), or the authority's if that is the wrong one"
    )]
    Clock {
        /// What is of no use by this clock.
        what: String,
        /// How this clock compares with the authority's.
        skew: String,
    },
    /// Decided: asking the same again changes nothing.
    #[error("the authority at {authority} refused ({code}): {message}")]
    Refused {
        /// Its URL.
        authority: String,
        /// For programs.
        code: ErrorCode,
        /// Its words: what, and what to do.
        message: String,
    },
    /// May pass.
    #[error("the authority at {authority} cannot answer now ({code}): {message}")]
    Unavailable {
        /// Its URL.
        authority: String,
        /// For programs.
        code: ErrorCode,
        /// Its words.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The connection was lost, or the answer late or not understood.
    #[error("no usable answer from the authority at {authority}: {why}")]
    Broken {
        /// Its URL.
        authority: String,
        /// What failed.
        why: String,
    },
    /// The evidence cannot be had now: a file, credentials, whoever gives it.
    #[error("{0}")]
    NoEvidence(String),
    /// Whoever gives the evidence decided against: a role that is gone, or may not.
    #[error("{0}")]
    EvidenceRefused(String),
    /// A local matter: a key, a request that can't be written.
    #[error("{0}")]
    Local(String),
}

impl ClientError {
    /// Whether somebody decided (and did not merely fail).
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::EvidenceRefused(_))
    }

    /// Whether the authority decided that whoever asks is to have no identity: a workload is told so, and may stop
    /// asking. What else it refuses (a late challenge, a path it does not know) is no verdict on the workload.
    pub fn denies_an_identity(&self) -> bool {
        matches!(
            self.refusal(),
            Some(
                ErrorCode::InvalidEvidence
                    | ErrorCode::InvalidRecord
                    | ErrorCode::InvalidProof
                    | ErrorCode::NoRule
                    | ErrorCode::Revoked
            )
        )
    }

    /// Whether the authority decided that whoever asks is to have no such token. A record or a key that it does not take
    /// (any more), and a challenge that came late, are no such decision: the agent attests again, and asks again.
    pub fn denies_a_token(&self) -> bool {
        self.refusal().is_some_and(|code| {
            !matches!(
                code,
                ErrorCode::InvalidRecord | ErrorCode::InvalidProof | ErrorCode::InvalidChallenge
            )
        })
    }

    /// Whether nobody could judge the evidence, or there is none to judge: then the record of an earlier attestation
    /// may renew. A refusal is no such thing, and neither is an authority that can't be reached: it could not renew.
    pub fn leaves_it_to_the_record(&self) -> bool {
        match self {
            Self::NoEvidence(_) => true,
            Self::Unavailable { code, .. } => matches!(
                code,
                ErrorCode::EvidenceUnavailable | ErrorCode::TooManyRequests
            ),
            _ => false,
        }
    }

    /// The authority's code, if it decided.
    pub fn refusal(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// When the authority wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_authoritys_verdict_denies_an_identity() {
        let refused = |code| ClientError::Refused {
            authority: String::new(),
            code,
            message: String::new(),
        };
        for (error, denies) in [
            (refused(ErrorCode::NoRule), true),
            (refused(ErrorCode::InvalidEvidence), true),
            (refused(ErrorCode::Revoked), true),
            (refused(ErrorCode::InvalidChallenge), false),
            (refused(ErrorCode::NotFound), false),
            (ClientError::EvidenceRefused("not yet".into()), false),
            (ClientError::Local("no key".into()), false),
        ] {
            assert_eq!(error.denies_an_identity(), denies, "{error:?}");
        }
    }

    #[test]
    fn only_where_there_is_no_verdict_the_record_may_renew() {
        let unavailable = |code| ClientError::Unavailable {
            authority: String::new(),
            code,
            message: String::new(),
            retry_after: None,
        };
        let refused = |code| ClientError::Refused {
            authority: String::new(),
            code,
            message: String::new(),
        };
        let bridges = [
            ClientError::NoEvidence("the file is missing".into()),
            unavailable(ErrorCode::EvidenceUnavailable),
            unavailable(ErrorCode::TooManyRequests),
        ];
        assert!(bridges.iter().all(ClientError::leaves_it_to_the_record));
        let decides = [
            ClientError::EvidenceRefused("the role may not".into()),
            refused(ErrorCode::InvalidEvidence),
            refused(ErrorCode::NoRule),
            refused(ErrorCode::InvalidProof),
            unavailable(ErrorCode::Unavailable),
            ClientError::Local("no key".into()),
            ClientError::Broken {
                authority: String::new(),
                why: String::new(),
            },
        ];
        assert!(!decides.iter().any(ClientError::leaves_it_to_the_record));
    }
}

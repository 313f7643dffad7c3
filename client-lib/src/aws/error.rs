//! What can go wrong on the way to a token, and what to do about it.

use std::time::Duration;

use thiserror::Error;

use super::CredentialsError;

/// Why there is no token. Cheap enough to clone: whoever waited is told.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The program asks for something that can't be.
    #[error("{0}")]
    Setting(String),
    /// No keys of a role.
    #[error("there are no keys of a role to ask with: {0}")]
    Credentials(#[from] CredentialsError),
    /// No connection, or no answer in time.
    #[error("cannot reach {whom}: {why}; {check}")]
    Unreachable {
        /// Who was to be asked.
        whom: String,
        /// What failed.
        why: String,
        /// What to look at.
        check: &'static str,
    },
    /// Something answers, and cannot prove to be the authority.
    #[error(
        "what answers at {url} is not the authority of {trust_domain}: {why}; compare the pins with the root pins that \
         the authority logs at start"
    )]
    NotTheAuthority {
        /// Where it was asked for.
        url: String,
        /// Whose authority was expected.
        trust_domain: String,
        /// What the TLS stack says.
        why: String,
    },
    /// Decided: asking the same again changes nothing.
    #[error("{by} refused ({code}): {message}")]
    Refused {
        /// Who.
        by: String,
        /// For programs: AWS's code, or the authority's.
        code: String,
        /// What, and what to do.
        message: String,
    },
    /// May pass.
    #[error("{by} cannot answer now ({code}): {message}")]
    Unavailable {
        /// Who.
        by: String,
        /// For programs: AWS's code, or the authority's.
        code: String,
        /// Its words.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// An answer that is none of its.
    #[error("the answer of {by} is not understood: {why}; is that its address?")]
    NotUnderstood {
        /// Who was asked.
        by: String,
        /// What is wrong with it.
        why: String,
    },
}

impl TokenError {
    pub(super) fn setting(why: impl Into<String>) -> Self {
        Self::Setting(why.into())
    }

    /// Whether somebody decided so, or the program's own settings are wrong: asking again changes nothing.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Setting(_) | Self::Refused { .. } | Self::NotTheAuthority { .. }
        )
    }

    /// When who was asked wants to be asked again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

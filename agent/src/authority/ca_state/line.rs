//! The lines that rotate, each by itself: roots, and four kinds of keys.

use serde::{Deserialize, Serialize};

use crate::{
    authority::{rotation::Schedule, settings::Settings},
    config::authority::TokenAlgorithm,
};

/// A line that rotates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::authority) enum Line {
    /// Sign intermediates; published.
    Roots,
    /// Sign JWT-SVIDs; published in the bundle.
    JwtKeys,
    /// Sign access tokens; published in their issuer's JWKS, and never in the bundle.
    AccessKeys,
    /// Sign attestation records; never published.
    RecordKeys,
    /// Authenticate challenges; secret.
    ChallengeKeys,
}

/// What a key is for, as the document says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::authority) enum KeyAlgorithm {
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "RS256")]
    Rs256,
    /// 32 random bytes.
    #[serde(rename = "HS256")]
    Hs256,
}

impl Line {
    pub(in crate::authority) const ALL: [Self; 5] = [
        Self::Roots,
        Self::JwtKeys,
        Self::AccessKeys,
        Self::RecordKeys,
        Self::ChallengeKeys,
    ];

    /// For people.
    pub(in crate::authority) fn name(self) -> &'static str {
        match self {
            Self::Roots => "root",
            Self::JwtKeys => "JWT key",
            Self::AccessKeys => "access token key",
            Self::RecordKeys => "record key",
            Self::ChallengeKeys => "challenge key",
        }
    }

    /// What its keys are wrapped for; documents have it, so it stays as it is.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::ChallengeKeys => "challenge",
            other => other.name(),
        }
    }

    /// How it rotates; `None` where the configuration has no use for it.
    pub(super) fn schedule(self, settings: &Settings) -> Option<Schedule> {
        match self {
            Self::Roots => Some(settings.roots()),
            Self::JwtKeys => Some(settings.token_keys()),
            Self::AccessKeys => settings.access_algorithm.map(|_| settings.token_keys()),
            Self::RecordKeys => Some(settings.record_keys()),
            Self::ChallengeKeys => Some(settings.challenge_keys()),
        }
    }

    /// What a new key of this line is. A current one of another algorithm is replaced by a rotation
    /// like any other: published ahead, and verified with until nothing it signed is alive.
    pub(super) fn algorithm(self, settings: &Settings) -> KeyAlgorithm {
        match self {
            Self::JwtKeys => settings.jwt_algorithm.into(),
            Self::AccessKeys => settings.access_algorithm.unwrap_or_default().into(),
            Self::Roots | Self::RecordKeys => KeyAlgorithm::Es256,
            Self::ChallengeKeys => KeyAlgorithm::Hs256,
        }
    }

    /// Whether it is part of the trust bundle.
    pub(super) fn is_in_bundle(self) -> bool {
        matches!(self, Self::Roots | Self::JwtKeys)
    }
}

impl From<TokenAlgorithm> for KeyAlgorithm {
    fn from(algorithm: TokenAlgorithm) -> Self {
        match algorithm {
            TokenAlgorithm::Es256 => Self::Es256,
            TokenAlgorithm::Rs256 => Self::Rs256,
        }
    }
}

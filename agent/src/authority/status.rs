//! What `warifu authority status` tells.

use serde::{Deserialize, Serialize};

use super::{
    ca_state::{Line, hex},
    live::Live,
    maintain,
    record::unix,
    rotation::Phase,
    settings::Settings,
};
use crate::revocation::List;

/// What an authority has. No secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Its trust domain.
    pub trust_domain: String,
    /// `spiffe_sequence` of the bundle.
    pub bundle_sequence: u64,
    /// Every published root.
    pub roots: Vec<RootStatus>,
    /// When this replica's intermediate expires, Unix seconds.
    pub intermediate_not_after: u64,
    /// Number of the revocation list.
    pub revocations_number: u64,
    /// Entries of the revocation list.
    pub revocations: usize,
    /// Rotations under way.
    pub rotations: Vec<RotationStatus>,
}

/// A root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootStatus {
    /// `next`, `current`, `old`.
    pub phase: String,
    /// SHA-256 of its SubjectPublicKeyInfo, hex: for `root_spki_sha256` of the agents. Pin the next
    /// one beside the current one before it becomes current.
    pub spki_sha256: String,
}

/// A rotation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RotationStatus {
    /// Of what.
    pub what: String,
    /// The next step: it will …
    pub next: String,
    /// … then; Unix seconds.
    pub at: u64,
}

impl Status {
    pub(super) fn of(live: &Live, revoked: &List, settings: &Settings) -> Self {
        let phase = |phase| match phase {
            Phase::Next => "next",
            Phase::Current => "current",
            Phase::Old => "old",
        };
        let rotation = |line: Line| {
            let (action, at) = live.state.under_way(line, settings)?;
            Some(RotationStatus {
                what: line.name().to_owned(),
                next: maintain::name(action).to_owned(),
                at: unix(at),
            })
        };
        Self {
            trust_domain: settings.trust_domain.to_string(),
            bundle_sequence: live.bundle.sequence,
            roots: live
                .root_pins()
                .into_iter()
                .map(|(at, pin)| RootStatus {
                    phase: phase(at).to_owned(),
                    spki_sha256: hex(&pin),
                })
                .collect(),
            intermediate_not_after: unix(live.intermediate.not_after()),
            revocations_number: revoked.number(),
            revocations: revoked.len(),
            rotations: Line::ALL.into_iter().filter_map(rotation).collect(),
        }
    }
}

//! What `warifu authority status` tells.

use serde::{Deserialize, Serialize};

use super::{
    ca::hex, ca_state::Line, federation::Federation, live::Live, maintain, rotation::Phase,
    settings::Settings,
};
use crate::{revocation::List, telemetry::timestamp::Timestamp};

/// What an authority has. No secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Its trust domain.
    pub trust_domain: String,
    /// `spiffe_sequence` of the bundle.
    pub bundle_sequence: u64,
    /// Every published root.
    pub roots: Vec<RootStatus>,
    /// When this replica's intermediate expires (RFC 3339).
    pub intermediate_not_after: String,
    /// Number of the revocation list.
    pub revocations_number: u64,
    /// Entries of the revocation list.
    pub revocations: usize,
    /// Rotations under way.
    pub rotations: Vec<RotationStatus>,
    /// Other trust domains.
    #[serde(default)]
    pub federation: Vec<FederationStatus>,
}

/// What is known of another trust domain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FederationStatus {
    /// Its name.
    pub trust_domain: String,
    /// `spiffe_sequence` of its bundle; none while there is no bundle.
    pub sequence: Option<u64>,
    /// Roots in it.
    pub roots: usize,
    /// When it was last fetched (RFC 3339); none where it is that of the configuration's file.
    pub fetched_at: Option<String>,
    /// Why the last attempt failed, where it did.
    pub last_error: Option<String>,
}

/// A root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootStatus {
    /// `next`, `current`, `old`.
    pub phase: String,
    /// SHA-256 of its SubjectPublicKeyInfo, hex: for `root_spki_sha256` of the agents. Pin the next
    /// one beside the current one before it becomes current.
    pub spki_sha256: String,
    /// Where its key is: `the state`, or the ARN of a key of KMS or of a private CA.
    pub key: String,
}

/// A rotation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RotationStatus {
    /// Of what.
    pub what: String,
    /// The next step: it will …
    pub next: String,
    /// … then (RFC 3339).
    pub at: String,
}

impl Status {
    pub(super) fn of(
        live: &Live,
        revoked: &List,
        federation: &Federation,
        settings: &Settings,
    ) -> Self {
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
                at: Timestamp(at).to_string(),
            })
        };
        Self {
            trust_domain: settings.trust_domain.to_string(),
            bundle_sequence: live.bundle.sequence,
            roots: live
                .root_pins()
                .into_iter()
                .zip(live.state.root_keys())
                .map(|((at, pin), key)| RootStatus {
                    key: key.to_owned(),
                    phase: phase(at).to_owned(),
                    spki_sha256: hex(&pin),
                })
                .collect(),
            intermediate_not_after: Timestamp(live.signer.not_after()).to_string(),
            revocations_number: revoked.number(),
            revocations: revoked.len(),
            rotations: Line::ALL.into_iter().filter_map(rotation).collect(),
            federation: federation.status(),
        }
    }
}

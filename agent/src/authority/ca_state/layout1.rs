//! The document as version 0.1 wrote it: ES256 throughout, one challenge key that never changed.

use serde::Deserialize;

use super::{CaState, KeyAlgorithm, KeySlot, LAYOUT, RootSlot};
use crate::authority::{
    keys::Wrapped,
    rotation::{Phase, Slot},
};

#[derive(Deserialize)]
pub(super) struct Layout1 {
    trust_domain: String,
    sequence: u64,
    roots: Vec<Slot<RootSlot>>,
    jwt_keys: Vec<Slot<OldKeySlot>>,
    record_keys: Vec<Slot<OldKeySlot>>,
    challenge_key: Wrapped,
}

#[derive(Deserialize)]
struct OldKeySlot {
    kid: String,
    key: Wrapped,
}

impl From<Layout1> for CaState {
    fn from(old: Layout1) -> Self {
        // Nobody wrote down when it was made: at the latest it goes when the records' keys of its
        // time do.
        let until = old.record_keys.iter().map(|slot| slot.until).max();
        let challenge_key = Slot {
            phase: Phase::Current,
            since: 0,
            until: until.unwrap_or(0),
            body: KeySlot {
                kid: String::new(),
                algorithm: KeyAlgorithm::Hs256,
                key: old.challenge_key,
            },
        };
        Self {
            layout: LAYOUT,
            trust_domain: old.trust_domain,
            kek: None,
            sequence: old.sequence,
            roots: old.roots,
            jwt_keys: with_algorithm(old.jwt_keys),
            access_keys: Vec::new(),
            record_keys: with_algorithm(old.record_keys),
            challenge_keys: vec![challenge_key],
            seal: None,
            is_unsealed: true,
        }
    }
}

fn with_algorithm(slots: Vec<Slot<OldKeySlot>>) -> Vec<Slot<KeySlot>> {
    let slots = slots.into_iter();
    slots
        .map(|slot| Slot {
            phase: slot.phase,
            since: slot.since,
            until: slot.until,
            body: KeySlot {
                kid: slot.body.kid,
                algorithm: KeyAlgorithm::Es256,
                key: slot.body.key,
            },
        })
        .collect()
}

//! The document replicas agree on: roots, keys of tokens, records and challenges, the bundle's
//! sequence. Private keys in it are wrapped. It changes by [`CaState::advance`] and
//! [`CaState::start_rotation`], and is then compared and swapped in the store.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use warifu::{Secret, jwt::SigningKey};

use super::{
    ca::{self, CaError},
    keys::{self, Kek, KeyError, Wrapped},
    rotation::{self, Action, Millis, Phase, Slot, from_millis, slot, to_millis},
    settings::Settings,
};
use crate::attest::wire::Base64;

mod layout1;
mod line;

pub(super) use line::{KeyAlgorithm, Line};

/// The version of this layout; older ones are read, and written as this one.
const LAYOUT: u32 = 2;

/// The document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CaState {
    layout: u32,
    trust_domain: String,
    /// `spiffe_sequence`: counts up with every change of what is published.
    pub(super) sequence: u64,
    roots: Vec<Slot<RootSlot>>,
    jwt_keys: Vec<Slot<KeySlot>>,
    access_keys: Vec<Slot<KeySlot>>,
    record_keys: Vec<Slot<KeySlot>>,
    challenge_keys: Vec<Slot<KeySlot>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RootSlot {
    certificate: Base64,
    key: Wrapped,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeySlot {
    kid: String,
    algorithm: KeyAlgorithm,
    key: Wrapped,
}

/// Why the document can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaStateError {
    /// Not JSON of ours.
    #[error("the CA's state is damaged: {0}; restore it from backup")]
    Damaged(String),
    /// Written by a newer version.
    #[error(
        "the CA's state has layout {0}, and this version knows {LAYOUT}; run the version that wrote it or newer"
    )]
    Newer(u32),
    /// Another trust domain's.
    #[error(
        "the CA's state is of trust domain {found}, and the configuration says {configured}; correct `trust_domain`, or name another `ca.path` for another trust domain"
    )]
    TrustDomain {
        /// In the state.
        found: String,
        /// In the configuration.
        configured: String,
    },
    /// No slot is current.
    #[error("the CA's state has no current {0}; restore it from backup")]
    NoCurrent(&'static str),
    /// See there.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// See there.
    #[error(transparent)]
    Ca(#[from] CaError),
}

impl CaState {
    /// The first document of a trust domain: everything is current at once, as nobody knows it yet.
    pub(super) fn new(
        settings: &Settings,
        kek: &Kek,
        now: SystemTime,
    ) -> Result<Self, CaStateError> {
        let mut state = Self {
            layout: LAYOUT,
            trust_domain: settings.trust_domain.to_string(),
            sequence: 1,
            roots: Vec::new(),
            jwt_keys: Vec::new(),
            access_keys: Vec::new(),
            record_keys: Vec::new(),
            challenge_keys: Vec::new(),
        };
        for line in wanted(settings) {
            state.apply(line, Action::Prepare, settings, kek, now)?;
            state.apply(line, Action::Activate, settings, kek, now)?;
        }
        state.sequence = 1;
        Ok(state)
    }

    pub(super) fn parse(document: &[u8], settings: &Settings) -> Result<Self, CaStateError> {
        #[derive(Deserialize)]
        struct Layout {
            layout: u32,
        }
        let damaged = |why: serde_json::Error| CaStateError::Damaged(why.to_string());
        let Layout { layout } = serde_json::from_slice(document).map_err(damaged)?;
        let state: Self = match layout {
            1 => serde_json::from_slice::<layout1::Layout1>(document)
                .map_err(damaged)?
                .into(),
            LAYOUT => serde_json::from_slice(document).map_err(damaged)?,
            newer => return Err(CaStateError::Newer(newer)),
        };
        if state.trust_domain != settings.trust_domain.as_str() {
            return Err(CaStateError::TrustDomain {
                found: state.trust_domain,
                configured: settings.trust_domain.to_string(),
            });
        }
        Ok(state)
    }

    pub(super) fn to_document(&self) -> Result<Vec<u8>, CaStateError> {
        serde_json::to_vec(self).map_err(|why| CaStateError::Damaged(why.to_string()))
    }

    /// Does all that is due at `now`; says what was done.
    pub(super) fn advance(
        &mut self,
        settings: &Settings,
        kek: &Kek,
        now: SystemTime,
    ) -> Result<Vec<(Line, Action)>, CaStateError> {
        let mut done = Vec::new();
        for line in wanted(settings) {
            // Each step leads to the next, and no line needs more than its three at one moment.
            for _ in 0..4 {
                let Some(action) = self.due(line, settings, to_millis(now)) else {
                    break;
                };
                self.apply(line, action, settings, kek, now)?;
                done.push((line, action));
            }
        }
        Ok(done)
    }

    /// Starts the rotation of `line` early. `Err` if one is under way: what is next, and when.
    pub(super) fn start_rotation(
        &mut self,
        line: Line,
        settings: &Settings,
        kek: &Kek,
        now: SystemTime,
    ) -> Result<Result<(), (Action, SystemTime)>, CaStateError> {
        if let Some((action, at)) = self.under_way(line, settings) {
            return Ok(Err((action, at)));
        }
        self.apply(line, Action::Prepare, settings, kek, now)?;
        Ok(Ok(()))
    }

    /// The next step of the rotation of `line` that is under way, if one is, and when it is due.
    pub(super) fn under_way(
        &self,
        line: Line,
        settings: &Settings,
    ) -> Option<(Action, SystemTime)> {
        let schedule = line.schedule(settings)?;
        let step = match line {
            Line::Roots => rotation::under_way(&self.roots, &schedule),
            keys => rotation::under_way(self.slots(keys), &schedule),
        };
        step.map(|(action, at)| (action, from_millis(at)))
    }

    /// Every root, next and old ones included.
    pub(super) fn root_certificates(&self) -> Vec<(Phase, CertificateDer<'static>)> {
        let roots = self.roots.iter();
        roots
            .map(|slot| (slot.phase, slot.body.certificate()))
            .collect()
    }

    /// The root that signs.
    pub(super) fn current_root(
        &self,
        settings: &Settings,
        kek: &Kek,
    ) -> Result<ca::Root, CaStateError> {
        let root = slot(&self.roots, Phase::Current).ok_or(CaStateError::NoCurrent("root"))?;
        let certificate = root.body.certificate();
        let pin = hex(&ca::spki_sha256(&certificate)?);
        let key = kek.unwrap("root key", &purpose(settings, "root", &pin), &root.body.key)?;
        Ok(ca::Root::load(certificate, &key)?)
    }

    /// The signing keys of a line, unwrapped.
    pub(super) fn keys(
        &self,
        line: Line,
        settings: &Settings,
        kek: &Kek,
    ) -> Result<Vec<(Phase, SigningKey)>, CaStateError> {
        let unwrapped = self.secrets(line, settings, kek)?;
        let keys = self.slots(line).iter().zip(unwrapped);
        let keys = keys.map(|(slot, (phase, der))| {
            let key = match slot.body.algorithm {
                KeyAlgorithm::Rs256 => SigningKey::rsa_from_pkcs8(der.expose()),
                KeyAlgorithm::Es256 | KeyAlgorithm::Hs256 => SigningKey::from_pkcs8(der.expose()),
            };
            let key = key.map_err(|why| CaStateError::Damaged(why.to_string()))?;
            Ok((phase, key))
        });
        keys.collect()
    }

    /// What is wrapped in a line of keys.
    pub(super) fn secrets(
        &self,
        line: Line,
        settings: &Settings,
        kek: &Kek,
    ) -> Result<Vec<(Phase, Secret<Vec<u8>>)>, CaStateError> {
        let unwrapped = self.slots(line).iter().map(|slot| {
            let purpose = purpose(settings, line.kind(), &slot.body.kid);
            Ok((
                slot.phase,
                kek.unwrap(line.name(), &purpose, &slot.body.key)?,
            ))
        });
        unwrapped.collect()
    }

    fn due(&self, line: Line, settings: &Settings, now: Millis) -> Option<Action> {
        let schedule = line.schedule(settings)?;
        match line {
            Line::Roots => rotation::due(&self.roots, now, &schedule),
            keys => {
                let slots = self.slots(keys);
                let another = |slot: &Slot<KeySlot>| {
                    slots.len() == 1 && slot.body.algorithm != keys.algorithm(settings)
                };
                rotation::due(slots, now, &schedule).or_else(|| {
                    let current = slot(slots, Phase::Current);
                    current.is_some_and(another).then_some(Action::Prepare)
                })
            }
        }
    }

    /// The slots of a line of keys; roots are none.
    fn slots(&self, line: Line) -> &[Slot<KeySlot>] {
        match line {
            Line::Roots => &[],
            Line::JwtKeys => &self.jwt_keys,
            Line::AccessKeys => &self.access_keys,
            Line::RecordKeys => &self.record_keys,
            Line::ChallengeKeys => &self.challenge_keys,
        }
    }

    fn apply(
        &mut self,
        line: Line,
        action: Action,
        settings: &Settings,
        kek: &Kek,
        now: SystemTime,
    ) -> Result<(), CaStateError> {
        let slots = match line {
            Line::Roots => {
                step(&mut self.roots, action, now, || root(settings, kek, now))?;
                self.sequence += u64::from(action != Action::Activate);
                return Ok(());
            }
            Line::JwtKeys => &mut self.jwt_keys,
            Line::AccessKeys => &mut self.access_keys,
            Line::RecordKeys => &mut self.record_keys,
            Line::ChallengeKeys => &mut self.challenge_keys,
        };
        step(slots, action, now, || key(line, settings, kek, now))?;
        // What is published changes when something comes or goes, not when it begins to sign.
        self.sequence += u64::from(line.is_in_bundle() && action != Action::Activate);
        Ok(())
    }
}

impl RootSlot {
    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.certificate.0.clone())
    }
}

/// One step of a line; `make` makes a new body and says until when it may sign.
fn step<T>(
    slots: &mut Vec<Slot<T>>,
    action: Action,
    now: SystemTime,
    make: impl FnOnce() -> Result<(T, Millis), CaStateError>,
) -> Result<(), CaStateError> {
    let since = to_millis(now);
    match action {
        Action::Prepare => {
            let (body, until) = make()?;
            slots.push(Slot {
                phase: Phase::Next,
                since,
                until,
                body,
            });
        }
        Action::Activate => {
            for slot in slots {
                slot.phase = match slot.phase {
                    Phase::Next => Phase::Current,
                    Phase::Current => Phase::Old,
                    Phase::Old => continue,
                };
                slot.since = since;
            }
        }
        Action::Retire => slots.retain(|slot| slot.phase != Phase::Old),
    }
    Ok(())
}

fn root(
    settings: &Settings,
    kek: &Kek,
    now: SystemTime,
) -> Result<(RootSlot, Millis), CaStateError> {
    let (certificate, key, not_after) =
        ca::make_root(&settings.trust_domain, now, settings.root_ttl)?;
    let pin = hex(&ca::spki_sha256(&certificate)?);
    let slot = RootSlot {
        key: kek.wrap(&purpose(settings, "root", &pin), key.expose())?,
        certificate: Base64(certificate.to_vec()),
    };
    Ok((slot, to_millis(not_after)))
}

fn key(
    line: Line,
    settings: &Settings,
    kek: &Kek,
    now: SystemTime,
) -> Result<(KeySlot, Millis), CaStateError> {
    let algorithm = line.algorithm(settings);
    let (kid, secret) = generate(algorithm)?;
    let slot = KeySlot {
        key: kek.wrap(&purpose(settings, line.kind(), &kid), secret.expose())?,
        algorithm,
        kid,
    };
    let life = line.schedule(settings).map(|schedule| schedule.life);
    let until = to_millis(now) + rotation::millis(life.unwrap_or_default());
    Ok((slot, until))
}

/// A new key: its name, and its PKCS#8 or its bytes.
fn generate(algorithm: KeyAlgorithm) -> Result<(String, Secret<Vec<u8>>), CaStateError> {
    let key = match algorithm {
        KeyAlgorithm::Es256 => SigningKey::generate(),
        KeyAlgorithm::Rs256 => SigningKey::generate_rsa(),
        KeyAlgorithm::Hs256 => {
            let name = hex(keys::random::<8>()?.expose());
            return Ok((name, Secret::new(keys::random::<32>()?.expose().to_vec())));
        }
    };
    let secret = Secret::new(key.to_pkcs8().expose().clone());
    Ok((key.public().kid().to_owned(), secret))
}

/// The lines that the configuration has a use for.
fn wanted(settings: &Settings) -> impl Iterator<Item = Line> {
    let lines = Line::ALL.into_iter();
    lines.filter(|line| line.schedule(settings).is_some())
}

/// What a key is wrapped for: in one trust domain, of one kind, one key.
fn purpose(settings: &Settings, kind: &str, name: &str) -> String {
    format!("warifu ca_state\n{}\n{kind}\n{name}", settings.trust_domain)
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

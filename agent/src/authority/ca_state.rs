//! The document replicas agree on: roots, JWT keys, record keys, the challenge key, the bundle's
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
    rotation::{self, Action, Millis, Phase, Schedule, Slot, from_millis, slot, to_millis},
    settings::Settings,
};
use crate::attest::wire::Base64;

/// The version of this layout.
const LAYOUT: u32 = 1;

/// The document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CaState {
    layout: u32,
    trust_domain: String,
    /// `spiffe_sequence`: counts up with every change of what is published.
    pub(super) sequence: u64,
    pub(super) roots: Vec<Slot<RootSlot>>,
    /// Sign JWT-SVIDs; published.
    pub(super) jwt_keys: Vec<Slot<KeySlot>>,
    /// Sign attestation records; never published.
    pub(super) record_keys: Vec<Slot<KeySlot>>,
    challenge_key: Wrapped,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RootSlot {
    certificate: Base64,
    key: Wrapped,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeySlot {
    kid: String,
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

/// A line that rotates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Roots,
    JwtKeys,
    RecordKeys,
}

impl Line {
    pub(super) const ALL: [Self; 3] = [Self::Roots, Self::JwtKeys, Self::RecordKeys];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Roots => "root",
            Self::JwtKeys => "JWT key",
            Self::RecordKeys => "record key",
        }
    }

    fn schedule(self, settings: &Settings) -> Schedule {
        match self {
            Self::Roots => settings.roots(),
            Self::JwtKeys => settings.jwt_keys(),
            Self::RecordKeys => settings.record_keys(),
        }
    }
}

impl CaState {
    /// The first document of a trust domain: everything is current at once, as nobody knows it yet.
    pub(super) fn new(
        settings: &Settings,
        kek: &Kek,
        now: SystemTime,
    ) -> Result<Self, CaStateError> {
        let challenge_key = keys::random::<32>()?;
        let mut state = Self {
            layout: LAYOUT,
            trust_domain: settings.trust_domain.to_string(),
            sequence: 1,
            roots: Vec::new(),
            jwt_keys: Vec::new(),
            record_keys: Vec::new(),
            challenge_key: kek.wrap(
                &purpose(settings, "challenge", ""),
                challenge_key.expose().as_slice(),
            )?,
        };
        for line in Line::ALL {
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
        if layout > LAYOUT {
            return Err(CaStateError::Newer(layout));
        }
        let state: Self = serde_json::from_slice(document).map_err(damaged)?;
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
        for line in Line::ALL {
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
        let schedule = line.schedule(settings);
        let step = match line {
            Line::Roots => rotation::under_way(&self.roots, &schedule),
            Line::JwtKeys => rotation::under_way(&self.jwt_keys, &schedule),
            Line::RecordKeys => rotation::under_way(&self.record_keys, &schedule),
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

    /// The keys of a line, unwrapped.
    pub(super) fn keys(
        &self,
        line: Line,
        settings: &Settings,
        kek: &Kek,
    ) -> Result<Vec<(Phase, SigningKey)>, CaStateError> {
        let slots = match line {
            Line::JwtKeys => &self.jwt_keys,
            Line::RecordKeys => &self.record_keys,
            Line::Roots => return Ok(Vec::new()),
        };
        let unwrapped = slots.iter().map(|slot| {
            let purpose = purpose(settings, line.name(), &slot.body.kid);
            let der = kek.unwrap(line.name(), &purpose, &slot.body.key)?;
            let key = SigningKey::from_pkcs8(der.expose())
                .map_err(|why| CaStateError::Damaged(why.to_string()))?;
            Ok((slot.phase, key))
        });
        unwrapped.collect()
    }

    pub(super) fn challenge_key(
        &self,
        settings: &Settings,
        kek: &Kek,
    ) -> Result<Secret<Vec<u8>>, CaStateError> {
        let purpose = purpose(settings, "challenge", "");
        Ok(kek.unwrap("challenge key", &purpose, &self.challenge_key)?)
    }

    fn due(&self, line: Line, settings: &Settings, now: Millis) -> Option<Action> {
        let schedule = line.schedule(settings);
        match line {
            Line::Roots => rotation::due(&self.roots, now, &schedule),
            Line::JwtKeys => rotation::due(&self.jwt_keys, now, &schedule),
            Line::RecordKeys => rotation::due(&self.record_keys, now, &schedule),
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
        match line {
            Line::Roots => step(&mut self.roots, action, now, || root(settings, kek, now))?,
            Line::JwtKeys => step(&mut self.jwt_keys, action, now, || {
                key(line, settings, kek, now)
            })?,
            Line::RecordKeys => step(&mut self.record_keys, action, now, || {
                key(line, settings, kek, now)
            })?,
        }
        // What is published changes when something comes or goes, not when it begins to sign.
        if line != Line::RecordKeys && action != Action::Activate {
            self.sequence += 1;
        }
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
    let key = SigningKey::generate();
    let kid = key.public().kid().to_owned();
    let slot = KeySlot {
        key: kek.wrap(
            &purpose(settings, line.name(), &kid),
            key.to_pkcs8().expose(),
        )?,
        kid,
    };
    let life = line.schedule(settings).life;
    Ok((slot, to_millis(now) + rotation::millis(life)))
}

/// What a key is wrapped for: in one trust domain, of one kind, one key.
fn purpose(settings: &Settings, kind: &str, name: &str) -> String {
    format!("warifu ca_state\n{}\n{kind}\n{name}", settings.trust_domain)
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

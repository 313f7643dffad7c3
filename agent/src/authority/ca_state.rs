//! The document replicas agree on: roots, keys of tokens, records and challenges, the bundle's
//! sequence. Private keys in it are wrapped. It changes by [`CaState::advance`] and
//! [`CaState::start_rotation`], and is then compared and swapped in the store.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use warifu::{Secret, jwt::SigningKey};

use super::{
    ca::{self, CaError, hex},
    keyring::Keyring,
    keys::{Kek, KeyError, Wrapped},
    kms::Sealed,
    rotation::{self, Action, Millis, Phase, Slot, from_millis, slot, to_millis},
    settings::Settings,
};
use crate::attest::wire::Base64;

mod layout1;
mod line;
mod make;
mod seal;

pub(super) use line::{KeyAlgorithm, Line};
use make::{key, root};

/// The version of this layout; older ones are read, and written as this one.
const LAYOUT: u32 = 2;

/// The document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CaState {
    layout: u32,
    trust_domain: String,
    /// The key-encryption key, where KMS seals it.
    #[serde(skip_serializing_if = "Option::is_none")]
    kek: Option<Sealed>,
    /// `spiffe_sequence`: counts up with every change of what is published.
    pub(super) sequence: u64,
    roots: Vec<Slot<RootSlot>>,
    jwt_keys: Vec<Slot<KeySlot>>,
    access_keys: Vec<Slot<KeySlot>>,
    record_keys: Vec<Slot<KeySlot>>,
    challenge_keys: Vec<Slot<KeySlot>>,
    /// Over all of the above, by the key-encryption key: whoever can write the store, and no more, must not
    /// be able to have a root of theirs published.
    #[serde(skip_serializing_if = "Option::is_none")]
    seal: Option<Wrapped>,
    /// Read from a document of the first layout, which has no seal.
    #[serde(skip)]
    is_unsealed: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RootSlot {
    certificate: Base64,
    #[serde(flatten)]
    key: RootKeyAt<Wrapped>,
}

/// Where a root's key is. A root in use stays with its own, whatever the configuration says of the next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum RootKeyAt<K> {
    /// Here.
    #[serde(rename = "key")]
    Held(K),
    /// A key of KMS, by ARN.
    #[serde(rename = "kms_key")]
    Kms(String),
    /// A private CA, by ARN.
    #[serde(rename = "pca")]
    Pca(String),
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
    /// Somebody else wrote it, or part of it.
    #[error(
        "the CA's state was not written by an authority with this key-encryption key, or was changed afterwards; nothing of it is used: restore it from backup, and find out who can write the store"
    )]
    Unsealed,
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

/// What a line has, each with its place in the rotation.
type ByPhase<T> = Vec<(Phase, T)>;

/// By what, and when, the document is changed.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    pub(super) settings: &'a Settings,
    pub(super) keyring: &'a Keyring,
    /// The document's.
    pub(super) kek: &'a Kek,
    pub(super) now: SystemTime,
}

impl CaStateError {
    /// Whether it may pass by itself.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Key(why) => why.is_outage(),
            Self::Ca(why) => why.is_outage(),
            _ => false,
        }
    }
}

impl CaState {
    /// The first document of a trust domain: everything is current at once, as nobody knows it yet.
    pub(super) async fn new(
        settings: &Settings,
        keyring: &Keyring,
        now: SystemTime,
    ) -> Result<Self, CaStateError> {
        let (kek, sealed) = keyring.new_kek().await?;
        let by = By {
            settings,
            keyring,
            kek: &kek,
            now,
        };
        let mut state = Self {
            layout: LAYOUT,
            trust_domain: settings.trust_domain.to_string(),
            kek: sealed,
            sequence: 1,
            roots: Vec::new(),
            jwt_keys: Vec::new(),
            access_keys: Vec::new(),
            record_keys: Vec::new(),
            challenge_keys: Vec::new(),
            seal: None,
            is_unsealed: false,
        };
        for line in wanted(settings) {
            state.apply(line, Action::Prepare, by).await?;
            state.apply(line, Action::Activate, by).await?;
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

    /// Does all that is due; says what was done.
    pub(super) async fn advance(
        &mut self,
        by: By<'_>,
    ) -> Result<Vec<(Line, Action)>, CaStateError> {
        let mut done = Vec::new();
        for line in wanted(by.settings) {
            // Each step leads to the next, and no line needs more than its three at one moment.
            for _ in 0..4 {
                let Some(action) = self.due(line, by.settings, to_millis(by.now)) else {
                    break;
                };
                self.apply(line, action, by).await?;
                done.push((line, action));
            }
        }
        Ok(done)
    }

    /// Starts the rotation of every line early, and wraps the keys anew. A key's rotation under way is no
    /// reason to keep the rest from rotating. `Err` if a root's is under way: what is next, and when.
    pub(super) async fn start_rotation(
        &mut self,
        by: By<'_>,
    ) -> Result<Result<(), (Action, SystemTime)>, CaStateError> {
        if let Some(under_way) = self.under_way(Line::Roots, by.settings) {
            return Ok(Err(under_way));
        }
        let (kek, sealed) = by.keyring.new_kek().await?;
        self.wrap_anew(by.settings, by.kek, &kek)?;
        self.kek = sealed;
        let by = By { kek: &kek, ..by };
        for line in wanted(by.settings) {
            if self.under_way(line, by.settings).is_none() {
                self.apply(line, Action::Prepare, by).await?;
            }
        }
        Ok(Ok(()))
    }

    /// The key-encryption key as KMS sealed it, where it did.
    pub(super) fn sealed_kek(&self) -> Option<&Sealed> {
        self.kek.as_ref()
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

    /// Where the key of each root is: for people.
    pub(super) fn root_keys(&self) -> impl Iterator<Item = &str> {
        self.roots.iter().map(|slot| match &slot.body.key {
            RootKeyAt::Held(_) => "the state",
            RootKeyAt::Kms(arn) | RootKeyAt::Pca(arn) => arn,
        })
    }

    /// The root that signs.
    pub(super) fn current_root(
        &self,
        settings: &Settings,
        keyring: &Keyring,
        kek: &Kek,
    ) -> Result<ca::Root, CaStateError> {
        let root = slot(&self.roots, Phase::Current).ok_or(CaStateError::NoCurrent("root"))?;
        let certificate = root.body.certificate();
        let key = match &root.body.key {
            RootKeyAt::Held(wrapped) => {
                let purpose = root_purpose(settings, &certificate)?;
                RootKeyAt::Held(kek.unwrap("root key", &purpose, wrapped)?)
            }
            RootKeyAt::Kms(arn) => RootKeyAt::Kms(arn.clone()),
            RootKeyAt::Pca(arn) => RootKeyAt::Pca(arn.clone()),
        };
        let key = keyring.root_key(key, &certificate)?;
        Ok(ca::Root::new(certificate, key)?)
    }

    /// The signing keys of a line, unwrapped.
    pub(super) fn keys(
        &self,
        line: Line,
        settings: &Settings,
        kek: &Kek,
    ) -> Result<ByPhase<SigningKey>, CaStateError> {
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
    ) -> Result<ByPhase<Secret<Vec<u8>>>, CaStateError> {
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
            Line::Roots => {
                let current = slot(&self.roots, Phase::Current);
                // A private CA has the life that it has; its operator gives it another one, or us
                // another CA, and says so with `rotate`.
                let stays = current.is_some_and(|current| {
                    matches!(current.body.key, RootKeyAt::Pca(_)) && now < current.until
                });
                rotation::due(&self.roots, now, &schedule)
                    .filter(|action| !(stays && *action == Action::Prepare))
            }
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

    #[cfg(test)]
    pub(super) fn phases(&self, line: Line) -> Vec<Phase> {
        self.slots(line).iter().map(|slot| slot.phase).collect()
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

    /// Wraps every key that `old` wraps with `new`.
    fn wrap_anew(&mut self, settings: &Settings, old: &Kek, new: &Kek) -> Result<(), CaStateError> {
        for root in &mut self.roots {
            let purpose = root_purpose(settings, &root.body.certificate())?;
            if let RootKeyAt::Held(wrapped) = &mut root.body.key {
                *wrapped = new.wrap(
                    &purpose,
                    old.unwrap("root key", &purpose, wrapped)?.expose(),
                )?;
            }
        }
        for line in Line::ALL {
            for slot in self.slots_mut(line) {
                let purpose = purpose(settings, line.kind(), &slot.body.kid);
                let key = &mut slot.body.key;
                *key = new.wrap(&purpose, old.unwrap(line.name(), &purpose, key)?.expose())?;
            }
        }
        Ok(())
    }

    /// As [`CaState::slots`].
    fn slots_mut(&mut self, line: Line) -> &mut [Slot<KeySlot>] {
        match line {
            Line::Roots => &mut [],
            keys => self.line_mut(keys).map_or(&mut [], Vec::as_mut_slice),
        }
    }

    fn line_mut(&mut self, line: Line) -> Option<&mut Vec<Slot<KeySlot>>> {
        match line {
            Line::Roots => None,
            Line::JwtKeys => Some(&mut self.jwt_keys),
            Line::AccessKeys => Some(&mut self.access_keys),
            Line::RecordKeys => Some(&mut self.record_keys),
            Line::ChallengeKeys => Some(&mut self.challenge_keys),
        }
    }

    async fn apply(&mut self, line: Line, action: Action, by: By<'_>) -> Result<(), CaStateError> {
        let made = action == Action::Prepare;
        match self.line_mut(line) {
            None => {
                let made = match made {
                    true => Some(root(by).await?),
                    false => None,
                };
                let is_known = |(root, _): &(RootSlot, Millis)| {
                    let mut known = self.roots.iter();
                    known.any(|slot| slot.body.certificate == root.certificate)
                };
                if made.as_ref().is_some_and(is_known) {
                    tracing::info!(
                        "the private CA has no other root than the one in use: it stays"
                    );
                    return Ok(());
                }
                step(&mut self.roots, action, by.now, made);
            }
            Some(slots) => {
                let made = match made {
                    true => Some(key(line, by).await?),
                    false => None,
                };
                step(slots, action, by.now, made);
            }
        }
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

/// One step of a line; `made` is the new body and until when it may sign, if the step is to prepare.
fn step<T>(slots: &mut Vec<Slot<T>>, action: Action, now: SystemTime, made: Option<(T, Millis)>) {
    let since = to_millis(now);
    match action {
        Action::Prepare => slots.extend(made.map(|(body, until)| Slot {
            phase: Phase::Next,
            since,
            until,
            body,
        })),
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
}

/// The lines that the configuration has a use for.
fn wanted(settings: &Settings) -> impl Iterator<Item = Line> {
    let lines = Line::ALL.into_iter();
    lines.filter(|line| line.schedule(settings).is_some())
}

fn root_purpose(
    settings: &Settings,
    certificate: &CertificateDer<'_>,
) -> Result<String, CaStateError> {
    let pin = hex(&ca::spki_sha256(certificate)?);
    Ok(purpose(settings, "root", &pin))
}

/// What a key is wrapped for: in one trust domain, of one kind, one key.
fn purpose(settings: &Settings, kind: &str, name: &str) -> String {
    format!("warifu ca_state\n{}\n{kind}\n{name}", settings.trust_domain)
}

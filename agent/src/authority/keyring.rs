//! Where keys come from, as configured: the key-encryption key, new roots, and the keys of roots in use.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use aws_types::SdkConfig;
use rustls_pki_types::CertificateDer;
use warifu::{Secret, TrustDomain};

use super::{
    ca::{self, CaError, RootKey},
    ca_state::{CaState, CaStateError, RootKeyAt},
    keys::{Kek, KeyError},
    kms::{KeyKind, Kms, Sealed},
    metrics::Metrics,
    pca::Pca,
    settings::Settings,
};
use crate::config::authority::{CaKey, PcaMode};

/// See the module.
#[derive(Debug)]
pub(super) struct Keyring {
    roots: Roots,
    sealing: Sealing,
    /// The clients, where anything of it is in AWS.
    aws: Option<(Kms, Arc<Pca>)>,
}

/// How the next root is made.
#[derive(Debug)]
enum Roots {
    /// With a key of its own, wrapped.
    Held,
    /// Under this key of KMS.
    Kms(String),
    /// It is that of a private CA.
    Pca { arn: String, mode: PcaMode },
}

/// A new root.
pub(super) struct NewRoot {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: RootKeyAt<Secret<Vec<u8>>>,
    pub(super) not_after: SystemTime,
}

/// What keeps the key-encryption key.
#[derive(Debug)]
enum Sealing {
    /// This process, or a file.
    Held(Arc<Kek>),
    /// KMS; the document has it sealed.
    Kms {
        wrap_key_id: String,
        /// The last one opened: one call of KMS for each that there ever is.
        opened: Mutex<Option<(Sealed, Arc<Kek>)>>,
    },
}

impl Keyring {
    /// Roots whose keys are wrapped like all others, by `kek`.
    pub(super) fn held(kek: Kek) -> Self {
        Self {
            roots: Roots::Held,
            sealing: Sealing::Held(Arc::new(kek)),
            aws: None,
        }
    }

    /// As `key` says, with AWS at hand; `kek` where the key-encryption key is not sealed by KMS.
    pub(super) fn aws(
        key: &CaKey,
        kek: Option<Kek>,
        sdk: &SdkConfig,
        trust_domain: &TrustDomain,
        metrics: &Metrics,
    ) -> Result<Self, KeyError> {
        let roots = match key {
            CaKey::AwsKms { key_id, .. } => Roots::Kms(key_id.clone()),
            CaKey::AcmPca { arn, mode, .. } => Roots::Pca {
                arn: arn.clone(),
                mode: *mode,
            },
            CaKey::Memory | CaKey::Disk { .. } => Roots::Held,
        };
        let sealing = match (kek, key.wrap_key_id()) {
            (Some(kek), _) => Sealing::Held(Arc::new(kek)),
            (None, Some(wrap_key_id)) => Sealing::Kms {
                wrap_key_id: wrap_key_id.to_owned(),
                opened: Mutex::default(),
            },
            (None, None) => Sealing::Held(Arc::new(Kek::ephemeral()?)),
        };
        let kms = Kms::new(sdk, trust_domain, metrics);
        let pca = Arc::new(Pca::new(sdk, metrics));
        Ok(Self {
            roots,
            sealing,
            aws: Some((kms, pca)),
        })
    }

    /// Whether the keys that are configured can do what they are for. Found out at the start, not when
    /// the next root is due.
    pub(super) async fn check(&self) -> Result<(), KeyError> {
        let Some((kms, _)) = &self.aws else {
            return Ok(());
        };
        if let Roots::Kms(key_id) = &self.roots {
            kms.check(key_id, KeyKind::Signs).await?;
        }
        if let Sealing::Kms { wrap_key_id, .. } = &self.sealing {
            kms.check(wrap_key_id, KeyKind::Seals).await?;
        }
        Ok(())
    }

    /// The key-encryption key of a document, which has it sealed or says nothing of it.
    pub(super) async fn kek(&self, state: &CaState) -> Result<Arc<Kek>, KeyError> {
        match (&self.sealing, state.sealed_kek()) {
            (Sealing::Held(kek), None) => Ok(Arc::clone(kek)),
            (Sealing::Held(_), Some(sealed)) => Err(KeyError::SealedByKms(sealed.key().to_owned())),
            (Sealing::Kms { .. }, None) => Err(KeyError::NotSealedByKms),
            (Sealing::Kms { opened, .. }, Some(sealed)) => {
                let known = opened
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                if let Some((_, kek)) = known.filter(|(known, _)| known == sealed) {
                    return Ok(kek);
                }
                let bytes = self.kms()?.open(sealed).await?;
                let kek = Arc::new(Kek::from_bytes(bytes.expose())?);
                let known = Some((sealed.clone(), Arc::clone(&kek)));
                *opened.lock().unwrap_or_else(PoisonError::into_inner) = known;
                Ok(kek)
            }
        }
    }

    /// The key-encryption key of a new document. Under KMS a new one, sealed by the key that is configured
    /// now; else the only one.
    pub(super) async fn new_kek(&self) -> Result<(Arc<Kek>, Option<Sealed>), KeyError> {
        match &self.sealing {
            Sealing::Held(kek) => Ok((Arc::clone(kek), None)),
            Sealing::Kms { wrap_key_id, .. } => {
                let bytes = Kek::new_bytes()?;
                let sealed = self.kms()?.seal(wrap_key_id, bytes.expose()).await?;
                Ok((Arc::new(Kek::from_bytes(bytes.expose())?), Some(sealed)))
            }
        }
    }

    /// A new root, as configured now.
    pub(super) async fn new_root(
        &self,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<NewRoot, CaStateError> {
        let td = &settings.trust_domain;
        let (certificate, key, not_after) = match &self.roots {
            Roots::Held => {
                let (certificate, key, not_after) = ca::make_root(td, now, settings.root_ttl)?;
                (certificate, RootKeyAt::Held(key), not_after)
            }
            Roots::Kms(key_id) => {
                let kms = self.kms()?;
                let key = kms.public_key(key_id).await.map_err(KeyError::from)?;
                let (certificate, not_after) =
                    ca::make_kms_root(td, kms, &key, now, settings.root_ttl).await?;
                (certificate, RootKeyAt::Kms(key.arn), not_after)
            }
            Roots::Pca { arn, .. } => {
                let anchor = self.pca()?.anchor(arn).await.map_err(CaError::from)?;
                if anchor.not_after <= now {
                    return Err(CaError::Expired("private CA, or the root above it,").into());
                }
                (anchor.root, RootKeyAt::Pca(arn.clone()), anchor.not_after)
            }
        };
        Ok(NewRoot {
            certificate,
            key,
            not_after,
        })
    }

    /// The key of a root in use, wherever it is.
    pub(super) fn root_key(
        &self,
        key: RootKeyAt<Secret<Vec<u8>>>,
        certificate: &CertificateDer<'_>,
    ) -> Result<RootKey, CaStateError> {
        Ok(match key {
            RootKeyAt::Held(der) => RootKey::held(&der)?,
            RootKeyAt::Kms(arn) => RootKey::in_kms(self.kms()?.clone(), arn, certificate)?,
            RootKeyAt::Pca(arn) => RootKey::Pca {
                pca: Arc::clone(self.pca()?),
                arn,
                mode: match self.roots {
                    Roots::Pca { mode, .. } => mode,
                    Roots::Held | Roots::Kms(_) => PcaMode::Subordinate,
                },
            },
        })
    }

    fn kms(&self) -> Result<&Kms, KeyError> {
        let aws = self.aws.as_ref();
        aws.map(|(kms, _)| kms).ok_or(KeyError::NotInAws)
    }

    fn pca(&self) -> Result<&Arc<Pca>, KeyError> {
        let aws = self.aws.as_ref();
        aws.map(|(_, pca)| pca).ok_or(KeyError::NotInAws)
    }
}

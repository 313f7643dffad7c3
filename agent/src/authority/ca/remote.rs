//! Certificates signed by a key that is elsewhere. rcgen signs as it writes, and such a key answers
//! later: the certificate is written twice, first to learn what is to be signed, then with the signature.

use std::sync::{Mutex, PoisonError};

use rcgen::{Certificate, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls_pki_types::CertificateDer;

use super::{CaError, failed};
use crate::authority::kms::{Kms, PublicKey};

/// The certificate that `write` writes, signed by `key` in KMS. `write` is called twice, and must write
/// the same both times: serial number and validity are its caller's.
pub(super) async fn sign(
    kms: &Kms,
    key: &PublicKey,
    doing: &'static str,
    write: impl Fn(&Remote) -> Result<Certificate, rcgen::Error>,
) -> Result<CertificateDer<'static>, CaError> {
    let draft = Remote::new(key, Step::Draft(Mutex::default()));
    write(&draft).map_err(failed(doing))?;
    let to_sign = draft.into_message();
    let signature = kms.sign(key, &to_sign).await?;
    let signed = Remote::new(key, Step::Signed { to_sign, signature });
    let certificate = write(&signed).map_err(failed(doing))?;
    Ok(certificate.into())
}

/// What rcgen takes for the key.
pub(super) struct Remote {
    key: PublicKey,
    step: Step,
}

enum Step {
    /// Remembers what it is to sign.
    Draft(Mutex<Vec<u8>>),
    /// Has the signature of exactly this.
    Signed {
        to_sign: Vec<u8>,
        signature: Vec<u8>,
    },
}

impl Remote {
    fn new(key: &PublicKey, step: Step) -> Self {
        Self {
            key: key.clone(),
            step,
        }
    }

    fn into_message(self) -> Vec<u8> {
        match self.step {
            Step::Draft(message) => message.into_inner().unwrap_or_else(PoisonError::into_inner),
            Step::Signed { to_sign, .. } => to_sign,
        }
    }
}

impl PublicKeyData for Remote {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.key.algorithm()
    }
}

impl SigningKey for Remote {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match &self.step {
            Step::Draft(remembered) => {
                *remembered.lock().unwrap_or_else(PoisonError::into_inner) = message.to_vec();
                Ok(Vec::new())
            }
            Step::Signed { to_sign, signature } if to_sign == message => Ok(signature.clone()),
            Step::Signed { .. } => Err(rcgen::Error::RemoteKeyError),
        }
    }
}

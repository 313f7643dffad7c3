//! The key-encryption key: every private key of [`ca_state`](super::ca_state) is wrapped by it
//! (AES-256-GCM), so that the document may lie in any store. It is kept in a file, or sealed by KMS in the
//! document itself.

use std::{fmt, path::Path};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use warifu::Secret;

use super::kms::KmsError;
use crate::{
    attest::wire::Base64,
    config::private::{self, PrivateError},
};

/// The file that holds it, in the disk CA's directory.
pub(super) const FILE: &str = "key-encryption.key";
const KEY_BYTES: usize = 32;

/// Why keys can't be wrapped or unwrapped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file can't be used.
    #[error("the CA's key-encryption key: {0}")]
    File(#[from] PrivateError),
    /// It is not the key the state was written with.
    #[error(
        "the {what} cannot be unwrapped: {FILE} is not the key this state was written with; restore the right one from backup"
    )]
    Wrong {
        /// Which private key.
        what: &'static str,
    },
    /// There is a key, and nothing that it opens.
    #[error(
        "{FILE} is there, and the state it belongs to is missing or empty: restore state.db from backup (or remove {FILE} to begin with new roots, which every agent must then be given)"
    )]
    StateMissing,
    /// There is state, and no key for it.
    #[error(
        "there is state, and {FILE} beside it is missing: restore it from backup (or remove the state to begin with new roots, which every agent must then be given)"
    )]
    Missing,
    /// KMS, which seals it, did not open it.
    #[error("the CA's key-encryption key: {0}")]
    Kms(#[from] KmsError),
    /// The document is sealed by KMS, and the configuration names no key of it.
    #[error(
        "the CA's state is sealed by {0}, and the configuration names no `ca.wrap_key_id`; use the configuration it was made with"
    )]
    SealedByKms(String),
    /// The reverse.
    #[error(
        "the CA's state is not sealed by KMS, and `ca.wrap_key_id` is set; use the configuration it was made with"
    )]
    NotSealedByKms,
    /// A root in use needs AWS, and the configuration has none of it.
    #[error(
        "a root in use has its key in AWS, and `ca.key` is neither aws-kms nor acm-pca; use the configuration it was made with"
    )]
    NotInAws,
    /// Cryptography or randomness failed.
    #[error("cryptography failed while {0}")]
    Crypto(&'static str),
}

impl KeyError {
    /// Whether it may pass by itself.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Kms(why) if why.is_outage())
    }
}

/// Wraps and unwraps.
pub(super) struct Kek(RandomizedNonceKey);

/// A wrapped secret: nonce, ciphertext, tag.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Wrapped(Base64);

impl Kek {
    /// A new one, for this process only.
    pub(super) fn ephemeral() -> Result<Self, KeyError> {
        Self::from_bytes(Self::new_bytes()?.expose())
    }

    /// The bytes of a new one, for whoever keeps them.
    pub(super) fn new_bytes() -> Result<Secret<[u8; KEY_BYTES]>, KeyError> {
        random()
    }

    /// Whether there is one in `dir`; it may be unusable.
    pub(super) fn is_on_disk(dir: &Path) -> bool {
        dir.join(FILE).symlink_metadata().is_ok()
    }

    /// The one in `dir`; made where there is neither it nor state.
    pub(super) fn on_disk(dir: &Path, there_is_state: bool) -> Result<Self, KeyError> {
        let path = dir.join(FILE);
        if let Some(bytes) = private::read(&path)? {
            return Self::from_bytes(bytes.expose()).map_err(|_| {
                KeyError::File(PrivateError::Content {
                    path: path.clone(),
                    why: "expected 32 bytes; restore it from backup",
                })
            });
        }
        if there_is_state {
            return Err(KeyError::Missing);
        }
        let bytes = Self::new_bytes()?;
        if private::create(&path, bytes.expose())? {
            return Self::from_bytes(bytes.expose());
        }
        // Another process was faster; its key counts.
        Self::on_disk(dir, true)
    }

    /// Wraps `secret`; only the same `purpose` unwraps it, so that keys can't change places.
    pub(super) fn wrap(&self, purpose: &str, secret: &[u8]) -> Result<Wrapped, KeyError> {
        let mut sealed = secret.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(purpose), &mut sealed)
            .map_err(|_| KeyError::Crypto("wrapping a key"))?;
        Ok(Wrapped(Base64(
            [nonce.as_ref().as_slice(), &sealed].concat(),
        )))
    }

    /// Unwraps what was wrapped for `purpose`; `what` names it in errors.
    pub(super) fn unwrap(
        &self,
        what: &'static str,
        purpose: &str,
        wrapped: &Wrapped,
    ) -> Result<Secret<Vec<u8>>, KeyError> {
        let wrong = || KeyError::Wrong { what };
        let (nonce, sealed) = wrapped.0.0.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut sealed = zeroize::Zeroizing::new(sealed.to_vec());
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(purpose), &mut sealed)
            .map_err(|_| wrong())?;
        Ok(Secret::new(plain.to_vec()))
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes)
            .map(Self)
            .map_err(|_| KeyError::Crypto("reading the key-encryption key"))
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek(***)")
    }
}

/// Fresh random bytes.
pub(super) fn random<const N: usize>() -> Result<Secret<[u8; N]>, KeyError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::Crypto("getting randomness"))?;
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_wrapped_key_unwraps_for_its_purpose_with_its_key_only() {
        let kek = Kek::ephemeral().unwrap();
        let wrapped = kek.wrap("root 1", b"secret").unwrap();
        assert_eq!(
            kek.unwrap("root", "root 1", &wrapped).unwrap().expose(),
            b"secret"
        );
        assert!(kek.unwrap("root", "root 2", &wrapped).is_err());
        let other = Kek::ephemeral().unwrap();
        let refused = other.unwrap("root", "root 1", &wrapped).unwrap_err();
        assert!(refused.to_string().contains("restore"), "{refused}");
    }

    #[test]
    fn a_damaged_wrapping_is_refused() {
        let kek = Kek::ephemeral().unwrap();
        let good = kek.wrap("p", b"secret").unwrap();
        for at in 0..good.0.0.len() {
            let mut bad = good.clone();
            bad.0.0[at] ^= 1;
            assert!(kek.unwrap("x", "p", &bad).is_err(), "byte {at}");
        }
        assert!(kek.unwrap("x", "p", &Wrapped(Base64(vec![]))).is_err());
    }

    #[test]
    fn the_key_on_disk_is_made_once_private_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let wrapped = Kek::on_disk(dir.path(), false)
            .unwrap()
            .wrap("p", b"s")
            .unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let again = Kek::on_disk(dir.path(), true).unwrap();
        assert_eq!(again.unwrap("x", "p", &wrapped).unwrap().expose(), b"s");
    }

    #[test]
    fn an_unreadable_or_missing_key_file_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Kek::on_disk(dir.path(), true).unwrap_err();
        assert!(missing.to_string().contains("backup"), "{missing}");
        let path = dir.path().join(FILE);
        fs::write(&path, "short").unwrap();
        let open = Kek::on_disk(dir.path(), true).unwrap_err();
        assert!(open.to_string().contains("chmod 600"), "{open}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let short = Kek::on_disk(dir.path(), true).unwrap_err();
        assert!(short.to_string().contains("32 bytes"), "{short}");
    }
}

//! Certificates and keys in PEM files that somebody else renews: read, and read again when they changed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::private::{self, PrivateError};

/// How often files are looked at: they are renewed days before their end.
pub const RELOAD: Duration = Duration::from_secs(10);

/// Largest certificate file; a chain has a few KiB.
const MAX_FILE: u64 = 1024 * 1024;

/// A certificate with its key.
#[derive(Debug)]
pub struct Certified {
    /// For rustls.
    pub key: Arc<CertifiedKey>,
    /// When the leaf expires.
    pub not_after: SystemTime,
    /// The DNS names of the leaf, in lower case.
    pub names: Vec<String>,
    /// SHA-256 of both files: whether they are others now.
    pub content: [u8; 32],
}

/// Why a certificate can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsFilesError {
    /// The chain's file.
    #[error("the certificate {path:?}: {why}; expected a PEM file, leaf first")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The key's file can't be read, or is open to others.
    #[error("the key: {0}")]
    Key(#[from] PrivateError),
    /// There is no such file, or no key in it that goes with the certificate.
    #[error("the key {path:?}: {why}; expected the PEM file of the certificate's key")]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Certified {
    /// Reads the two files. `None` where their content is what is `known`.
    ///
    /// # Errors
    /// [`TlsFilesError`].
    pub fn read(
        certificate: &Path,
        key: &Path,
        known: Option<[u8; 32]>,
    ) -> Result<Option<Self>, TlsFilesError> {
        let bad = |why: String| TlsFilesError::Certificate {
            path: certificate.to_owned(),
            why,
        };
        let no_key = |why: String| TlsFilesError::NoKey {
            path: key.to_owned(),
            why,
        };
        let pem = read_bounded(certificate).map_err(|why| bad(why.to_string()))?;
        let secret = private::read_mounted(key)?;
        let secret = secret.ok_or_else(|| no_key("there is no such file".to_owned()))?;

        let mut content = [0; 32];
        let both = [digest(&SHA256, &pem), digest(&SHA256, secret.expose())];
        let both = both.map(|hash| hash.as_ref().to_vec()).concat();
        content.copy_from_slice(digest(&SHA256, &both).as_ref());
        if known == Some(content) {
            return Ok(None);
        }

        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|why| bad(why.to_string()))?;
        let leaf = chain
            .first()
            .ok_or_else(|| bad("no certificate in it".to_owned()))?;
        let (not_after, names) =
            read_leaf(leaf).ok_or_else(|| bad("no X.509 certificate".to_owned()))?;
        let secret = PrivateKeyDer::from_pem_slice(secret.expose())
            .map_err(|_| no_key("no private key in it".to_owned()))?;
        let key = CertifiedKey::from_der(chain, secret, &warifu::tls::provider())
            .map_err(|why| no_key(why.to_string()))?;
        Ok(Some(Self {
            key: Arc::new(key),
            not_after,
            names,
            content,
        }))
    }
}

/// When a certificate expires; `None` where that was before 1970.
pub fn not_after(certificate: &X509Certificate<'_>) -> Option<SystemTime> {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > MAX_FILE {
        return Err(io::Error::other("the file is over 1 MiB"));
    }
    fs::read(path)
}

fn read_leaf(leaf: &CertificateDer<'_>) -> Option<(SystemTime, Vec<String>)> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let not_after = not_after(&certificate)?;
    let names = certificate.subject_alternative_name().ok()?;
    let names = names.map_or(&[][..], |names| names.value.general_names.as_slice());
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    Some((not_after, names.iter().filter_map(dns).collect()))
}

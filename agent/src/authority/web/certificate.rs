//! The certificate of the web listener, from files that somebody else renews.

use std::{
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::{ServerConfig, server::NoServerSessionStorage};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::{
    authority::WebTls,
    private::{self, PrivateError},
};

/// How often the files are looked at: they are renewed days before their end.
pub(in crate::authority) const RELOAD: Duration = Duration::from_secs(10);

/// Largest certificate file; a chain has a few KiB.
const MAX_FILE: u64 = 1024 * 1024;

/// The files, and what was last read of them that was good.
#[derive(Debug)]
pub(in crate::authority) struct Certificates {
    files: WebTls,
    current: ArcSwap<Loaded>,
}

/// A certificate with its key.
#[derive(Debug)]
pub(in crate::authority) struct Loaded {
    pub(in crate::authority) config: Arc<ServerConfig>,
    pub(in crate::authority) not_after: SystemTime,
    /// SHA-256 of both files: whether they are others now.
    content: [u8; 32],
}

/// Why a certificate can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The chain's file.
    #[error("web.tls.certificate {path:?}: {why}; expected a PEM file, leaf first")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The key's file can't be read, or is open to others.
    #[error("web.tls.key: {0}")]
    Key(#[from] PrivateError),
    /// There is no such file, or no key in it that goes with the certificate.
    #[error("web.tls.key {path:?}: {why}; expected the PEM file of the certificate's key")]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Certificates {
    pub(in crate::authority) fn load(files: &WebTls) -> Result<Self, CertificateError> {
        Ok(Self {
            current: ArcSwap::from_pointee(Loaded::read(files, None)?.ok_or_else(|| {
                CertificateError::Certificate {
                    path: files.certificate.clone(),
                    why: "nothing in it".to_owned(),
                }
            })?),
            files: files.clone(),
        })
    }

    pub(in crate::authority) fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }

    /// Reads the files again. What is there stays in use if they are no good, or half written: whether
    /// there is something new.
    pub(in crate::authority) fn reload(&self) -> Result<bool, CertificateError> {
        let known = self.current.load().content;
        let Some(loaded) = Loaded::read(&self.files, Some(known))? else {
            return Ok(false);
        };
        self.current.store(Arc::new(loaded));
        Ok(true)
    }
}

impl Loaded {
    /// `None` where the content is what is `known`.
    fn read(files: &WebTls, known: Option<[u8; 32]>) -> Result<Option<Self>, CertificateError> {
        let bad = |why: String| CertificateError::Certificate {
            path: files.certificate.clone(),
            why,
        };
        let no_key = |why: String| CertificateError::NoKey {
            path: files.key.clone(),
            why,
        };
        let pem = read_bounded(files).map_err(|why| bad(why.to_string()))?;
        let key = private::read_mounted(&files.key)?;
        let key = key.ok_or_else(|| no_key("there is no such file".to_owned()))?;

        let mut content = [0; 32];
        let both = [digest(&SHA256, &pem), digest(&SHA256, key.expose())];
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
        let not_after = not_after(leaf).ok_or_else(|| bad("no X.509 certificate".to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(key.expose())
            .map_err(|_| no_key("no private key in it".to_owned()))?;
        let mut config = ServerConfig::builder_with_provider(warifu::tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|why| no_key(why.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|why| no_key(why.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // As everywhere (S1): a poller's one request a few minutes gains nothing by it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Some(Self {
            config: Arc::new(config),
            not_after,
            content,
        }))
    }
}

fn read_bounded(files: &WebTls) -> io::Result<Vec<u8>> {
    let length = fs::metadata(&files.certificate)?.len();
    if length > MAX_FILE {
        return Err(io::Error::other("the file is over 1 MiB"));
    }
    fs::read(&files.certificate)
}

fn not_after(leaf: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

//! The certificate of the web listener, from files that somebody else renews.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rustls::{ServerConfig, sign::SingleCertAndKey};
use thiserror::Error;
use warifu::tls::{TlsError, outside_server_config};

use crate::{
    config::authority::WebTls,
    http::tls_files::{Certified, TlsFilesError},
};

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
    content: [u8; 32],
}

/// Why a certificate can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Its file.
    #[error("web.tls.certificate: {0}")]
    Certificate(TlsFilesError),
    /// Its key's.
    #[error("web.tls.key: {0}")]
    Key(TlsFilesError),
    /// rustls refused it.
    #[error("web.tls: {0}")]
    Tls(#[from] TlsError),
}

impl From<TlsFilesError> for CertificateError {
    fn from(why: TlsFilesError) -> Self {
        match why {
            TlsFilesError::Certificate { .. } => Self::Certificate(why),
            why => Self::Key(why),
        }
    }
}

impl Certificates {
    pub(in crate::authority) fn load(files: &WebTls) -> Result<Self, CertificateError> {
        Ok(Self {
            current: ArcSwap::from_pointee(Loaded::read(files, None)?.ok_or_else(|| {
                CertificateError::Certificate(TlsFilesError::Certificate {
                    path: files.certificate.clone(),
                    why: "nothing in it".to_owned(),
                })
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
        let read = Certified::read(&files.certificate, &files.key, known)?;
        let Some(certified) = read else {
            return Ok(None);
        };
        let resolver = Arc::new(SingleCertAndKey::from(certified.key));
        Ok(Some(Self {
            config: Arc::new(outside_server_config(resolver, None)?),
            not_after: certified.not_after,
            content: certified.content,
        }))
    }
}

//! What an agent knows of its authority beforehand.

use std::path::PathBuf;

use rustls_pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;
use warifu::tls::Anchors;

use crate::config::agent::AuthorityRef;

/// Why the configured trust in the authority cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AnchorError {
    /// The file can't be read, or is not PEM.
    #[error("authority.bundle {path:?}: {why}; expected a readable PEM file of root certificates")]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What failed.
        why: String,
    },
    /// Neither pins nor roots.
    #[error(
        "nothing to know the authority by: set `authority.root_spki_sha256` or `authority.bundle`"
    )]
    None,
}

/// Pins and roots of the configuration.
pub(super) fn load(authority: &AuthorityRef) -> Result<Anchors, AnchorError> {
    let mut anchors = Anchors {
        spki_sha256: authority.root_spki_sha256.iter().map(|pin| pin.0).collect(),
        roots: Vec::new(),
    };
    if let Some(path) = &authority.bundle {
        let bad = |why: String| AnchorError::Bundle {
            path: path.clone(),
            why,
        };
        let pem = std::fs::read(path).map_err(|why| bad(why.to_string()))?;
        anchors.roots = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|why| bad(why.to_string()))?;
        if anchors.roots.is_empty() {
            return Err(bad("no certificate in it".into()));
        }
    }
    if anchors.roots.is_empty() && anchors.spki_sha256.is_empty() {
        return Err(AnchorError::None);
    }
    Ok(anchors)
}

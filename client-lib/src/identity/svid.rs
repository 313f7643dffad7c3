//! The X.509-SVID (SPIFFE X509-SVID specification).

use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use crate::SpiffeId;

/// A certificate chain with exactly one SPIFFE ID in its leaf, and the leaf's private key.
#[derive(Debug)]
pub struct X509Svid {
    id: SpiffeId,
    chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// Why bytes are not an X.509-SVID.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SvidError {
    /// The chain is empty.
    #[error("the certificate chain is empty")]
    EmptyChain,
}

impl X509Svid {
    /// Parses `chain` (DER, leaf first, intermediates after it, no root) and `key` (PKCS#8 DER).
    ///
    /// # Errors
    /// When the leaf breaks a MUST of the X509-SVID specification, or the key is not the leaf's.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivatePkcs8KeyDer<'static>,
    ) -> Result<Self, SvidError> {
        let _ = (chain, key);
        unimplemented!("client-lib")
    }

    /// The identity the leaf proves.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Leaf first, then intermediates; DER.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf's private key.
    pub fn key(&self) -> &PrivatePkcs8KeyDer<'static> {
        &self.key
    }

    /// When the leaf becomes valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

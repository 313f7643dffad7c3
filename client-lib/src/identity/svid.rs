//! The X.509-SVID (SPIFFE X509-SVID specification).

use std::{fmt, sync::Arc, time::SystemTime};

use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    leaf::{self, Leaf, LeafError},
    pem,
};
use crate::{Secret, SpiffeId};

/// Longest chain accepted, leaf included: what the verifiers of peers accept too.
pub const MAX_CHAIN: usize = 8;

/// A certificate chain with exactly one SPIFFE ID in its leaf, and the leaf's private key.
///
/// The key is wiped when this is dropped, and `Debug` doesn't show it.
pub struct X509Svid {
    leaf: Leaf,
    key: Zeroizing<PrivatePkcs8KeyDer<'static>>,
    /// The chain, and the key in the form TLS signs with; parsed once, shared by every TLS configuration.
    certified: Arc<CertifiedKey>,
}

/// Why bytes are not an X.509-SVID.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SvidError {
    /// The chain is empty.
    #[error("the certificate chain is empty")]
    EmptyChain,
    /// The chain is longer than [`MAX_CHAIN`].
    #[error("the certificate chain has {0} certificates, at most {MAX_CHAIN} are accepted")]
    ChainTooLong(usize),
    /// The leaf breaks a MUST of the X509-SVID specification.
    #[error("the leaf is no X.509-SVID: {0}")]
    Leaf(#[from] LeafError),
    /// A certificate after the leaf can't have signed anything.
    #[error("certificate {0} of the chain (the leaf is 0) is not a CA certificate")]
    NotCa(usize),
    /// The private key can't be read.
    #[error("the private key is not one in PKCS#8 that TLS can sign with")]
    Key,
    /// The private key belongs to another certificate.
    #[error("the private key is not that of the leaf")]
    KeyMismatch,
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
        let key = Zeroizing::new(key);
        let (first, rest) = chain.split_first().ok_or(SvidError::EmptyChain)?;
        if chain.len() > MAX_CHAIN {
            return Err(SvidError::ChainTooLong(chain.len()));
        }
        let leaf = Leaf::parse(first)?;
        for (index, der) in rest.iter().enumerate() {
            leaf::parse(der)
                .and_then(|certificate| leaf::ca_path_length(&certificate))
                .ok_or(SvidError::NotCa(index + 1))?;
        }
        let signer = crate::tls::provider()
            .key_provider
            .load_private_key(PrivateKeyDer::Pkcs8(key.clone_key()))
            .map_err(|_| SvidError::Key)?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|_| SvidError::KeyMismatch)?;
        Ok(Self {
            leaf,
            key,
            certified: Arc::new(certified),
        })
    }

    /// The identity the leaf proves.
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// Leaf first, then intermediates; DER.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The leaf's private key.
    pub fn key(&self) -> &PrivatePkcs8KeyDer<'static> {
        &self.key
    }

    /// When the leaf becomes valid.
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// The chain as PEM (RFC 7468), leaf first.
    pub fn chain_pem(&self) -> String {
        pem::certificates(self.chain())
    }

    /// The private key as PEM (`PRIVATE KEY`, PKCS#8).
    pub fn key_pem(&self) -> Secret<String> {
        Secret::new(pem::encode("PRIVATE KEY", self.key.secret_pkcs8_der()))
    }

    /// What rustls presents.
    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("id", &self.id().to_string())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

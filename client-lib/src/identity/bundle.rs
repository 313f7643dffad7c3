//! The trust bundle (SPIFFE Trust Domain and Bundle specification): what a trust domain's
//! identities are verified with.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use thiserror::Error;

use crate::{TrustDomain, jwt::KeySet};

/// The X.509 roots and JWT keys of one trust domain.
#[derive(Debug, Clone)]
pub struct TrustBundle {
    /// Whose bundle this is.
    pub trust_domain: TrustDomain,
    /// Root certificates (DER).
    pub x509_authorities: Vec<CertificateDer<'static>>,
    /// Keys JWT-SVIDs are verified with.
    pub jwt_authorities: KeySet,
    /// `spiffe_sequence`: grows with every change of content.
    pub sequence: u64,
    /// `spiffe_refresh_hint`: how often to ask again.
    pub refresh_hint: Duration,
}

/// Why bytes are not a SPIFFE bundle.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Not JSON, or not the shape of a JWK set.
    #[error("not a SPIFFE bundle: {0}")]
    Malformed(String),
}

impl TrustBundle {
    /// Parses the JWKS form. Unknown `use` and `kty` are ignored, as the specification demands.
    ///
    /// # Errors
    /// When a MUST of the bundle specification is broken.
    pub fn from_json(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        let _ = (trust_domain, json);
        unimplemented!("client-lib")
    }

    /// The JWKS form (`use` = `x509-svid` with one `x5c`, or `jwt-svid` with a `kid`).
    pub fn to_json(&self) -> String {
        unimplemented!("client-lib")
    }
}

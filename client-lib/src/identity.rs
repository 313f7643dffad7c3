//! X.509-SVIDs, trust bundles, and the snapshot a workload holds of both.

use std::sync::Arc;

use crate::TrustDomain;

mod bundle;
pub(crate) mod leaf;
mod pem;
mod svid;
#[cfg(test)]
pub(crate) mod test_ca;

pub use bundle::{
    BundleError, DEFAULT_REFRESH_HINT, MAX_BUNDLE_BYTES, MAX_MAP_BYTES, MAX_REFRESH_HINT,
    MAX_TRUST_DOMAINS, MAX_X509_AUTHORITIES, TrustBundle,
};
pub use leaf::{LeafError, spki_sha256};
pub use svid::{MAX_CHAIN, SvidError, X509Svid};

/// What a workload holds at one moment: its X.509-SVID and the bundles it verifies others with.
///
/// Immutable: a rotation publishes a new snapshot, nothing changes one.
#[derive(Debug)]
pub struct Identity {
    /// The certificate chain and private key the workload presents.
    pub svid: X509Svid,
    /// What it verifies others of its own trust domain with.
    pub bundle: TrustBundle,
    /// What it verifies workloads of other trust domains with, in the order of their names.
    pub federated: Arc<[TrustBundle]>,
    /// Counts up with every published snapshot; connection pools key on it.
    pub generation: u64,
}

impl Identity {
    /// What workloads of `trust_domain` are verified with, and those of no other; `None` while there is nothing.
    pub fn bundle_of(&self, trust_domain: &TrustDomain) -> Option<&TrustBundle> {
        std::iter::once(&self.bundle)
            .chain(self.federated.iter())
            .find(|bundle| bundle.trust_domain == *trust_domain)
    }
}

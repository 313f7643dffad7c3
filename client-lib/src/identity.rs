//! X.509-SVIDs, trust bundles, and the snapshot a workload holds of both.

use std::{sync::Arc, time::SystemTime};

use crate::{SpiffeId, TrustDomain};

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

/// What a workload holds at one moment: its X.509-SVIDs and the bundles it verifies others with.
///
/// Immutable: a rotation publishes a new snapshot, nothing changes one.
#[derive(Debug)]
pub struct Identity {
    /// The certificate chain and private key the workload presents: the first of its identities, which is the default.
    pub svid: X509Svid,
    /// Its further identities; most workloads have none. No two of all its identities are the same.
    pub further: Arc<[FurtherSvid]>,
    /// What it verifies others of its own trust domain with.
    pub bundle: TrustBundle,
    /// What it verifies workloads of other trust domains with, in the order of their names.
    pub federated: Arc<[TrustBundle]>,
    /// Counts up with every published snapshot; connection pools key on it.
    pub generation: u64,
}

/// A further identity of a workload, beside the one it presents.
#[derive(Debug, Clone)]
pub struct FurtherSvid {
    /// Its certificate chain and private key.
    pub svid: X509Svid,
    /// Tells the workload what it is for.
    pub hint: Option<String>,
}

impl Identity {
    /// All its X.509-SVIDs, the default one first.
    pub fn svids(&self) -> impl Iterator<Item = &X509Svid> {
        std::iter::once(&self.svid).chain(self.further.iter().map(|further| &further.svid))
    }

    /// The X.509-SVID of the identity `id`; `None` where this workload does not have it.
    pub fn svid_of(&self, id: &SpiffeId) -> Option<&X509Svid> {
        self.svids().find(|svid| svid.id() == id)
    }

    /// When the first of its X.509-SVIDs expires: one of them is to be renewed by then.
    pub fn first_expiry(&self) -> SystemTime {
        let further = self.further.iter().map(|further| further.svid.not_after());
        further.fold(self.svid.not_after(), SystemTime::min)
    }

    /// What workloads of `trust_domain` are verified with, and those of no other; `None` while there is nothing.
    pub fn bundle_of(&self, trust_domain: &TrustDomain) -> Option<&TrustBundle> {
        std::iter::once(&self.bundle)
            .chain(self.federated.iter())
            .find(|bundle| bundle.trust_domain == *trust_domain)
    }
}

//! What the authority issued, checked: an X.509-SVID, and those of the workload's further identities.

use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use warifu::identity::{FurtherSvid, TrustBundle, X509Svid};

use super::rotation;
use crate::attest::FurtherChain;

/// The X.509-SVIDs of one answer, all of one key.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) svid: X509Svid,
    pub(super) further: Vec<FurtherSvid>,
}

impl Issued {
    /// All of them or none: an authority that issues one that is no good is not to be believed about the rest.
    ///
    /// # Errors
    /// Says which is no good, and why.
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        further: Vec<FurtherChain>,
        key: PrivatePkcs8KeyDer<'static>,
        bundle: &TrustBundle,
    ) -> Result<Self, String> {
        let svid = |chain, key| {
            let svid = X509Svid::new(chain, key)
                .map_err(|why| format!("what it issued is not an X.509-SVID of ours: {why}"))?;
            match svid.id().is_member_of(&bundle.trust_domain) {
                true => Ok(svid),
                false => Err(format!("it issued {}, of another trust domain", svid.id())),
            }
        };
        let mut issued = Self {
            svid: svid(chain, key.clone_key())?,
            further: Vec::with_capacity(further.len()),
        };
        for FurtherChain { chain, hint } in further {
            let svid = svid(chain, key.clone_key())?;
            if issued.svids().any(|other| other.id() == svid.id()) {
                return Err(format!("it issued {} twice", svid.id()));
            }
            issued.further.push(FurtherSvid { svid, hint });
        }
        Ok(issued)
    }

    /// When to renew: when the first of them is due. `random` is of 0 to 1.
    pub(super) fn renew_at(&self, now: SystemTime, random: f64) -> SystemTime {
        let due =
            |svid: &X509Svid| rotation::renew_at(now, svid.not_before(), svid.not_after(), random);
        let further = self.further.iter().map(|further| due(&further.svid));
        further.fold(due(&self.svid), SystemTime::min)
    }

    fn svids(&self) -> impl Iterator<Item = &X509Svid> {
        std::iter::once(&self.svid).chain(self.further.iter().map(|further| &further.svid))
    }
}

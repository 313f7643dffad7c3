//! A snapshot of the identity as the streams of the Workload API carry it: encoded once, shared by all.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{BufMut, Bytes};
use prost::Message;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use warifu::identity::{Identity, TrustBundle, X509Svid};
use zeroize::Zeroizing;

use crate::local::proto::workload::{
    JwtBundlesResponse, X509BundlesResponse, X509svid, X509svidResponse,
};

/// What a stream tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    X509Svid,
    X509Bundles,
    JwtBundles,
}

/// One snapshot, as frames of gRPC. No Debug: one of them holds the private key.
pub(super) struct Snapshot {
    generation: u64,
    x509_svid: Bytes,
    x509_bundles: Bytes,
    jwt_bundles: Bytes,
}

/// Encodes each snapshot for whoever asks first.
pub(super) struct Snapshots {
    hint: String,
    latest: Mutex<Option<Arc<Snapshot>>>,
}

impl Snapshots {
    /// `hint` goes with the default X.509-SVID.
    pub(super) fn new(hint: String) -> Self {
        Self {
            hint,
            latest: Mutex::default(),
        }
    }

    /// The snapshot of `identity`.
    pub(super) fn of(&self, identity: &Identity) -> Arc<Snapshot> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some(known) if known.generation == identity.generation => Arc::clone(known),
            _ => {
                let fresh = Arc::new(Snapshot::new(identity, &self.hint));
                *latest = Some(Arc::clone(&fresh));
                fresh
            }
        }
    }

    /// Forgets the key of an identity that is no more.
    pub(super) fn forget(&self) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Snapshot {
    fn new(identity: &Identity, hint: &str) -> Self {
        let Identity {
            bundle,
            federated,
            generation,
            ..
        } = identity;
        let all = || std::iter::once(bundle).chain(federated.iter());
        let svids = listed(identity, hint).map(|(svid, hint)| {
            let key = Zeroizing::new(svid.key().secret_pkcs8_der().to_vec());
            X509svid {
                spiffe_id: svid.id().to_string(),
                x509_svid: concatenated(svid.chain()),
                x509_svid_key: Bytes::from_owner(key),
                bundle: concatenated(&bundle.x509_authorities),
                hint: hint.to_owned(),
            }
        });
        Self {
            generation: *generation,
            x509_svid: frame(&X509svidResponse {
                svids: svids.collect(),
                crl: Vec::new(),
                federated_bundles: x509_bundles(federated.iter()),
            }),
            x509_bundles: frame(&X509BundlesResponse {
                crl: Vec::new(),
                bundles: x509_bundles(all()),
            }),
            jwt_bundles: frame(&JwtBundlesResponse {
                bundles: jwt_bundles(bundle, federated),
            }),
        }
    }

    pub(super) fn get(&self, content: Content) -> &Bytes {
        match content {
            Content::X509Svid => &self.x509_svid,
            Content::X509Bundles => &self.x509_bundles,
            Content::JwtBundles => &self.jwt_bundles,
        }
    }
}

/// The X.509-SVIDs of `identity` with their hints, the default one first; `hint` is its own. A hint is told once: of
/// two identities with one hint clients see the first only (SPIFFE Workload API §5.2.1), so a further one that has the
/// default's is told without.
pub(super) fn listed<'a>(
    identity: &'a Identity,
    hint: &'a str,
) -> impl Iterator<Item = (&'a X509Svid, &'a str)> {
    let further = identity.further.iter().map(move |further| {
        let own = further.hint.as_deref().unwrap_or_default();
        (&further.svid, if own == hint { "" } else { own })
    });
    std::iter::once((&identity.svid, hint)).chain(further)
}

/// `message` as gRPC sends it: not compressed, its length, itself. What it held is wiped when the last copy goes.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = Zeroizing::new(Vec::with_capacity(5 + length));
    frame.put_u8(0);
    // Bundles are limited to far less.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // Fails for want of room only, and a vector has room.
    let _ = message.encode(&mut *frame);
    Bytes::from_owner(frame)
}

/// Of trust domains that have X.509 authorities: clients refuse an empty bundle.
fn x509_bundles<'a>(bundles: impl Iterator<Item = &'a TrustBundle>) -> BTreeMap<String, Bytes> {
    bundles
        .filter(|bundle| !bundle.x509_authorities.is_empty())
        .map(|bundle| (map_key(bundle), concatenated(&bundle.x509_authorities)))
        .collect()
}

/// Our own always, others where they have JWT authorities.
fn jwt_bundles(own: &TrustBundle, others: &[TrustBundle]) -> BTreeMap<String, Bytes> {
    let others = others
        .iter()
        .filter(|bundle| bundle.jwt_authorities.iter().next().is_some());
    std::iter::once(own)
        .chain(others)
        .map(|bundle| (map_key(bundle), jwks(bundle)))
        .collect()
}

/// The trust domain's SPIFFE ID, which ends without a slash.
fn map_key(bundle: &TrustBundle) -> String {
    format!("spiffe://{}", bundle.trust_domain)
}

/// The keys of JWT-SVIDs and no others (SPIFFE Workload API §6.2.2).
fn jwks(bundle: &TrustBundle) -> Bytes {
    let keys = bundle.jwt_authorities.iter();
    let keys: Vec<Value> = keys.map(|key| key.to_json("jwt-svid")).collect();
    json!({ "keys": keys }).to_string().into()
}

fn concatenated(certificates: &[CertificateDer<'_>]) -> Bytes {
    let der: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
    der.concat().into()
}

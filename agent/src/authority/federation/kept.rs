//! Federated bundles in the store, for replicas that start.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use warifu::identity::TrustBundle;

use crate::{
    authority::{
        ca::hex,
        record::unix,
        state::{Document, Store, StoreError},
    },
    config::authority::{Federated, FederationProfile},
};

/// Attempts to write: replicas that get the same bundle at the same time write the same.
const ATTEMPTS: usize = 4;

/// The document.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    bundles: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Of which configuration it is.
    source: String,
    /// Unix seconds.
    fetched_at: u64,
    bundle: serde_json::Value,
}

/// Why a bundle was not kept.
#[derive(Debug, Error)]
pub(super) enum KeepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("writing it: {0}")]
    Json(#[from] serde_json::Error),
    #[error("other replicas kept writing")]
    Contended,
}

impl Kept {
    /// What is kept; nothing where nobody can read it, as it can be had again.
    pub(super) async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let found = store.load(Document::Federation).await?;
        Ok(found.map_or_else(Self::default, |found| Self::parse(&found.document)))
    }

    /// The bundle of a trust domain, if it came from where the configuration says, and when.
    pub(super) fn bundle(
        &self,
        configured: &Federated,
        source: &str,
    ) -> Option<(TrustBundle, SystemTime)> {
        let trust_domain = &configured.trust_domain;
        let entry = self.bundles.get(trust_domain.as_str())?;
        if entry.source != source {
            return None;
        }
        let json = entry.bundle.to_string();
        let bundle = TrustBundle::from_json(trust_domain.clone(), json.as_bytes()).ok()?;
        let fetched_at = Duration::from_secs(entry.fetched_at);
        Some((bundle, SystemTime::UNIX_EPOCH.checked_add(fetched_at)?))
    }

    fn parse(document: &[u8]) -> Self {
        serde_json::from_slice(document).unwrap_or_else(|why| {
            tracing::warn!(%why, "the federated bundles in the store are damaged; they are fetched anew");
            Self::default()
        })
    }
}

/// Keeps a bundle, unless a newer one from there is kept already.
pub(super) async fn put(
    store: &dyn Store,
    source: &str,
    bundle: &TrustBundle,
    fetched_at: SystemTime,
) -> Result<(), KeepError> {
    for _ in 0..ATTEMPTS {
        let found = store.load(Document::Federation).await?;
        let version = found.as_ref().map(|found| found.version);
        let mut kept = found.map_or_else(Kept::default, |found| Kept::parse(&found.document));
        let name = bundle.trust_domain.to_string();
        let is_older = kept.bundles.get(&name).is_some_and(|entry| {
            let sequence = entry.bundle.get("spiffe_sequence");
            let sequence = sequence.and_then(serde_json::Value::as_u64);
            entry.source == source && sequence.is_some_and(|kept| bundle.sequence < kept)
        });
        if is_older {
            return Ok(());
        }
        let entry = Entry {
            source: source.to_owned(),
            fetched_at: unix(fetched_at),
            bundle: serde_json::from_str(&bundle.to_json())?,
        };
        kept.bundles.insert(name, entry);
        let document = serde_json::to_vec(&kept)?;
        if store
            .compare_and_swap(Document::Federation, version, document)
            .await?
        {
            return Ok(());
        }
    }
    Err(KeepError::Contended)
}

/// Where a bundle comes from, as the configuration says: whoever changes that, or the file of the first
/// bundle, begins anew, also with a lower sequence.
pub(super) fn source(configured: &Federated, file: Option<&[u8]>) -> String {
    let profile = match configured.profile {
        FederationProfile::HttpsWeb => "https_web",
        FederationProfile::HttpsSpiffe => "https_spiffe",
    };
    let id = configured.endpoint_spiffe_id.as_ref();
    let text = format!(
        "{profile}\n{}\n{}\n{}",
        configured.url,
        id.map(ToString::to_string).unwrap_or_default(),
        file.map(|file| hex(digest(&SHA256, file).as_ref()))
            .unwrap_or_default(),
    );
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

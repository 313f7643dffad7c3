//! The issuer and the keys of the authority's access tokens: polled with the bundle, kept while the authority is away, and
//! over a restart.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::time::timeout;

use super::vault::Vault;
use crate::attest::{AccessTokenKeys, Client, wire::ErrorCode};

/// How long the first identity may be followed by nothing else.
const FIRST: Duration = Duration::from_secs(2);

/// What the agent knows of them now. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct AccessKeys(Arc<ArcSwapOption<AccessTokenKeys>>);

/// Asks the authority for them.
#[derive(Debug)]
pub(super) struct Follower {
    keys: AccessKeys,
    vault: Arc<Vault>,
    etag: Option<HeaderValue>,
    asked: bool,
}

impl AccessKeys {
    /// Issuer and keys; `None` before they were had, and where the authority mints no access tokens.
    pub fn load(&self) -> Option<Arc<AccessTokenKeys>> {
        self.0.load_full()
    }
}

impl Follower {
    /// Begins with what was kept before a restart.
    pub(super) fn new(keys: AccessKeys, vault: Arc<Vault>) -> Self {
        if let Some(kept) = vault.access_keys() {
            keys.0.store(Some(Arc::new(kept)));
        }
        Self {
            keys,
            vault,
            etag: None,
            asked: false,
        }
    }

    /// With the first identity; later polls do the rest.
    pub(super) async fn first(&mut self, client: &Client) {
        if !self.asked {
            self.asked = timeout(FIRST, self.poll(client)).await.is_ok();
        }
    }

    pub(super) async fn poll(&mut self, client: &Client) {
        match client.access_token_keys(self.etag.as_ref()).await {
            Ok(None) => {}
            Ok(Some((keys, etag))) => {
                let (issuer, count) = (&keys.issuer, keys.keys.iter().count());
                tracing::info!(issuer, count, "the keys of access tokens changed");
                self.know(Some(keys)).await;
                self.etag = etag;
            }
            // Decided: it mints none (any more), or is of a version that does not tell.
            Err(why) if why.refusal() == Some(ErrorCode::NotFound) => {
                // Asked again at every poll: only the first of these answers says something new.
                if self.keys.load().is_some() {
                    self.know(None).await;
                }
                self.etag = None;
            }
            Err(why) => tracing::debug!(%why, "the keys of access tokens could not be refreshed"),
        }
    }

    /// Kept first: what was told once is told after a restart, too.
    async fn know(&self, keys: Option<AccessTokenKeys>) {
        let keys = keys.map(Arc::new);
        let (vault, kept) = (Arc::clone(&self.vault), keys.clone());
        // Syncing a file may block for long.
        let keep = move || vault.keep_access_keys(kept.as_deref());
        let _ = tokio::task::spawn_blocking(keep).await;
        self.keys.0.store(keys);
    }
}

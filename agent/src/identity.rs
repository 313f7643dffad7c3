//! The agent's identity: obtain, renew, rotate, publish.

use std::sync::Arc;

use tokio::sync::watch;
use warifu::identity::Identity;

/// The current identity; `None` until the first one is issued. Every change is a new snapshot.
pub type Current = watch::Receiver<Option<Arc<Identity>>>;

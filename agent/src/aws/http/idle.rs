//! Connections that wait for the next request. DynamoDB is asked at every attestation by bearer token, and
//! a TLS handshake would cost more than its answer.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_smithy_types::body::SdkBody;
use hyper::client::conn::http1::SendRequest;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

/// How long one waits: below the idle time-outs of AWS's front ends, so that it is rarely dead when it is
/// wanted, and of no use to who calls STS once an hour.
const KEEP: Duration = Duration::from_secs(5);

/// Most that wait. Beyond what one replica has under way at once on a busy day.
const MOST: usize = 64;

/// The connections. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Idle(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// Oldest first.
    connections: Vec<Connection>,
    /// A task closes those that waited for nothing.
    is_watched: bool,
}

struct Connection {
    to: String,
    since: Instant,
    sender: SendRequest<SdkBody>,
}

/// A connection in use. Dropped, it waits for the next request; if its answer was not read to its end, nobody
/// will find it ready, and it is closed.
pub(super) struct Lease {
    idle: Idle,
    to: String,
    sender: Option<SendRequest<SdkBody>>,
}

impl Idle {
    /// The connection to `to` that was used last, if one is alive.
    pub(super) fn take(&self, to: &str) -> Option<SendRequest<SdkBody>> {
        let mut kept = self.lock();
        loop {
            let at = kept.connections.iter().rposition(|it| it.to == to)?;
            let connection = kept.connections.remove(at);
            if connection.sender.is_ready() && connection.since.elapsed() < KEEP {
                return Some(connection.sender);
            }
        }
    }

    pub(super) fn lease(&self, to: String, sender: SendRequest<SdkBody>) -> Lease {
        Lease {
            idle: self.clone(),
            to,
            sender: Some(sender),
        }
    }

    fn keep(&self, connection: Connection) {
        // What is dropped outside of the runtime, at its end, has nobody to watch it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut kept = self.lock();
        if connection.sender.is_closed() || kept.connections.len() >= MOST {
            return;
        }
        kept.connections.push(connection);
        if !kept.is_watched {
            kept.is_watched = true;
            runtime.spawn(self.clone().watch());
        }
    }

    async fn watch(self) {
        loop {
            sleep(KEEP).await;
            let mut kept = self.lock();
            kept.connections.retain(|it| it.since.elapsed() < KEEP);
            if kept.connections.is_empty() {
                kept.is_watched = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.idle.keep(Connection {
                to: std::mem::take(&mut self.to),
                since: Instant::now(),
                sender,
            });
        }
    }
}

impl fmt::Debug for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} idle connections", self.lock().connections.len())
    }
}

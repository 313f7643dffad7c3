//! Who asks, and whether it may.

use std::sync::Arc;

use crate::{config::local::Clients, http::server::Remote};

/// The process at the other end of a local connection, and whether the configuration lets it ask.
#[derive(Debug, Clone)]
pub struct Asker {
    remote: Remote,
    may_ask: bool,
}

/// Decides who may ask on one listener.
#[derive(Debug, Clone)]
pub(super) struct Door(Arc<Clients>);

impl Door {
    pub(super) fn new(clients: &Clients) -> Self {
        Self(Arc::new(clients.clone()))
    }

    /// Who asks over a connection from `remote`. Told apart on unix sockets only: the configuration has no
    /// `clients` on others.
    pub(super) fn asker(&self, remote: Remote) -> Asker {
        let is_listed = match &remote {
            Remote::Unix(Some(process)) => {
                self.0.uids.contains(&process.uid) || self.0.gids.contains(&process.gid)
            }
            Remote::Unix(None) | Remote::Tcp(_) => false,
        };
        Asker {
            may_ask: is_listed || self.0.is_everyone(),
            remote,
        }
    }
}

impl Asker {
    /// Whether it may ask at all.
    pub fn may_ask(&self) -> bool {
        self.may_ask
    }

    /// Where it is, for logs and audit lines.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::server::Process;

    #[test]
    fn s20_who_is_not_listed_may_not_ask() {
        let door = |uids: &[u32], gids: &[u32]| {
            Door::new(&Clients {
                uids: uids.to_vec(),
                gids: gids.to_vec(),
            })
        };
        let unix = |uid, gid| Remote::Unix(Some(Process { uid, gid }));
        let tcp = Remote::Tcp(([127, 0, 0, 1], 1000).into());
        for (door, remote, may_ask) in [
            (door(&[], &[]), unix(7, 7), true),
            (door(&[], &[]), tcp.clone(), true),
            (door(&[1000], &[]), unix(1000, 7), true),
            (door(&[1000], &[]), unix(0, 0), false),
            (door(&[1000], &[]), unix(7, 1000), false),
            (door(&[], &[50]), unix(7, 50), true),
            (door(&[], &[50]), unix(50, 7), false),
            (door(&[1000], &[50]), unix(7, 50), true),
            (door(&[1000], &[]), Remote::Unix(None), false),
            (door(&[1000], &[]), tcp, false),
        ] {
            assert_eq!(door.asker(remote.clone()).may_ask(), may_ask, "{remote}");
        }
    }
}

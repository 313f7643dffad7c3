//! Who is at the other end of a unix socket, as the kernel says.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    runtime::Handle,
    time::sleep,
};

use super::CallerLayer;

/// Pause after a failed accept that is not the connection's own fault (too many open files): long
/// enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The process that connected to a unix socket, as the kernel recorded it when it did
/// (`SO_PEERCRED`). Put into the extensions of each of the connection's requests, it is the evidence
/// [`CallerLayer::over_unix`] asks for. It can only be had from a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCred {
    uid: u32,
}

impl PeerCred {
    /// Asks the kernel who is at the other end of `stream`.
    ///
    /// # Errors
    /// The socket cannot say.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let uid = stream.peer_cred()?.uid();
        Ok(Self { uid })
    }

    /// Its effective user id at the time it connected.
    pub fn uid(&self) -> u32 {
        self.uid
    }
}

/// The uid this process connects with: the agent's too, where both run as the same user.
///
/// # Errors
/// Called outside a tokio runtime, or no socket can be made.
pub fn own_uid() -> io::Result<u32> {
    Handle::try_current().map_err(io::Error::other)?;
    // Asked of the kernel in the words in which it will describe the agent: user namespaces
    // included, and without `unsafe` or another crate.
    let (one, _other) = UnixStream::pair()?;
    Ok(PeerCred::of(&one)?.uid())
}

/// The unix socket on which an app serves its agent: `forward: unix:/path` in the agent's
/// configuration. Connections of processes with other uids are closed before a byte is read.
///
/// Which uids to name: the agent's, and nobody else's. Where agent and app run as one user that is
/// [`own_uid`]: a process of that user could control the app anyway. Root is not implied: many
/// containers of other people run as root, and one that shares the volume with the socket would
/// become the agent. A container in another user namespace shows as the overflow uid, 65534, which
/// is no one in particular: don't name it.
///
/// ```no_run
/// # async fn serve() -> std::io::Result<()> {
/// use warifu::caller::{self, AppSocket};
///
/// let socket = AppSocket::bind("/run/warifu/app.sock", [caller::own_uid()?])?;
/// let callers = socket.layer();
/// loop {
///     let (stream, peer) = socket.accept().await;
///     // Serve `stream`; put `peer` into the extensions of its requests, and `callers` around the app.
/// #   let _ = (stream, peer, callers.clone());
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct AppSocket {
    listener: UnixListener,
    agent_uids: Vec<u32>,
    path: PathBuf,
}

impl AppSocket {
    /// Listens at `path`, for processes that run as one of `agent_uids`. A socket left behind by a
    /// process that is gone is replaced.
    ///
    /// # Errors
    /// Called outside a tokio runtime, the path is in use, or not writable.
    pub fn bind(
        path: impl AsRef<Path>,
        agent_uids: impl IntoIterator<Item = u32>,
    ) -> io::Result<Self> {
        let path = path.as_ref();
        let agent_uids: Vec<u32> = agent_uids.into_iter().collect();
        let own_uid = own_uid()?;
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
                fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            bound => bound,
        }
        .map_err(|error| at(path, error))?;
        // Connecting takes write permission. For another user's agent that must be everyone's, and
        // the uid tells who is let in: an app seldom may give its socket to another user or group.
        let mode = if agent_uids.iter().all(|uid| *uid == own_uid) {
            0o600
        } else {
            0o666
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|error| at(path, error))?;
        Ok(Self {
            listener,
            agent_uids,
            path: path.to_owned(),
        })
    }

    /// The layer that believes the callers told over this socket.
    pub fn layer(&self) -> CallerLayer {
        CallerLayer::over_unix(self.agent_uids.iter().copied())
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The agent's next connection, and the evidence that it is the agent's, to be put into the
    /// extensions of every request it carries. May be cancelled without loss.
    pub async fn accept(&self) -> (UnixStream, PeerCred) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Ok(peer) = PeerCred::of(&stream)
                        && self.agent_uids.contains(&peer.uid)
                    {
                        return (stream, peer);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

/// Whether `path` is a socket nobody listens on any more.
fn is_left_behind(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("listening on unix:{}: {error}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn the_agents_connection_is_accepted_with_its_uid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        let socket = AppSocket::bind(&path, [own_uid().unwrap()]).unwrap();
        let _agent = UnixStream::connect(&path).await.unwrap();
        let (_, peer) = socket.accept().await;
        assert_eq!(peer.uid(), own_uid().unwrap());
    }

    #[tokio::test]
    async fn s03_a_process_of_another_user_is_disconnected_unheard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        // The agent is somebody else, so this process is the foreign one.
        let socket = AppSocket::bind(&path, [own_uid().unwrap() + 1]).unwrap();
        let mut foreign = UnixStream::connect(&path).await.unwrap();
        let mut answer = Vec::new();
        tokio::select! {
            _ = socket.accept() => panic!("a foreign connection was accepted"),
            read = foreign.read_to_end(&mut answer) => assert_eq!(read.unwrap(), 0),
        }
    }

    #[tokio::test]
    async fn s16_a_socket_for_no_agent_accepts_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        let socket = AppSocket::bind(&path, []).unwrap();
        let mut foreign = UnixStream::connect(&path).await.unwrap();
        tokio::select! {
            _ = socket.accept() => panic!("a connection was accepted"),
            read = foreign.read_u8() => assert!(read.is_err()),
        }
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        let uid = own_uid().unwrap();
        drop(AppSocket::bind(&path, [uid]).unwrap());
        let _live = AppSocket::bind(&path, [uid]).unwrap();
        let error = AppSocket::bind(&path, [uid]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("app.sock"), "{error}");
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        fs::write(&path, "mine").unwrap();
        AppSocket::bind(&path, [0]).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn only_an_agent_of_another_user_makes_the_socket_open_to_connect() {
        let dir = tempfile::tempdir().unwrap();
        let uid = own_uid().unwrap();
        for (uids, mode) in [(vec![uid], 0o600), (vec![uid + 1], 0o666)] {
            let path = dir.path().join(format!("{mode:o}.sock"));
            let _socket = AppSocket::bind(&path, uids).unwrap();
            let found = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode);
        }
    }

    #[test]
    fn outside_a_runtime_the_own_uid_is_an_error_not_a_panic() {
        own_uid().unwrap_err();
    }
}

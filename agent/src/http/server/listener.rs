//! Binding sockets, with errors that say what to do.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as BlockingUnixStream,
    },
    path::{Path, PathBuf},
};

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::{Process, Remote, io::Stream};
use crate::config::value::Listen;

/// Connections the kernel queues for us: as many as Linux lets it by default (`net.core.somaxconn`). Whose
/// connection finds no room tries again after a second, then two: too late for many a client.
const BACKLOG: u32 = 4096;

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Listen,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removed when this is dropped.
        _file: SocketFile,
    },
}

/// Why a socket could not be bound.
#[derive(Debug, Error)]
#[error("{setting}cannot listen on {address}: {why}")]
pub struct BindError {
    /// `inbound[0].listen: `, where the address comes from a configuration; else empty.
    setting: String,
    /// Where.
    pub address: String,
    /// What is in the way, and what to do.
    pub why: String,
}

impl Listener {
    /// Binds `listen`. A unix socket is open to its user and group (0660): the app in the next
    /// container runs as another user of the same group (`fsGroup`). Inside a tokio runtime only.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(listen: &Listen) -> Result<Self, BindError> {
        Self::bind_with_mode(listen, 0o660)
    }

    /// As [`bind`](Self::bind), but a unix socket is open to its user only (0600): administration.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind_private(listen: &Listen) -> Result<Self, BindError> {
        Self::bind_with_mode(listen, 0o600)
    }

    /// As [`bind`](Self::bind), but a unix socket is open to every process that reaches it (0666): what serves
    /// there looks at who asks.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind_shared(listen: &Listen) -> Result<Self, BindError> {
        Self::bind_with_mode(listen, 0o666)
    }

    /// Where it is bound, with the port the kernel chose where `:0` was asked for.
    pub fn address(&self) -> &Listen {
        &self.address
    }

    fn bind_with_mode(listen: &Listen, mode: u32) -> Result<Self, BindError> {
        match listen {
            Listen::Tcp(address) => bind_tcp(*address).map_err(|error| BindError {
                setting: String::new(),
                address: address.to_string(),
                why: explain_tcp(*address, &error),
            }),
            Listen::Unix(path) => bind_unix(path, mode).map_err(|why| BindError {
                setting: String::new(),
                address: format!("unix:{}", path.display()),
                why,
            }),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Remote)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Responses are written whole; waiting to fill a segment would only add delay.
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Remote::Tcp(address)))
            }
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let process = stream.peer_cred().ok().map(|peer| Process {
                    uid: peer.uid(),
                    gid: peer.gid(),
                });
                Ok((Stream::Unix(stream), Remote::Unix(process)))
            }
        }
    }
}

impl BindError {
    /// Names the setting of the configuration that the address comes from.
    #[must_use]
    pub fn at(mut self, setting: impl fmt::Display) -> Self {
        self.setting = format!("{setting}: ");
        self
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = Listen::Tcp(listener.local_addr()?);
    Ok(Listener {
        socket: Socket::Tcp(listener),
        address,
    })
}

fn explain_tcp(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {port} is in use; stop the process that has it (`ss -ltnp 'sport = :{port}'` shows \
             which), or configure another port"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "{error}; ports below 1024 need the capability NET_BIND_SERVICE: configure a higher one"
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "no interface of this machine has the address {}; configure one it has, or 0.0.0.0 for all",
            address.ip()
        ),
        _ => error.to_string(),
    }
}

/// Binds beside `path` and renames, so that the socket is never there with another mode than `mode`,
/// and clients find either the old one or the new one.
fn bind_unix(path: &Path, mode: u32) -> Result<Listener, String> {
    clear_the_way(path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let explain = |error: io::Error| explain_unix(path, &error);
    // Left by a process with our number that died between bind and rename.
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).map_err(explain)?;
    let file = SocketFile::new(beside).map_err(explain)?;
    set_mode(&file.path, mode).map_err(explain)?;
    let file = file.rename(path).map_err(explain)?;
    let address = Listen::Unix(path.to_owned());
    Ok(Listener {
        socket: Socket::Unix {
            listener,
            _file: file,
        },
        address,
    })
}

/// Sets the mode of the socket at `path`, and of nothing else: others may write its directory (a volume
/// shared with the app), and a link put in its place must not open a key of ours to them.
#[cfg(target_os = "linux")]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{Mode, OFlags, open};

    let socket = open(
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let socket = fs::File::from(socket);
    if !socket.metadata()?.file_type().is_socket() {
        return Err(io::Error::other(
            "something else was put in place of the socket",
        ));
    }
    // A descriptor that only names a file has no fchmod; by this name the same file is meant.
    let named = format!("/proc/self/fd/{}", socket.as_raw_fd());
    fs::set_permissions(named, fs::Permissions::from_mode(mode))
}

/// Where no descriptor can name a socket's file: for development only.
#[cfg(not(target_os = "linux"))]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Nothing but a socket nobody listens on may be replaced.
fn clear_the_way(path: &Path) -> Result<(), String> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(
            "something that is not a socket is there; remove it, or configure another path".into(),
        );
    }
    match BlockingUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(
            "another process listens there; stop it (`ss -lxp` shows which), or configure another path"
                .into(),
        ),
        Err(error) => Err(format!(
            "a socket is there, and whether a process listens on it cannot be found out ({error}); \
             remove it, or configure another path"
        )),
    }
}

fn explain_unix(path: &Path, error: &io::Error) -> String {
    let directory = path.parent().unwrap_or(Path::new("/")).display();
    match error.kind() {
        io::ErrorKind::NotFound => format!("the directory {directory} does not exist; create it"),
        io::ErrorKind::PermissionDenied => {
            format!("the directory {directory} must be writable for this process's user: {error}")
        }
        io::ErrorKind::InvalidInput => format!("{error}: use a shorter path"),
        _ => error.to_string(),
    }
}

/// Removes the socket with its listener, if it is still that listener's.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn new(path: PathBuf) -> io::Result<Self> {
        let inode = inode(&path)?;
        Ok(Self { path, inode })
    }

    fn rename(mut self, to: &Path) -> io::Result<Self> {
        fs::rename(&self.path, to)?;
        self.path = to.to_owned();
        Ok(self)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &Path) -> Listen {
        Listen::Unix(path.to_owned())
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn s12_a_link_in_place_of_the_socket_opens_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let private = directory.path().join("renewal.key");
        fs::write(&private, "private").unwrap();
        fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
        let link = directory.path().join("app.sock");
        std::os::unix::fs::symlink(&private, &link).unwrap();
        for path in [&link, &private] {
            assert!(set_mode(path, 0o660).is_err());
            let mode = fs::metadata(&private).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[tokio::test]
    async fn a_port_in_use_says_what_to_do() {
        let first = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let error = Listener::bind(first.address()).unwrap_err().to_string();
        let Listen::Tcp(address) = first.address() else {
            panic!()
        };
        assert!(
            error.starts_with(&format!("cannot listen on {address}: port")),
            "{error}"
        );
        assert!(
            error.contains("is in use") && error.contains("ss -ltnp"),
            "{error}"
        );
        let error = Listener::bind(first.address())
            .unwrap_err()
            .at("admin.listen");
        let expected = format!("admin.listen: cannot listen on {address}: ");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_says_so() {
        let error = Listener::bind(&Listen::Tcp("192.0.2.1:0".parse().unwrap())).unwrap_err();
        assert!(error.to_string().contains("no interface"), "{error}");
    }

    #[tokio::test]
    async fn s12_a_unix_socket_has_its_mode_and_is_removed_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        for (listener, mode) in [
            (Listener::bind(&unix(&path)), 0o660),
            (
                Listener::bind_private(&unix(&path.with_extension("admin"))),
                0o600,
            ),
        ] {
            let listener = listener.unwrap();
            let Listen::Unix(path) = listener.address() else {
                panic!()
            };
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                mode
            );
            assert!(BlockingUnixStream::connect(path).is_ok());
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = Listener::bind(&unix(&path)).unwrap();
        let error = Listener::bind(&unix(&path)).unwrap_err().to_string();
        assert!(error.contains("another process listens there"), "{error}");
        assert!(BlockingUnixStream::connect(&path).is_ok());
        // A socket that took its place is not removed with it.
        fs::remove_file(&path).unwrap();
        let second = Listener::bind(&unix(&path)).unwrap();
        drop(first);
        assert!(BlockingUnixStream::connect(&path).is_ok());
        drop(second);
    }

    #[tokio::test]
    async fn what_is_in_the_way_of_a_unix_socket_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "precious").unwrap();
        let error = Listener::bind(&unix(&file)).unwrap_err().to_string();
        assert!(error.contains("not a socket"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        let error = Listener::bind(&unix(&directory.path().join("no/app.sock"))).unwrap_err();
        assert!(
            error.to_string().contains("does not exist; create it"),
            "{error}"
        );
        let error = Listener::bind(&unix(&directory.path().join("x".repeat(120)))).unwrap_err();
        assert!(error.to_string().contains("shorter path"), "{error}");
    }
}

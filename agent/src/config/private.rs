//! Private files: keys and state on disk, readable by their owner alone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;
use warifu::Secret;

/// Largest private file: keys, tokens, records and bundles are all far smaller.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Why a private file can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PrivateError {
    /// The system refused.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("{path} is open to others (mode {mode:03o}); make it private: chmod {want:03o} {path}")]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What its mode should be.
        want: u32,
    },
    /// Another user's.
    #[error(
        "{path} belongs to uid {owner}, and this process runs as uid {us}; chown it or run as its owner"
    )]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Not what it should be.
    #[error("{path}: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Makes `dir` (0700) where it is missing; where it exists, it must be ours and closed to others.
///
/// # Errors
/// When it can't be made, or is open to others.
pub fn ensure_dir(dir: &Path) -> Result<(), PrivateError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(io_error("making the directory", dir))?;
    let metadata = fs::metadata(dir).map_err(io_error("looking at", dir))?;
    check(dir, &metadata, 0o700)
}

/// Makes the file (0600, empty) where it is missing; where it exists, it must be ours and closed to others.
///
/// # Errors
/// When it can't be made, or is open to others.
pub fn ensure_file(path: &Path) -> Result<(), PrivateError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::metadata(path).map_err(io_error("looking at", path))?;
            check(path, &metadata, 0o600)
        }
        made => made.map(drop).map_err(io_error("making", path)),
    }
}

/// The content of a private file; `None` where there is none.
///
/// # Errors
/// When it can't be read, is open to others, or too large.
pub fn read(path: &Path) -> Result<Option<Secret<Vec<u8>>>, PrivateError> {
    read_checked(path, check)
}

/// As [`read`], for a file that somebody else puts there, as Kubernetes does with a secret: it may be
/// root's, and its group may read it. Nobody else may.
///
/// # Errors
/// As for [`read`].
pub fn read_mounted(path: &Path) -> Result<Option<Secret<Vec<u8>>>, PrivateError> {
    read_checked(path, check_mounted)
}

fn read_checked(
    path: &Path,
    check: fn(&Path, &fs::Metadata, u32) -> Result<(), PrivateError>,
) -> Result<Option<Secret<Vec<u8>>>, PrivateError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(io_error("reading", path)(why)),
    };
    let metadata = file.metadata().map_err(io_error("looking at", path))?;
    if !metadata.is_file() {
        return Err(PrivateError::Content {
            path: path.to_owned(),
            why: "expected a file; remove what is there, or name another path",
        });
    }
    check(path, &metadata, 0o600)?;
    read_bounded(path, file).map(Some)
}

/// Replaces the file whole (0600): whoever reads it sees the old content or the new, also after a
/// crash.
///
/// # Errors
/// When it can't be written.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), PrivateError> {
    replace_with_mode(path, content, 0o600)
}

/// As [`replace`], with a mode of its own, whatever the umask is: for what another user's process is to read.
///
/// # Errors
/// As for [`replace`].
pub fn replace_with_mode(path: &Path, content: &[u8], mode: u32) -> Result<(), PrivateError> {
    stage(path, content, mode)?.put_in_place()
}

/// Writes the file whole (0600) unless there is one already; says whether it did. Of several
/// processes that try at once one wins, and its content stays.
///
/// # Errors
/// When it can't be written.
pub fn create(path: &Path, content: &[u8]) -> Result<bool, PrivateError> {
    let staged = stage(path, content, 0o600)?;
    let temporary = &staged.temporary;
    let linked = fs::hard_link(temporary, path);
    let removed = fs::remove_file(temporary);
    match linked {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        linked => linked.map_err(io_error("writing", path))?,
    }
    removed.map_err(io_error("removing", temporary))?;
    sync_dir(path)?;
    Ok(true)
}

fn read_bounded(path: &Path, file: File) -> Result<Secret<Vec<u8>>, PrivateError> {
    let mut content = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut content)
        .map_err(io_error("reading", path))?;
    let content = Secret::new(content);
    if content.expose().len() as u64 > MAX_FILE {
        return Err(PrivateError::Content {
            path: path.to_owned(),
            why: "the file is over 4 MiB",
        });
    }
    Ok(content)
}

fn check(path: &Path, metadata: &fs::Metadata, want: u32) -> Result<(), PrivateError> {
    let mode = metadata.permissions().mode() & 0o777;
    check_owner(path, metadata)?;
    if mode & 0o077 != 0 {
        return Err(PrivateError::Open {
            path: path.to_owned(),
            mode,
            want,
        });
    }
    Ok(())
}

fn check_mounted(path: &Path, metadata: &fs::Metadata, want: u32) -> Result<(), PrivateError> {
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.uid() != 0 {
        check_owner(path, metadata)?;
    }
    if mode & 0o037 != 0 {
        return Err(PrivateError::Open {
            path: path.to_owned(),
            mode,
            want,
        });
    }
    Ok(())
}

fn check_owner(path: &Path, metadata: &fs::Metadata) -> Result<(), PrivateError> {
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us && us != 0 {
        return Err(PrivateError::Owner {
            path: path.to_owned(),
            owner: metadata.uid(),
            us,
        });
    }
    Ok(())
}

/// A finished, synced file beside the one that it is to replace. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

/// What [`replace_with_mode`] puts in place, for later.
///
/// # Errors
/// When it can't be written.
pub fn stage(path: &Path, content: &[u8], mode: u32) -> Result<Staged, PrivateError> {
    // Of this process: another may be at it, too.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let staged = Staged {
        temporary: path.with_file_name(name),
        path: path.to_owned(),
    };
    let written = staged.write(content, mode);
    written.map_err(io_error("writing", &staged.temporary))?;
    Ok(staged)
}

impl Staged {
    fn write(&self, content: &[u8], mode: u32) -> io::Result<()> {
        // Left by a process of this number that was killed at the wrong moment, or put there by another user of the
        // directory: removed, never written through.
        match fs::remove_file(&self.temporary) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.temporary)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// When it can't be replaced, and is as it was; or when its directory can't be synced.
    pub fn put_in_place(self) -> Result<(), PrivateError> {
        fs::rename(&self.temporary, &self.path).map_err(io_error("replacing", &self.path))?;
        sync_dir(&self.path)
    }
}

impl Drop for Staged {
    /// Where it was put in place there is nothing left to remove.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

/// A rename is durable once its directory is.
fn sync_dir(path: &Path) -> Result<(), PrivateError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("syncing", dir))
}

fn io_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> PrivateError {
    let path = path.to_owned();
    move |source| PrivateError::Io {
        doing,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s12_a_private_file_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        replace(&path, b"k").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = read(&path).unwrap_err();
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }

    #[test]
    fn s12_a_mounted_file_may_be_read_by_its_group_and_by_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        replace(&path, b"k").unwrap();
        for (mode, is_read) in [
            (0o600, true),
            (0o440, true),
            (0o640, true),
            (0o660, false),
            (0o644, false),
            (0o641, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_mounted(&path).is_ok(), is_read, "{mode:o}");
        }
    }

    #[test]
    fn s12_a_directory_others_may_enter_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("state");
        ensure_dir(&inner).unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            ensure_dir(&inner),
            Err(PrivateError::Open { want: 0o700, .. })
        ));
    }

    #[test]
    fn a_file_is_created_once_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(read(&path).unwrap().is_none());
        assert!(create(&path, b"first").unwrap());
        assert!(!create(&path, b"second").unwrap());
        assert_eq!(read(&path).unwrap().unwrap().expose(), b"first");
        replace(&path, b"third").unwrap();
        assert_eq!(read(&path).unwrap().unwrap().expose(), b"third");
        drop(stage(&path, b"fourth", 0o600).unwrap());
        assert_eq!(read(&path).unwrap().unwrap().expose(), b"third");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

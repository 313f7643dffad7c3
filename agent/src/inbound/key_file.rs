//! The key the signed context is made with, and the file that tells the app its public half.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use warifu::{caller::context, jwt::SigningKey};

use super::StartError;

/// The public half of a new key, in a file beside the one that it is to replace. Dropped, it leaves nothing.
#[derive(Debug)]
pub(super) struct Staged {
    beside: PathBuf,
    path: PathBuf,
}

/// A new key, and its public half for `path`: readable by all, writable by us.
pub(super) fn stage(path: &Path) -> io::Result<(SigningKey, Staged)> {
    let key = SigningKey::generate();
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let staged = Staged {
        beside: PathBuf::from(beside),
        path: path.to_owned(),
    };
    // The directory may be the app's as well: whatever is there is removed, never written through.
    match fs::remove_file(&staged.beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(&staged.beside)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(context::key_file_json(&key).as_bytes())?;
    file.sync_all()?;
    Ok((key, staged))
}

impl Staged {
    /// Replaces the file in one step: a reader finds the old keys or the new ones.
    pub(super) fn put_in_place(self) -> Result<(), StartError> {
        fs::rename(&self.beside, &self.path).map_err(|source| StartError::KeyFile {
            path: self.path.clone(),
            source,
        })
    }
}

impl Drop for Staged {
    /// Where it was put in place there is nothing left to remove.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.beside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_the_public_half_and_no_one_else_may_write_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("context.jwks");
        fs::write(&path, "old").unwrap();
        let (key, staged) = stage(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        staged.put_in_place().unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            context::key_file_json(&key)
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_put_in_place_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("context.jwks");
        fs::write(&path, "old").unwrap();
        drop(stage(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn s12_a_link_in_the_way_is_not_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("context.jwks");
        let private = directory.path().join("renewal.key");
        fs::write(&private, "private").unwrap();
        fs::set_permissions(&private, Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&private, directory.path().join("context.jwks.new")).unwrap();
        let (key, staged) = stage(&path).unwrap();
        staged.put_in_place().unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            context::key_file_json(&key)
        );
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read_to_string(&private).unwrap(), "private");
        let mode = fs::metadata(&private).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

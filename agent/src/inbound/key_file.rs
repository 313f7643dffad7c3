//! The key the signed context is made with, and the file that tells the app its public half.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use warifu::{caller::context, jwt::SigningKey};

/// A new key, whose public half is in `path` before this returns: readable by all, writable by us. The
/// file is replaced in one step, so a reader finds the old keys or the new ones.
pub(super) fn write(path: &Path) -> io::Result<SigningKey> {
    let key = SigningKey::generate();
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = File::create(&beside)?;
    fs::set_permissions(&beside, Permissions::from_mode(0o644))?;
    file.write_all(context::key_file_json(&key).as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_the_public_half_and_no_one_else_may_write_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("context.jwks");
        fs::write(&path, "old").unwrap();
        let key = write(&path).unwrap();
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
}

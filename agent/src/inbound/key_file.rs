//! The key the signed context is made with, and the file that tells the app its public half.

use std::path::Path;

use warifu::{caller::context, jwt::SigningKey};

use crate::config::private::{self, PrivateError, Staged};

/// The app reads it as another user.
const MODE: u32 = 0o644;

/// A new key, and its public half for `path`: readable by all, writable by us.
pub(super) fn stage(path: &Path) -> Result<(SigningKey, Staged), PrivateError> {
    let key = SigningKey::generate();
    let public = context::key_file_json(&key);
    let staged = private::stage(path, public.as_bytes(), MODE)?;
    Ok((key, staged))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
    };

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
    fn s12_a_link_in_the_way_is_not_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("context.jwks");
        let private = directory.path().join("renewal.key");
        fs::write(&private, "private").unwrap();
        fs::set_permissions(&private, Permissions::from_mode(0o600)).unwrap();
        let beside = format!("context.jwks.{}.new", std::process::id());
        std::os::unix::fs::symlink(&private, directory.path().join(beside)).unwrap();
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

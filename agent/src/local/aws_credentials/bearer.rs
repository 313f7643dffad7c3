//! The bearer token of a loopback endpoint, and the file its clients read it from.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use aws_lc_rs::{constant_time, error::Unspecified, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header::AUTHORIZATION};
use warifu::Secret;

use crate::config::private::{self, PrivateError};

/// Bytes of randomness in it.
const BYTES: usize = 32;

/// For the agent's user and group. The app in the next container is another user; what it shares with the agent is a
/// group (`fsGroup`).
const MODE: u32 = 0o640;

/// Made anew at each start: clients read the file before each question.
pub(super) struct Bearer {
    token: Secret<String>,
    /// Removed with this, if it still has this token.
    file: OnceLock<PathBuf>,
}

impl Bearer {
    pub(super) fn new() -> Result<Self, Unspecified> {
        let mut random = [0; BYTES];
        rand::fill(&mut random)?;
        let token = Secret::new(URL_SAFE_NO_PAD.encode(Secret::new(random).expose()));
        Ok(Self {
            token,
            file: OnceLock::new(),
        })
    }

    /// Replaces `file` whole. Without a line's end: the SDKs send the content as it is, and refuse one.
    pub(super) fn write(&self, file: &Path) -> Result<(), PrivateError> {
        private::replace_with_mode(file, self.token.expose().as_bytes(), MODE)?;
        self.file.get_or_init(|| file.to_owned());
        Ok(())
    }

    /// Whether a request presents it.
    pub(super) fn is_presented(&self, headers: &HeaderMap) -> bool {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let (Some(presented), None) = (all.next(), all.next()) else {
            return false;
        };
        let token = self.token.expose().as_bytes();
        constant_time::verify_slices_are_equal(presented.as_bytes(), token).is_ok()
    }

    fn is_in(&self, file: &Path) -> bool {
        let token = self.token.expose().as_bytes();
        let mut content = Vec::with_capacity(token.len() + 1);
        let read = File::open(file).and_then(|file| {
            let limit = token.len() as u64 + 1;
            file.take(limit).read_to_end(&mut content)
        });
        read.is_ok() && content == token
    }
}

impl Drop for Bearer {
    fn drop(&mut self) {
        // The next agent may have put its own there.
        if let Some(file) = self.file.get()
            && self.is_in(file)
        {
            let _ = fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn s12_the_token_file_is_for_user_and_group_and_has_no_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("aws.token");
        fs::write(&file, "of the last run").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        let bearer = Bearer::new().unwrap();
        bearer.write(&file).unwrap();
        let token = fs::read_to_string(&file).unwrap();
        assert_eq!(token.len(), 43);
        let url_safe = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        assert!(token.chars().all(url_safe));
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            MODE
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(bearer);
        assert!(!file.exists());
    }

    #[test]
    fn a_token_of_another_agent_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("aws.token");
        let (old, new) = (Bearer::new().unwrap(), Bearer::new().unwrap());
        old.write(&file).unwrap();
        new.write(&file).unwrap();
        drop(old);
        assert!(new.is_in(&file));
    }

    #[test]
    fn s20_only_the_whole_token_alone_is_taken() {
        let bearer = Bearer::new().unwrap();
        let token = bearer.token.expose().clone();
        let presented = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer.is_presented(&headers)
        };
        assert!(presented(&[&token]));
        for values in [
            &[][..],
            &[""],
            &[&token[1..]],
            &[&token[..42]],
            &[&format!("{token}=")],
            &[&format!("Bearer {token}")],
            &[&token.to_lowercase()],
            &[&token, &token],
            &["other", &token],
        ] {
            assert!(!presented(values), "{values:?}");
        }
    }
}

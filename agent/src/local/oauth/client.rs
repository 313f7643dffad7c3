//! The client secret: read from its file, again when that changes, and compared in constant time.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{Digest, SHA256, digest},
};
use thiserror::Error;

use super::form::{Credentials, Spelled};
use crate::{
    config::{
        local::OauthClient,
        value::{SecretFile, SecretFileError},
    },
    local::bucket::Bucket,
};

/// Least length of a client secret, in bytes.
pub(super) const MIN_SECRET: usize = 32;

/// Why a client secret is of no use. Never says what it is.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// It can't be read.
    #[error("local.oauth.client.secret: {0}")]
    File(#[from] SecretFileError),
    /// It can be guessed.
    #[error(
        "local.oauth.client.secret: the secret has {0} bytes; expected {MIN_SECRET} or more, chosen at random \
         (`openssl rand -base64 32`)"
    )]
    Short(usize),
}

/// The client of one endpoint.
pub(super) struct Client {
    id: Digest,
    secret: SecretFile,
    state: Mutex<State>,
}

/// What came of comparing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the client.
    Known,
    /// It is not.
    Unknown,
    /// It is not, and has been asked too often. The client itself is never in this place: whoever guesses must not
    /// lock it out.
    TooMany,
}

struct State {
    /// SHA-256 of the secret in force.
    secret: Digest,
    /// Of the file, when it was last read.
    stamp: Option<Stamp>,
    trouble: Option<String>,
    failures: Bucket,
}

/// What tells one content of a file from the next, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Client {
    /// Reads the secret.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub(super) fn new(config: &OauthClient) -> Result<Self, SecretError> {
        let stamp = stamp(&config.secret);
        let secret = read(&config.secret)?;
        Ok(Self {
            id: sha256(config.id.as_bytes()),
            secret: config.secret.clone(),
            state: Mutex::new(State {
                secret,
                stamp,
                trouble: None,
                failures: Bucket::new(Instant::now()),
            }),
        })
    }

    /// Whether these are the client's credentials. Takes as long whichever part is wrong.
    pub(super) fn verify(&self, presented: &Credentials, now: Instant) -> Verdict {
        let mut state = lock(&self.state);
        self.follow(&mut state);
        let id = is_one_of(&presented.id, &self.id);
        let secret = is_one_of(&presented.secret, &state.secret);
        match id & secret {
            true => Verdict::Known,
            false if state.failures.take(now) => Verdict::Unknown,
            false => Verdict::TooMany,
        }
    }

    /// The file's secret, where the file is another. One that is of no use leaves the last good one in force.
    fn follow(&self, state: &mut State) {
        let stamp = stamp(&self.secret);
        if stamp.is_some() && stamp == state.stamp {
            return;
        }
        let trouble = match read(&self.secret) {
            Ok(secret) => {
                if state.secret.as_ref() != secret.as_ref() {
                    tracing::info!("local.oauth has another client secret");
                }
                state.secret = secret;
                None
            }
            Err(why) => Some(why.to_string()),
        };
        if let Some(why) = &trouble
            && state.trouble.as_ref() != Some(why)
        {
            tracing::error!(%why, "the last good client secret stays in force");
        }
        state.trouble = trouble;
        state.stamp = stamp;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

fn read(secret: &SecretFile) -> Result<Digest, SecretError> {
    let secret = secret.read()?;
    let bytes = secret.expose().as_bytes();
    match bytes.len() {
        short if short < MIN_SECRET => Err(SecretError::Short(short)),
        _ => Ok(sha256(bytes)),
    }
}

fn stamp(secret: &SecretFile) -> Option<Stamp> {
    let SecretFile(path) = secret;
    let metadata = fs::metadata::<&Path>(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Digests are of one length, so that how long this takes says nothing of the secret's.
fn is_one_of(presented: &Spelled, known: &Digest) -> bool {
    let is = |text: &Option<warifu::Secret<String>>| {
        let text = text.as_ref().map_or("", |text| text.expose().as_str());
        verify_slices_are_equal(sha256(text.as_bytes()).as_ref(), known.as_ref()).is_ok()
    };
    is(&presented.decoded) | is(&presented.as_is)
}

fn sha256(bytes: &[u8]) -> Digest {
    digest(&SHA256, bytes)
}

/// Nothing panics while it holds this, and if something did, the data would be whole.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use warifu::Secret;

    use super::*;
    use crate::local::bucket::{BURST, EVERY};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn client(dir: &Path, secret: &str) -> Result<Client, SecretError> {
        let file = dir.join("secret");
        fs::write(&file, secret).unwrap();
        Client::new(&OauthClient {
            id: "app".into(),
            secret: SecretFile(file),
        })
    }

    fn credentials(id: &str, secret: &str) -> Credentials {
        let spelled = |text: &str| Spelled {
            decoded: Some(Secret::new(text.to_owned())),
            as_is: None,
        };
        Credentials {
            id: spelled(id),
            secret: spelled(secret),
        }
    }

    #[test]
    fn s20_both_id_and_secret_must_be_the_clients() {
        let dir = tempfile::tempdir().unwrap();
        let client = client(dir.path(), &format!("{SECRET}\n")).unwrap();
        let verify =
            |id: &str, secret: &str| client.verify(&credentials(id, secret), Instant::now());
        assert_eq!(verify("app", SECRET), Verdict::Known);
        for (id, secret) in [
            ("app", ""),
            ("", SECRET),
            ("other", SECRET),
            ("app", &SECRET[1..]),
            ("app", &format!("{SECRET}\n")),
            ("app", &SECRET.to_uppercase()),
        ] {
            assert_eq!(verify(id, secret), Verdict::Unknown, "{id} {secret}");
        }
        let either = Credentials {
            id: credentials("app", "").id,
            secret: Spelled {
                decoded: None,
                as_is: Some(Secret::new(SECRET.to_owned())),
            },
        };
        assert_eq!(client.verify(&either, Instant::now()), Verdict::Known);
    }

    #[test]
    fn a_secret_that_is_rotated_serves_at_once_and_one_of_no_use_leaves_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let client = client(dir.path(), SECRET).unwrap();
        let verify = |secret: &str| client.verify(&credentials("app", secret), Instant::now());
        let replace = |secret: &str| {
            let new = dir.path().join("new");
            fs::write(&new, secret).unwrap();
            fs::rename(&new, dir.path().join("secret")).unwrap();
        };
        let next = SECRET.to_uppercase();
        replace(&next);
        assert_eq!(verify(&next), Verdict::Known);
        assert_eq!(verify(SECRET), Verdict::Unknown);
        replace("short");
        assert_eq!(verify(&next), Verdict::Known);
        assert_eq!(verify("short"), Verdict::Unknown);
        fs::remove_file(dir.path().join("secret")).unwrap();
        assert_eq!(verify(&next), Verdict::Known);
        replace(SECRET);
        assert_eq!(verify(SECRET), Verdict::Known);
    }

    #[test]
    fn s12_a_short_or_missing_secret_is_refused_at_start_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let short = client(dir.path(), "hunter2").unwrap_err().to_string();
        assert!(short.contains("7 bytes") && short.contains("32"), "{short}");
        assert!(!short.contains("hunter2"));
        let missing = Client::new(&OauthClient {
            id: "app".into(),
            secret: SecretFile(dir.path().join("none")),
        });
        assert!(missing.unwrap_err().to_string().contains("must exist"));
        let shown = format!("{:?}", client(dir.path(), SECRET).unwrap());
        assert!(!shown.contains(SECRET), "{shown}");
    }

    #[test]
    fn s14_who_guesses_is_slowed_down_and_the_client_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let client = client(dir.path(), SECRET).unwrap();
        let start = Instant::now();
        let guess = |at| client.verify(&credentials("app", "guess"), at);
        for _ in 0..BURST {
            assert_eq!(guess(start), Verdict::Unknown);
        }
        assert_eq!(guess(start), Verdict::TooMany);
        let right = client.verify(&credentials("app", SECRET), start);
        assert_eq!(right, Verdict::Known);
        assert_eq!(guess(start + EVERY), Verdict::Unknown);
        assert_eq!(guess(start + EVERY), Verdict::TooMany);
    }
}

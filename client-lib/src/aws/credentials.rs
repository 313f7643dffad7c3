//! The keys of a role's session, from wherever the program has them.

use std::{env, fmt, future::Future, pin::Pin, sync::Arc, time::SystemTime};

use thiserror::Error;

use crate::Secret;

/// Keys of a role's session. `Debug` shows the access key id alone.
#[derive(Clone)]
pub struct SessionKeys {
    /// `ASIA…`.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: Secret<String>,
    /// The session token: a role has one always. Long-term keys of a user have none, and prove no role.
    pub session_token: Secret<String>,
    /// When they end, where that is known. A token of AWS's lives no longer.
    pub expires_at: Option<SystemTime>,
}

/// Gives the keys of a role's session.
///
/// It is asked whenever a token is due, every few minutes, and must answer in bounded time with keys that are good now.
/// Where the program has `aws-config`, its `SharedCredentialsProvider` is that (docs/client-library.md has the dozen lines).
pub trait Credentials: fmt::Debug + Send + Sync + 'static {
    /// The keys as they are now.
    fn keys(&self) -> Obtaining<'_>;
}

/// Keys to come.
pub type Obtaining<'a> =
    Pin<Box<dyn Future<Output = Result<SessionKeys, CredentialsError>> + Send + 'a>>;

/// Why there are no keys. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct CredentialsError(Arc<str>);

impl CredentialsError {
    /// What failed, and what to do. It goes into errors and logs: no secrets.
    pub fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string().into())
    }
}

/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, as AWS Lambda sets them. They are read anew each
/// time. On ECS, EKS and EC2 keys are not in the environment: use `aws-config`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Environment;

impl Credentials for Environment {
    fn keys(&self) -> Obtaining<'_> {
        Box::pin(async { from(|name| env::var(name).ok()) })
    }
}

fn from(variable: impl Fn(&str) -> Option<String>) -> Result<SessionKeys, CredentialsError> {
    let get = |name: &str| {
        let value = variable(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| {
            CredentialsError::new(match name {
                "AWS_SESSION_TOKEN" => {
                    "AWS_SESSION_TOKEN is not set, so the keys in the environment are long-term keys of a user: only a \
                     role's session proves a role"
                        .to_owned()
                }
                name => format!(
                    "{name} is not set; Lambda sets it, elsewhere give the role's keys by `Role::new`"
                ),
            })
        })
    };
    Ok(SessionKeys {
        access_key_id: get("AWS_ACCESS_KEY_ID")?,
        secret_access_key: Secret::new(get("AWS_SECRET_ACCESS_KEY")?),
        session_token: Secret::new(get("AWS_SESSION_TOKEN")?),
        expires_at: None,
    })
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKeys")
            .field("access_key_id", &self.access_key_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(set: &'static [(&str, &str)]) -> Result<SessionKeys, CredentialsError> {
        from(|name| {
            let found = set.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ALL: &[(&str, &str)] = &[
        ("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_SESSION_TOKEN", "session"),
    ];

    #[test]
    fn s12_keys_show_their_id_alone() {
        let keys = environment(ALL).unwrap();
        let shown = format!("{keys:?}");
        assert!(shown.contains("ASIAEXAMPLE"), "{shown}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("\"session\""),
            "{shown}"
        );
    }

    #[test]
    fn what_is_missing_in_the_environment_is_named() {
        let why = environment(&[]).unwrap_err().to_string();
        assert!(why.contains("AWS_ACCESS_KEY_ID is not set"), "{why}");
        let why = environment(&ALL[..1]).unwrap_err().to_string();
        assert!(why.contains("AWS_SECRET_ACCESS_KEY is not set"), "{why}");
        let why = environment(&ALL[..2]).unwrap_err().to_string();
        assert!(why.contains("long-term keys of a user"), "{why}");
    }
}

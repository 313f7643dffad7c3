//! Credentials of role sessions for the app itself: given as they are, and kept well ahead of their expiry.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use thiserror::Error;
use warifu::Secret;

use super::{RoleSession, Roles, cache::Held, error::CredentialsError};

/// What is given away has at least this long to live while STS answers: the SDKs begin to ask for more 15 minutes
/// before the end (botocore; from 10 on each call of it waits for that), 5 minutes before (Go, JavaScript), or
/// 10 seconds before (Rust). What lives shorter than 27 minutes is renewed after a quarter of its life.
pub(super) const AHEAD: Duration = Duration::from_secs(20 * 60);

/// Credentials of a role session. Its secrets show nowhere but where they are asked for.
#[derive(Debug)]
pub struct SessionCredentials {
    /// The role's ARN.
    pub role: String,
    /// Access key id: a name, no secret.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: Secret<String>,
    /// Session token.
    pub session_token: Secret<String>,
    /// When they were obtained, by AWS's clock.
    pub obtained: SystemTime,
    /// When they expire, by AWS's clock.
    pub expires: SystemTime,
}

/// Why there are no credentials to give.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NotGiven {
    /// AWS decided: asking again changes nothing until someone changes something.
    #[error("{0}")]
    Refused(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
}

impl Roles {
    /// Credentials of `session` that are valid now: at once where there are any; else within `patience`, or not.
    /// Obtaining them goes on whoever stops waiting.
    ///
    /// # Errors
    /// See [`NotGiven`].
    pub async fn give(
        &self,
        session: &RoleSession,
        patience: Duration,
    ) -> Result<SessionCredentials, NotGiven> {
        let cache = self.credentials(session);
        let held = match cache.valid() {
            Some(held) => held,
            None => match tokio::time::timeout(patience, cache.get()).await {
                Ok(held) => held.map_err(|why| NotGiven::because(&why))?,
                Err(_) => {
                    let why = format!(
                        "the first credentials for {} are still being obtained from STS",
                        session.role()
                    );
                    // What went wrong before says more than that it is tried again.
                    let last = cache.status().last_error;
                    return Err(NotGiven::Unavailable(last.unwrap_or(why)));
                }
            },
        };
        SessionCredentials::of(session, &held)
    }

    /// Keeps the credentials of `session` fresh whether or not anybody asks: what [`Roles::give`] gives has 20
    /// minutes to live or, of a short session, three quarters of its life, while STS answers. Ends when dropped.
    pub async fn keep_fresh(&self, session: RoleSession) -> Infallible {
        self.credentials(&session).keep_fresh(AHEAD).await
    }
}

impl NotGiven {
    fn because(why: &CredentialsError) -> Self {
        match why.is_refusal() {
            true => Self::Refused(why.to_string()),
            false => Self::Unavailable(why.to_string()),
        }
    }
}

impl SessionCredentials {
    fn of(session: &RoleSession, held: &Held) -> Result<Self, NotGiven> {
        let keys = &held.credentials;
        let (Some(token), Some(expires)) = (keys.session_token(), keys.expiry()) else {
            let why = format!("STS gave no session of {}", session.role());
            return Err(NotGiven::Unavailable(why));
        };
        Ok(Self {
            role: session.role().to_owned(),
            access_key_id: keys.access_key_id().to_owned(),
            secret_access_key: Secret::new(keys.secret_access_key().to_owned()),
            session_token: Secret::new(token.to_owned()),
            obtained: held.obtained(),
            expires,
        })
    }
}

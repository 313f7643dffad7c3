//! Role sessions as the configuration names them: checked before any call is made.

use std::time::Duration;

use thiserror::Error;
use warifu::SpiffeId;

/// Everything that distinguishes a role session; its credentials are cached by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoleSession {
    pub(super) role: String,
    pub(super) session_name: String,
    pub(super) external_id: Option<String>,
    pub(super) duration: Duration,
}

/// What is wrong with the AWS part of a configuration, found before any request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}: {expected}")]
pub struct SetupError {
    what: String,
    expected: String,
}

impl SetupError {
    pub(super) fn new(what: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            expected: expected.into(),
        }
    }
}

impl RoleSession {
    /// A session of `role` (an ARN) named `session_name`.
    ///
    /// # Errors
    /// When a value is outside what
    /// [AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html) takes.
    pub fn new(
        role: &str,
        session_name: &str,
        external_id: Option<&str>,
        duration: Duration,
    ) -> Result<Self, SetupError> {
        if !is_role_arn(role) {
            return Err(SetupError::new(
                format!("role {role:?}"),
                "expected arn:aws:iam::ACCOUNT:role/NAME",
            ));
        }
        let name_char = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if !(2..=64).contains(&session_name.len()) || !session_name.chars().all(name_char) {
            return Err(SetupError::new(
                format!("session_name {session_name:?}"),
                "expected 2 to 64 characters of letters, digits and _+=,.@-",
            ));
        }
        let id_char = |c: char| c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c);
        if external_id.is_some_and(|id| !(2..=1224).contains(&id.len()) || !id.chars().all(id_char))
        {
            return Err(SetupError::new(
                "external_id",
                "expected 2 to 1224 characters of letters, digits and _+=,.@:/-",
            ));
        }
        if !(900..=43_200).contains(&duration.as_secs()) {
            return Err(SetupError::new(
                format!("duration {duration:?}"),
                "expected 15m to 12h",
            ));
        }
        Ok(Self {
            role: role.to_owned(),
            session_name: session_name.to_owned(),
            external_id: external_id.map(str::to_owned),
            duration: Duration::from_secs(duration.as_secs()),
        })
    }
}

/// A role session's name: the one given; else after the workload, once that has an identity. It shows in CloudTrail;
/// it is a label, never an identity.
pub fn session_name(given: Option<&str>, id: Option<&SpiffeId>) -> Option<String> {
    given.map(str::to_owned).or_else(|| id.map(name_after))
}

/// A SPIFFE ID's path, as far as STS's 64 characters allow (`spiffe://example.org/shop/orders` → `shop.orders`).
fn name_after(id: &SpiffeId) -> String {
    let allowed = |c: char| match c {
        c if c.is_ascii_alphanumeric() || "_-.".contains(c) => c,
        _ => '.',
    };
    let path = id.path().trim_start_matches('/');
    let name: String = path.chars().map(allowed).take(64).collect();
    if name.len() < 2 {
        format!("warifu-{name}")
    } else {
        name
    }
}

/// `arn:PARTITION:iam::12 DIGITS:role/…`
fn is_role_arn(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    next() == "arn"
        && next().starts_with("aws")
        && next() == "iam"
        && next().is_empty()
        && {
            let account = next();
            account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())
        }
        && next()
            .strip_prefix("role/")
            .is_some_and(|name| !name.is_empty() && !name.contains(|c: char| c.is_whitespace()))
}

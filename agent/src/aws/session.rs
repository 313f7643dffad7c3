//! Role sessions as the configuration names them: made before any call is.

use std::{path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;
use warifu::SpiffeId;

use crate::config::{
    aws::{Aws, AwsRole, RoleFrom, WebIdentity},
    value::{MAX_TAG_VALUE, RoleRef, SessionTemplate},
};

/// Roles in a chain. The file's own check refuses circles; a longer chain than this is one.
const MAX_CHAIN: usize = 16;

/// Everything that distinguishes a role session; its credentials are cached by it. Cheap to clone.
///
/// The region is not in it: the [`Roles`](super::Roles) of one agent ask for sessions in one region, and where it
/// fails elsewhere; sessions are good in all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoleSession(Arc<Parameters>);

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Parameters {
    /// Its ARN.
    pub(super) role: String,
    pub(super) session_name: String,
    pub(super) from: From,
    pub(super) external_id: Option<String>,
    pub(super) source_identity: Option<String>,
    /// In order of their keys.
    pub(super) tags: Vec<(String, String)>,
    pub(super) transitive_tags: Vec<String>,
    pub(super) policy: Option<String>,
    pub(super) policy_arns: Vec<String>,
    pub(super) duration: Duration,
}

/// What it is assumed with.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum From {
    Base,
    Role(RoleSession),
    /// A token from a file.
    File(PathBuf),
    /// A JWT-SVID for this audience.
    Audience(String),
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

/// Why there is no such role session.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Its name or a tag takes the workload's SPIFFE ID.
    #[error("this agent has no identity yet, and the role session is named after it")]
    NoIdentity,
    /// It can't be what the configuration says.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

impl RoleSession {
    /// The session of `role`, an ARN or one of `settings.roles`, for this workload.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub(super) fn new(
        settings: &Aws,
        role: &RoleRef,
        workload: Option<&SpiffeId>,
    ) -> Result<Self, SessionError> {
        match role {
            RoleRef::Arn(arn) => Self::of(settings, &AwsRole::plain(arn), workload, 0),
            RoleRef::Name(name) => Self::named(settings, name, workload, 0),
        }
    }

    fn named(
        settings: &Aws,
        name: &str,
        workload: Option<&SpiffeId>,
        depth: usize,
    ) -> Result<Self, SessionError> {
        let role = settings.roles.get(name).ok_or_else(|| {
            SetupError::new(
                format!("role {name:?}"),
                "expected an ARN or one of aws.roles",
            )
        })?;
        Self::of(settings, role, workload, depth)
    }

    fn of(
        settings: &Aws,
        role: &AwsRole,
        workload: Option<&SpiffeId>,
        depth: usize,
    ) -> Result<Self, SessionError> {
        if depth >= MAX_CHAIN {
            let chain = format!("roles that are assumed with {}", role.arn);
            let most = format!("expected a chain of at most {MAX_CHAIN}");
            return Err(SetupError::new(chain, most).into());
        }
        let from = match &role.from {
            RoleFrom::Base => From::Base,
            RoleFrom::Role(name) => From::Role(Self::named(settings, name, workload, depth + 1)?),
            RoleFrom::WebIdentity(WebIdentity::TokenFile(file)) => From::File(file.clone()),
            RoleFrom::WebIdentity(WebIdentity::Audience(it)) => From::Audience(it.clone()),
        };
        let fill = |template: &SessionTemplate| {
            let filled = template.fill(workload);
            filled.ok_or(SessionError::NoIdentity)
        };
        let session_name = match &role.session_name {
            Some(template) => fill(template)?,
            None => fill(&SessionTemplate::path())?,
        };
        let source_identity = role.source_identity.as_ref().map(fill).transpose()?;
        let tags = role.tags.iter().map(|(key, value)| {
            let value = value.fill(workload).ok_or(SessionError::NoIdentity)?;
            let length = value.chars().count();
            if length > MAX_TAG_VALUE {
                let tag = format!("tag {key:?} of {}, filled in", role.arn);
                let most = format!("expected at most {MAX_TAG_VALUE} characters, found {length}");
                return Err(SetupError::new(tag, most).into());
            }
            Ok((key.clone(), value))
        });
        Ok(Self(Arc::new(Parameters {
            role: role.arn.clone(),
            session_name,
            from,
            external_id: role.external_id.clone(),
            source_identity,
            tags: tags.collect::<Result<_, SessionError>>()?,
            transitive_tags: role.transitive_tags.clone(),
            policy: role.policy.as_ref().map(|it| it.as_str().to_owned()),
            policy_arns: role.policy_arns.clone(),
            // Whole seconds are what STS takes.
            duration: Duration::from_secs(role.duration.0.as_secs()),
        })))
    }

    /// The role's ARN.
    pub fn role(&self) -> &str {
        &self.0.role
    }

    pub(super) fn parameters(&self) -> &Parameters {
        &self.0
    }
}

//! Where credentials come from: the base ones from the SDK's default chain, role sessions from STS.

use std::{fmt, future::Future, path::Path, pin::Pin, sync::Weak, time::SystemTime};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use aws_sdk_sts::{
    error::SdkError,
    types::{Credentials as Given, PolicyDescriptorType, Tag},
};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::ConnectorError};
use warifu::Secret;

use super::{
    cache::Cache,
    clock::Clock,
    error::{Action, CredentialsError},
    session::{Parameters, RoleSession},
    sts::SignedSts,
};
use crate::config::value::SecretFile;

const BASE: &str = "the base credentials";

/// Tokens of whoever issues this workload's identity, for AssumeRoleWithWebIdentity.
pub trait IdentityTokens: fmt::Debug + Send + Sync + 'static {
    /// A token for `audience`, valid now.
    ///
    /// # Errors
    /// Why there is none.
    fn token<'a>(
        &'a self,
        audience: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Secret<String>, String>> + Send + 'a>>;
}

/// Where credentials come from.
pub(super) enum Source {
    /// The default chain, or whatever stands for it.
    Base(SharedCredentialsProvider),
    /// `AssumeRole`, signed with `signer`'s credentials.
    Role {
        session: RoleSession,
        signer: Cache,
        sts: SignedSts,
        clock: Clock,
    },
    /// `AssumeRoleWithWebIdentity`, which is not signed.
    Token {
        session: RoleSession,
        token: Token,
        sts: SignedSts,
        clock: Clock,
    },
}

/// Where its token comes from.
pub(super) enum Token {
    File(SecretFile),
    Issued {
        tokens: Weak<dyn IdentityTokens>,
        audience: String,
    },
    /// This process has none: it is no agent.
    Nobody,
}

impl Source {
    /// Whose credentials these are: a role's ARN, or [`BASE`], and the session's name.
    pub(super) fn names(&self) -> (String, Option<String>) {
        match self {
            Self::Base(_) => (BASE.to_owned(), None),
            Self::Role { session, .. } | Self::Token { session, .. } => {
                let it = session.parameters();
                (it.role.clone(), Some(it.session_name.clone()))
            }
        }
    }

    pub(super) async fn load(&self) -> Result<Credentials, CredentialsError> {
        match self {
            Self::Base(provider) => provider
                .provide_credentials()
                .await
                .map_err(|error| CredentialsError::no_base(&error)),
            Self::Role {
                session,
                signer,
                sts,
                clock,
            } => assume(session.parameters(), signer, sts, clock).await,
            Self::Token {
                session,
                token,
                sts,
                clock,
            } => exchange(session.parameters(), token, sts, clock).await,
        }
    }
}

async fn assume(
    session: &Parameters,
    signer: &Cache,
    sts: &SignedSts,
    clock: &Clock,
) -> Result<Credentials, CredentialsError> {
    const ACTION: Action = Action::AssumeRole;
    // Asked for here, not left to the SDK, which would wrap the error beyond recognition.
    let held = signer
        .get()
        .await
        .map_err(|error| CredentialsError::for_role(&session.role, &error))?;
    let tags = tags(&session.tags);
    let given = sts.ask(|sts| {
        let asking = sts
            .assume_role()
            .role_arn(&session.role)
            .role_session_name(&session.session_name)
            .duration_seconds(seconds(session))
            .set_external_id(session.external_id.clone())
            .set_source_identity(session.source_identity.clone())
            .set_tags(some(tags.clone()))
            .set_transitive_tag_keys(some(session.transitive_tags.clone()))
            .set_policy(session.policy.clone())
            .set_policy_arns(some(policies(session)))
            .send();
        async move { whole(asking.await?.credentials, ACTION).ok_or_else(broken) }
    });
    given.await.map_err(|failed| {
        let keys = &held.credentials;
        let secrets = [
            keys.secret_access_key(),
            keys.session_token().unwrap_or_default(),
        ];
        let error = CredentialsError::of_sts(ACTION, session, &failed, clock.skew(), &secrets);
        if let CredentialsError::Refused {
            bad_signer: true, ..
        } = error
        {
            signer.doubt(&held);
        }
        error
    })
}

async fn exchange(
    session: &Parameters,
    token: &Token,
    sts: &SignedSts,
    clock: &Clock,
) -> Result<Credentials, CredentialsError> {
    const ACTION: Action = Action::AssumeRoleWithWebIdentity;
    let token = token
        .read()
        .await
        .map_err(|why| CredentialsError::no_token(&session.role, &why))?;
    let given = sts.ask(|sts| {
        let asking = sts
            .assume_role_with_web_identity()
            .role_arn(&session.role)
            .role_session_name(&session.session_name)
            .web_identity_token(token.expose())
            .duration_seconds(seconds(session))
            .set_policy(session.policy.clone())
            .set_policy_arns(some(policies(session)))
            .send();
        async move { whole(asking.await?.credentials, ACTION).ok_or_else(broken) }
    });
    given.await.map_err(|failed| {
        let secrets = [token.expose().as_str()];
        CredentialsError::of_sts(ACTION, session, &failed, clock.skew(), &secrets)
    })
}

impl Token {
    pub(super) fn file(path: &Path) -> Self {
        Self::File(SecretFile(path.to_owned()))
    }

    async fn read(&self) -> Result<Secret<String>, String> {
        match self {
            // A few KiB, once in the life of a session: kubelet has rotated it since.
            Self::File(file) => file.read().map_err(|why| why.to_string()),
            Self::Issued { tokens, audience } => match tokens.upgrade() {
                Some(tokens) => tokens.token(audience).await,
                None => Err("this agent is ending".to_owned()),
            },
            Self::Nobody => Err("only an agent has JWT-SVIDs to present".to_owned()),
        }
    }
}

fn seconds(session: &Parameters) -> i32 {
    i32::try_from(session.duration.as_secs()).unwrap_or(i32::MAX)
}

/// The SDK sends an empty list as a parameter of its own.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn tags(tags: &[(String, String)]) -> Vec<Tag> {
    let tag = |(key, value): &(String, String)| Tag::builder().key(key).value(value).build();
    // Only a tag without key or value can't be built.
    tags.iter().filter_map(|it| tag(it).ok()).collect()
}

fn policies(session: &Parameters) -> Vec<PolicyDescriptorType> {
    let policy = |arn: &String| PolicyDescriptorType::builder().arn(arn).build();
    session.policy_arns.iter().map(policy).collect()
}

/// What STS gave, if it is whole: of half an answer the SDK makes empty texts and the year 1970.
fn whole(given: Option<Given>, action: Action) -> Option<Credentials> {
    let given = given?;
    let expires = SystemTime::try_from(given.expiration).ok()?;
    let texts = [
        &given.access_key_id,
        &given.secret_access_key,
        &given.session_token,
    ];
    let is_whole = texts.iter().all(|text| !text.is_empty()) && expires != SystemTime::UNIX_EPOCH;
    is_whole.then(|| {
        Credentials::new(
            given.access_key_id,
            given.secret_access_key,
            Some(given.session_token),
            Some(expires),
            action.name(),
        )
    })
}

/// Half an answer decides nothing, as none does.
fn broken<E>() -> SdkError<E, HttpResponse> {
    let why = "the answer has no whole credentials";
    SdkError::dispatch_failure(ConnectorError::io(why.into()))
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base(_) => "Base",
            Self::Role { .. } => "Role",
            Self::Token { .. } => "Token",
        })
    }
}

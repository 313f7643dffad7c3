//! Why there are no credentials: what was asked, of whom, what it answered, what to do.

use std::{error::Error, time::Duration};

use aws_credential_types::provider::error::CredentialsError as ProviderError;
use aws_sdk_sts::error::SdkError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use thiserror::Error;

use super::{
    clock::Skew,
    session::{From, Parameters},
    sts::Failed,
};

/// As much of an answer's message as is repeated. AWS's own are shorter; after a line break,
/// `SignatureDoesNotMatch` quotes the whole request, session token included.
const SHOWN: usize = 400;

/// STS's way of saying "not now", in a 400.
const BUSY: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "SlowDown",
    "PriorRequestNotComplete",
    "RequestTimeout",
    "RequestTimeoutException",
    "InternalError",
    "InternalFailure",
    "ServiceUnavailable",
    // STS could not fetch the keys of the token's issuer, as yet.
    "IDPCommunicationError",
];

/// Whether STS's error code says "not now".
pub fn is_busy(code: &str) -> bool {
    BUSY.contains(&code)
}

/// STS does not accept the credentials the request was signed with.
pub(super) const BAD_BASE: &[&str] = &[
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "MissingAuthenticationToken",
];

/// What STS is asked for a role session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    AssumeRole,
    AssumeRoleWithWebIdentity,
}

impl Action {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AssumeRole => "AssumeRole",
            Self::AssumeRoleWithWebIdentity => "AssumeRoleWithWebIdentity",
        }
    }
}

/// Why credentials can't be had.
#[derive(Debug, Error)]
pub(super) enum CredentialsError {
    /// STS decided; asking again changes nothing until someone changes something.
    #[error("STS refused {} for {role}: {code}: {message}. {advice}", .action.name())]
    Refused {
        action: Action,
        role: String,
        code: String,
        message: String,
        advice: String,
        /// The credentials that signed the request were not accepted.
        bad_signer: bool,
    },
    /// STS did not decide.
    #[error("{} for {role} failed: {why}. {advice}", .action.name())]
    Unavailable {
        action: Action,
        role: String,
        why: String,
        advice: String,
    },
    /// Nothing to sign the request to STS with.
    #[error("no base credentials: {why}. {advice}")]
    NoBase {
        why: String,
        advice: &'static str,
        refused: bool,
    },
    /// Neither an answer nor an error.
    #[error("renewing {name}: {why}")]
    Renewal { name: String, why: String },
    /// What it is assumed with failed, so it did.
    #[error("AssumeRole for {role} was not tried: {why}")]
    Signer {
        role: String,
        why: String,
        refused: bool,
    },
    /// There is no token to present.
    #[error("AssumeRoleWithWebIdentity for {role} was not tried: {why}")]
    NoToken { role: String, why: String },
}

impl CredentialsError {
    /// Whether asking again soon is pointless.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::NoBase { refused, .. } | Self::Signer { refused, .. } => *refused,
            Self::Unavailable { .. } | Self::Renewal { .. } | Self::NoToken { .. } => false,
        }
    }

    pub(super) fn timed_out(name: &str, after: Duration) -> Self {
        Self::Renewal {
            name: name.to_owned(),
            why: format!("no answer within {after:?}; is the STS endpoint reachable from here?"),
        }
    }

    pub(super) fn interrupted(name: &str) -> Self {
        Self::Renewal {
            name: name.to_owned(),
            why: "it was interrupted".to_owned(),
        }
    }

    pub(super) fn born_expired(name: &str) -> Self {
        Self::Renewal {
            name: name.to_owned(),
            why: "the credentials obtained have expired already; check this machine's clock"
                .to_owned(),
        }
    }

    /// `why` there is no token to assume `role` with.
    pub(super) fn no_token(role: &str, why: &str) -> Self {
        Self::NoToken {
            role: role.to_owned(),
            why: why.to_owned(),
        }
    }

    /// `error` is why there are no credentials to assume `role` with.
    pub(super) fn for_role(role: &str, error: &Self) -> Self {
        Self::Signer {
            role: role.to_owned(),
            why: error.to_string(),
            refused: error.is_refusal(),
        }
    }

    /// The chain that provides the base credentials failed.
    pub(super) fn no_base(error: &ProviderError) -> Self {
        let (refused, advice) = match error {
            ProviderError::CredentialsNotLoaded(_) => (
                true,
                "Looked at the environment, profile, web identity token, container and instance \
                 metadata: give this agent a role (EKS: Pod Identity or IRSA; ECS: a task role), \
                 or set AWS_PROFILE",
            ),
            ProviderError::InvalidConfiguration(_) => {
                (true, "Correct the AWS_* variables or the profile file")
            }
            _ => (
                false,
                "It is tried again; check that the credential service is reachable",
            ),
        };
        Self::NoBase {
            why: chain(error),
            advice,
            refused,
        }
    }

    /// `secrets` are removed from what STS said, should it have repeated them.
    pub(super) fn of_sts<E>(
        action: Action,
        session: &Parameters,
        failed: &Failed<E>,
        skew: Option<Skew>,
        secrets: &[&str],
    ) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let role = session.role.clone();
        let clock = skew.map(|skew| format!("Check the clock: {skew}"));
        let unavailable = |why: String, advice: String| {
            let before = failed.before.iter();
            let before = before
                .map(|(place, error)| format!("{place}: {}, then ", undecided(error, secrets)));
            Self::Unavailable {
                action,
                role: role.clone(),
                why: format!("{}{why}", before.collect::<String>()),
                advice,
            }
        };
        let why = || undecided(&failed.last, secrets);
        let SdkError::ServiceError(answer) = &failed.last else {
            let reach =
                "Is the STS endpoint (aws.sts_endpoint, or the region's) reachable from here?";
            return unavailable(why(), clock.unwrap_or_else(|| reach.to_owned()));
        };
        let status = answer.raw().status().as_u16();
        let Some(code) = answer.err().code().filter(|_| status >= 400) else {
            let is_it = "Is what answers there (aws.sts_endpoint) an STS? It is tried again";
            return unavailable(why(), is_it.to_owned());
        };
        if status >= 500 || status == 429 || is_busy(code) {
            return unavailable(why(), "It is tried again".to_owned());
        }
        let message = scrub(answer.err().message().unwrap_or_default(), secrets);
        let bad_signer = action == Action::AssumeRole && BAD_BASE.contains(&code);
        let advice = match (clock, &session.from) {
            (Some(clock), _) if bad_signer || code == "RequestTimeTooSkewed" => clock,
            (_, From::Role(before)) if bad_signer => format!(
                "The session of {} that it is assumed with is not accepted by STS: it is renewed",
                before.role()
            ),
            _ if bad_signer => {
                "The base credentials this agent runs with are not accepted by STS: are they \
                 current, and of this partition?"
                    .to_owned()
            }
            _ => advice(action, session, code, &message),
        };
        Self::Refused {
            action,
            code: code.to_owned(),
            role,
            message,
            advice,
            bad_signer,
        }
    }
}

/// What came of a call that decided nothing.
fn undecided<E>(error: &SdkError<E, HttpResponse>, secrets: &[&str]) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let SdkError::ServiceError(answer) = error else {
        return scrub(&chain(error), secrets);
    };
    let status = answer.raw().status().as_u16();
    match answer.err().code() {
        Some(code) => {
            let message = scrub(answer.err().message().unwrap_or_default(), secrets);
            format!("STS answered {status} {code}: {message}")
        }
        None => format!("the answer, {status}, is none of STS's, or not whole"),
    }
}

fn advice(action: Action, session: &Parameters, code: &str, message: &str) -> String {
    let role = &session.role;
    match (action, code) {
        (Action::AssumeRole, "AccessDenied" | "AccessDeniedException") => {
            let who = principal(message).unwrap_or("this agent's base identity");
            let mut actions = vec!["sts:AssumeRole"];
            if !session.tags.is_empty() {
                actions.push("sts:TagSession");
            }
            if session.source_identity.is_some() {
                actions.push("sts:SetSourceIdentity");
            }
            let actions = actions.join(", ");
            format!(
                "The trust policy of {role} must allow {actions} for {who} (and its conditions, on sts:ExternalId \
                 say, must hold for what aws.roles says of the role: external_id, source_identity, tags), and the \
                 policies of {who} must allow {actions} on the role"
            )
        }
        (Action::AssumeRoleWithWebIdentity, "AccessDenied" | "AccessDeniedException") => format!(
            "The trust policy of {role} must allow sts:AssumeRoleWithWebIdentity for the token's issuer as \
             Federated principal, and its conditions on the token's aud and sub must hold"
        ),
        (_, "InvalidIdentityToken" | "IDPRejectedClaim" | "ExpiredTokenException" | "ExpiredToken") => format!(
            "An IAM OIDC provider for the token's issuer must exist in the account of {role}, know its keys, and list \
             the token's audience; is the token current?"
        ),
        (_, "ValidationError") if message.contains("DurationSeconds") => {
            "Set the role's duration in aws.roles to at most its maximum session duration, and to at most 1h where it \
             is assumed with a role's session, as base credentials usually are (role chaining)"
                .to_owned()
        }
        (_, "MalformedPolicyDocument") => "Correct the role's policy in aws.roles".to_owned(),
        (_, "PackedPolicyTooLarge") => {
            "AWS packs session policies and tags together, and they are too large: use fewer or shorter ones".to_owned()
        }
        (_, "RegionDisabledException") => {
            "Activate STS for this region in the account, or set aws.region to another".to_owned()
        }
        (_, "NoSuchEntity") => format!("Does {role} exist?"),
        _ => "Correct what aws.roles says of the role".to_owned(),
    }
}

/// Who STS says we are: `User: arn:… is not authorized …`.
fn principal(message: &str) -> Option<&str> {
    let who = message.split("User: ").nth(1)?.split(' ').next()?;
    who.starts_with("arn:").then_some(who)
}

/// The first line of `text`, not too long and without `secrets`.
pub(super) fn scrub(text: &str, secrets: &[&str]) -> String {
    let mut text = text.lines().next().unwrap_or_default().to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "***");
    }
    let text: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect();
    text.trim_end_matches(['.', ' ']).to_owned()
}

/// An error and its causes, without those that only repeat what was said.
pub fn chain(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aws::RoleSession,
        config::{aws::Aws, value::RoleRef},
    };

    #[test]
    fn names_the_principal_sts_names() {
        let role: RoleRef = "arn:aws:iam::123456789012:role/r".parse().unwrap();
        let workload = warifu::SpiffeId::new("spiffe://example.org/orders").unwrap();
        let session = RoleSession::new(&Aws::default(), &role, Some(&workload)).unwrap();
        let message = "User: arn:aws:sts::1:assumed-role/agent/i-1 is not authorized to perform: \
                       sts:AssumeRole on resource: arn:aws:iam::1:role/r";
        let session = session.parameters();
        let advice = advice(Action::AssumeRole, session, "AccessDenied", message);
        assert!(
            advice.contains(
                "The trust policy of arn:aws:iam::123456789012:role/r must allow sts:AssumeRole for \
                 arn:aws:sts::1:assumed-role/agent/i-1 "
            ),
            "{advice}"
        );
        assert_eq!(principal("User: you is not"), None);
        assert_eq!(principal("no"), None);
    }

    #[test]
    fn s12_an_answer_that_quotes_the_request_is_cut_and_scrubbed() {
        let quoted = "token TOKEN does not match.\nx-amz-security-token:TOKEN";
        assert_eq!(scrub(quoted, &["", "TOKEN"]), "token *** does not match");
        assert_eq!(scrub(&"x".repeat(5000), &[]).len(), SHOWN);
    }
}

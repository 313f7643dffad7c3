//! Why there are no credentials: what was asked, of whom, what it answered, what to do.

use std::{error::Error, time::Duration};

use aws_credential_types::provider::error::CredentialsError as ProviderError;
use aws_sdk_sts::{error::SdkError, operation::assume_role::AssumeRoleError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use thiserror::Error;

use super::clock::Skew;

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

/// Why credentials can't be had.
#[derive(Debug, Error)]
pub(super) enum CredentialsError {
    /// STS decided; asking again changes nothing until someone changes something.
    #[error("STS refused AssumeRole for {role}: {code}: {message}. {advice}")]
    Refused {
        role: String,
        code: String,
        message: String,
        advice: String,
        /// The base credentials themselves were not accepted.
        bad_base: bool,
    },
    /// STS did not decide.
    #[error("AssumeRole for {role} failed: {why}. {advice}")]
    Unavailable {
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
    /// The base credentials failed, so the role's did.
    #[error("AssumeRole for {role} was not tried: {why}")]
    Base {
        role: String,
        why: String,
        refused: bool,
    },
}

impl CredentialsError {
    /// Whether asking again soon is pointless.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::NoBase { refused, .. } | Self::Base { refused, .. } => *refused,
            Self::Unavailable { .. } | Self::Renewal { .. } => false,
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

    pub(super) fn no_credentials(role: &str) -> Self {
        Self::Renewal {
            name: role.to_owned(),
            why: "STS answered without usable credentials; is aws.sts_endpoint an STS?".to_owned(),
        }
    }

    /// `error` is why there are no base credentials to assume `role` with.
    pub(super) fn for_role(role: &str, error: &Self) -> Self {
        Self::Base {
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
    pub(super) fn assume_role(
        role: &str,
        error: &SdkError<AssumeRoleError, HttpResponse>,
        skew: Option<Skew>,
        secrets: &[&str],
    ) -> Self {
        let role = role.to_owned();
        let clock = skew.map(|skew| format!("Check the clock: {skew}"));
        let SdkError::ServiceError(answer) = error else {
            let why = scrub(&chain(error), secrets);
            let reach =
                "Is the STS endpoint (aws.sts_endpoint, or the region's) reachable from here?";
            return Self::Unavailable {
                role,
                why,
                advice: clock.unwrap_or_else(|| reach.to_owned()),
            };
        };
        let status = answer.raw().status().as_u16();
        let code = answer.err().code().unwrap_or("without a code").to_owned();
        let message = scrub(answer.err().message().unwrap_or_default(), secrets);
        if status >= 500 || status == 429 || is_busy(&code) {
            return Self::Unavailable {
                role,
                why: format!("STS answered {status} {code}: {message}"),
                advice: "It is tried again".to_owned(),
            };
        }
        let bad_base = BAD_BASE.contains(&code.as_str());
        let advice = match clock {
            Some(clock) if bad_base || code == "RequestTimeTooSkewed" => clock,
            _ if bad_base => {
                "The base credentials this agent runs with are not accepted by STS: are they \
                 current, and of this partition?"
                    .to_owned()
            }
            _ => advice(&role, &code, &message),
        };
        Self::Refused {
            role,
            code,
            message,
            advice,
            bad_base,
        }
    }
}

fn advice(role: &str, code: &str, message: &str) -> String {
    match code {
        "AccessDenied" | "AccessDeniedException" => {
            let who = principal(message).unwrap_or("this agent's base identity");
            format!(
                "The trust policy of {role} must allow sts:AssumeRole for {who} (and its \
                 sts:ExternalId condition, if it has one, must equal the route's external_id), \
                 and the policies of {who} must allow sts:AssumeRole on the role"
            )
        }
        "ValidationError" if message.contains("DurationSeconds") => {
            "Set the route's duration to at most the role's maximum session duration, and to at \
             most 1h where the base credentials are a role session themselves (role chaining)"
                .to_owned()
        }
        "RegionDisabledException" => {
            "Activate STS for this region in the account, or set aws.region to another".to_owned()
        }
        "NoSuchEntity" => format!("Does {role} exist?"),
        _ => "Correct the route's role, external_id, session_name or duration".to_owned(),
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

    #[test]
    fn names_the_principal_sts_names() {
        let message = "User: arn:aws:sts::1:assumed-role/agent/i-1 is not authorized to perform: \
                       sts:AssumeRole on resource: arn:aws:iam::1:role/r";
        let advice = advice("arn:aws:iam::1:role/r", "AccessDenied", message);
        assert!(
            advice.contains(
                "The trust policy of arn:aws:iam::1:role/r must allow sts:AssumeRole for \
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

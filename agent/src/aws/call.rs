//! Why a call of an AWS service failed, for whoever runs us: what was tried, on what, and whose turn it is.

use std::error::Error;

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use thiserror::Error;

use super::error::chain;

/// A call that brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{action} on {resource}: {why}; {next}")]
pub struct ApiError {
    /// As IAM names it, `kms:Sign`.
    action: &'static str,
    resource: String,
    why: String,
    next: &'static str,
    outage: bool,
}

impl ApiError {
    /// What the SDK said of calling `action` (as IAM names it) on `resource` (an ARN, an alias).
    pub fn new<E>(action: &'static str, resource: &str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let code = error.code().filter(|_| error.as_service_error().is_some());
        let (why, refusal) = match code {
            Some(code) => {
                let message = error.message().unwrap_or_default();
                (format!("{code} {message}").trim().to_owned(), refusal(code))
            }
            None => (chain(error), None),
        };
        Self {
            action,
            resource: resource.to_owned(),
            why,
            next: refusal.unwrap_or("it will be tried again"),
            outage: refusal.is_none(),
        }
    }

    /// An answer that says something else than its API promises.
    pub fn answer(action: &'static str, resource: &str, why: impl Into<String>) -> Self {
        Self {
            action,
            resource: resource.to_owned(),
            why: why.into(),
            next: "it will be tried again",
            outage: true,
        }
    }

    /// Whether it may pass by itself: nobody answered, too much was asked, or the service failed.
    pub fn is_outage(&self) -> bool {
        self.outage
    }
}

/// What to do about an error of KMS or ACM PCA that does not pass by itself.
fn refusal(code: &str) -> Option<&'static str> {
    Some(match code {
        "AccessDeniedException" | "AccessDenied" => {
            "allow this action on it to the role this runs as: in the role's policy and, for a KMS key, in the key's"
        }
        "NotFoundException" | "ResourceNotFoundException" | "InvalidArnException" => {
            "check its name, the account, and the region (aws.region, AWS_REGION)"
        }
        "DisabledException" => "enable it",
        "KMSInvalidStateException" => "cancel its deletion, or wait until it is enabled",
        "InvalidStateException" => "the private CA must be ACTIVE",
        "InvalidKeyUsageException" | "UnsupportedOperationException" => {
            "name a key of the kind that the documentation asks for"
        }
        "InvalidCiphertextException" | "IncorrectKeyException" => {
            "it was sealed by another key or for another trust domain; restore the state that belongs to the key"
        }
        "InvalidArgsException" | "MalformedCSRException" | "ValidationException" => {
            "the service takes no such request; see what it says"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_which_action_on_what_and_whose_turn_it_is_and_an_outage_passes() {
        let of = |code| ApiError {
            action: "kms:Sign",
            resource: "alias/warifu-root".into(),
            why: "no".into(),
            next: refusal(code).unwrap_or("it will be tried again"),
            outage: refusal(code).is_none(),
        };
        let denied = of("AccessDeniedException");
        assert!(!denied.is_outage());
        let said = denied.to_string();
        assert!(said.starts_with("kms:Sign on alias/warifu-root: no; allow this action"));
        for code in [
            "ThrottlingException",
            "KMSInternalException",
            "ExpiredTokenException",
        ] {
            assert!(of(code).is_outage(), "{code}");
        }
    }
}

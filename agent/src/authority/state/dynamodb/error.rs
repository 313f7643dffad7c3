//! What DynamoDB had against it, and what to do.

use std::error::Error;

use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::{DynamoDb, StoreError};
use crate::aws::chain;

/// What was being done, for the log.
pub(super) type Doing = &'static str;

/// As much of an answer's message as is repeated.
const SHOWN: usize = 400;

/// Too much at once. The SDK has tried again by then.
const THROTTLED: &[&str] = &[
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
];

/// The credentials themselves.
const BAD_CREDENTIALS: &[&str] = &[
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
];

impl DynamoDb {
    /// `action` is what IAM calls it.
    pub(super) fn failed<E>(
        &self,
        doing: Doing,
        action: &'static str,
        why: &SdkError<E, HttpResponse>,
    ) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let place = format!("table {} of DynamoDB in {}", self.table, self.region);
        let SdkError::ServiceError(answer) = why else {
            return StoreError::Failed(format!(
                "{doing}: no answer from {place}: {}; is it reachable from here, and has this process credentials?",
                chain(why)
            ));
        };
        let code = answer.err().code().unwrap_or("an error without a code");
        let said = shown(answer.err().message().unwrap_or_default());
        let request = answer.err().meta().request_id().unwrap_or("none");
        let advice = self.advice(code, action, &said);
        let why =
            format!("{doing}: {place} answered {code}: {said} (request id {request}); {advice}");
        match code {
            "ResourceNotFoundException" | "AccessDeniedException" | "ValidationException" => {
                StoreError::Refused(why)
            }
            _ => StoreError::Failed(why),
        }
    }

    fn advice(&self, code: &str, action: &str, said: &str) -> String {
        let Self { table, region, .. } = self;
        match code {
            "ResourceNotFoundException" => format!(
                "make the table as docs/operations.md shows, or correct state.dynamodb.table ({table}) and the region ({region})"
            ),
            "AccessDeniedException" => format!(
                "allow the authority's role {action} on the table (arn:aws:dynamodb:{region}:ACCOUNT:table/{table}), and the KMS key it is encrypted with, if it is a key of yours; docs/operations.md has the policy"
            ),
            "ValidationException" if said.contains("key") => {
                "its partition key must be the string pk, without a sort key; docs/operations.md has the command that makes it".to_owned()
            }
            code if THROTTLED.contains(&code) => {
                "it is tried again; make the table on-demand (PAY_PER_REQUEST), or raise its capacity or the account's quota".to_owned()
            }
            code if BAD_CREDENTIALS.contains(&code) => {
                "AWS does not accept the credentials this process has; check the role, and the clock".to_owned()
            }
            _ => "it is tried again".to_owned(),
        }
    }

    /// An item that lacks what it was written with.
    pub(super) fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged(format!(
            "{what} in table {} was not written by an authority",
            self.table
        ))
    }
}

/// The first line, not too long. DynamoDB's messages hold no secrets, but a `SignatureDoesNotMatch` quotes
/// the whole request after its first.
fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line: String = line
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect();
    line.trim_end_matches(['.', ' ']).to_owned()
}

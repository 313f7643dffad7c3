//! What AWS says in a token of `sts:GetWebIdentityToken`: which role holds it, and of whom. Read after
//! [`Profile::aws_web_identity`](super::Profile::aws_web_identity) verified it; reading is pure.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_token_claims.html>

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::Claims;

mod arn;

use arn::Role;

pub use arn::Arn;

/// The claim that holds what AWS says. Beside it, in it, is `request_tags`, which the caller says: it is not
/// read anywhere (S8).
pub const AWS_CLAIM: &str = "https://sts.amazonaws.com/";

/// The role that a token proves. No value of it is the caller's to choose.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WebIdentity {
    /// `sub`: `arn:aws:iam::123456789012:role/team/orders`.
    pub role_arn: String,
    /// `aws`, `aws-cn`, ….
    pub partition: String,
    /// The account, which is the one that was pinned.
    pub account: String,
    /// `/`, or `/team/`. No part of the identity: a name is unique in its account.
    pub role_path: String,
    /// `orders`.
    pub role_name: String,
    /// The account's organisation, where it is in one.
    pub org_id: Option<String>,
    /// Where in it; of several AWS says all.
    pub ou_path: Vec<String>,
    /// Whose STS signed.
    pub source_region: Option<String>,
    /// Tags of the role and its session: who could assume the role could choose those of the session.
    pub principal_tags: BTreeMap<String, Value>,
    /// The EC2 instance whose profile the session is of.
    pub ec2_source_instance_arn: Option<String>,
    /// The Lambda function the session is of.
    pub lambda_source_function_arn: Option<String>,
}

/// Why verified claims prove no role that was asked for. The text is for logs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WebIdentityError {
    /// Not a token of `sts:GetWebIdentityToken`.
    #[error(
        "it has no claim {AWS_CLAIM:?} with an account; expected a token of sts:GetWebIdentityToken"
    )]
    NoClaim,
    /// A user, the root user, a federated session.
    #[error(
        "`sub` is not the ARN of an IAM role; users, the root user, and federated sessions prove none"
    )]
    NoRole,
    /// The issuer is one account's, and the token another's.
    #[error("it is of account {found}, and its issuer is configured for {pinned}")]
    Account {
        /// Of `sub`.
        found: String,
        /// What was expected.
        pinned: String,
    },
    /// AWS would say the same twice.
    #[error("`sub` and `principal_id` are not the same")]
    Principal,
    /// Another organisation, or none.
    #[error("it is not of the organisation that `org` names")]
    Organisation,
}

/// What is read of the claim.
#[derive(Debug, Deserialize)]
struct AwsClaims {
    aws_account: String,
    principal_id: Option<String>,
    source_region: Option<String>,
    org_id: Option<String>,
    /// A text in the documentation, a list in tokens.
    ou_path: Option<OneOrMore>,
    #[serde(default)]
    principal_tags: BTreeMap<String, Value>,
    ec2_source_instance_arn: Option<String>,
    lambda_source_function_arn: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl WebIdentity {
    /// The role that verified `claims` are of. `account` is the one whose issuer they were verified against, and
    /// `org` the organisation it must be of, where that is pinned.
    ///
    /// # Errors
    /// [`WebIdentityError`].
    pub fn from_claims(
        claims: &Claims,
        account: &str,
        org: Option<&str>,
    ) -> Result<Self, WebIdentityError> {
        let aws = claims.all.get(AWS_CLAIM).cloned().unwrap_or(Value::Null);
        let aws = AwsClaims::deserialize(aws).map_err(|_| WebIdentityError::NoClaim)?;
        let role = Role::parse(&claims.subject).ok_or(WebIdentityError::NoRole)?;
        if role.account != account || aws.aws_account != account {
            return Err(WebIdentityError::Account {
                found: role.account.to_owned(),
                pinned: account.to_owned(),
            });
        }
        if aws
            .principal_id
            .as_ref()
            .is_some_and(|it| *it != claims.subject)
        {
            return Err(WebIdentityError::Principal);
        }
        if org.is_some() && aws.org_id.as_deref() != org {
            return Err(WebIdentityError::Organisation);
        }
        Ok(Self {
            role_arn: claims.subject.clone(),
            partition: role.partition.to_owned(),
            account: role.account.to_owned(),
            role_path: role.path.to_owned(),
            role_name: role.name.to_owned(),
            org_id: aws.org_id,
            ou_path: match aws.ou_path {
                None => Vec::new(),
                Some(OneOrMore::One(one)) => vec![one],
                Some(OneOrMore::More(list)) => list,
            },
            source_region: aws.source_region,
            principal_tags: aws.principal_tags,
            ec2_source_instance_arn: aws.ec2_source_instance_arn,
            lambda_source_function_arn: aws.lambda_source_function_arn,
        })
    }
}

#[cfg(test)]
mod tests;

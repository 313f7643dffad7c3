//! Reading secrets from AWS Secrets Manager.

use aws_config::identity::IdentityCache;
use aws_sdk_secretsmanager::{
    Client, config::Builder, operation::get_secret_value::GetSecretValueError,
};
use aws_types::region::Region;
use warifu::Secret;

use super::{ApiError, Roles, sdk::FromCache, session::RoleSession, sts::url};
use crate::config::value::Upstream;

const ACTION: &str = "secretsmanager:GetSecretValue";

/// Reads secrets, as the base credentials' role or as one that is assumed for it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SecretsManager(Client);

impl SecretsManager {
    /// With the credentials of `session`, or the base ones; at `endpoint`, or AWS's own. Makes no call.
    pub fn new(roles: &Roles, session: Option<RoleSession>, endpoint: Option<&Upstream>) -> Self {
        let credentials = match session {
            Some(session) => roles.credentials(&session),
            None => roles.base(),
        };
        let mut config = Builder::from(roles.sdk())
            // Ours alone caches: the SDK's drops what it has before it asks for more.
            .identity_cache(IdentityCache::no_cache())
            .credentials_provider(FromCache(credentials));
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(url(endpoint));
        }
        Self(Client::from_conf(config.build()))
    }

    /// The text of the version of `id` (a name or an ARN) that has the staging label `stage`; `None` where the secret is
    /// there and has no such version.
    ///
    /// # Errors
    /// What Secrets Manager said, or that it was not reached. Never what the secret is.
    pub async fn read(&self, id: &str, stage: &str) -> Result<Option<Secret<String>>, ApiError> {
        let call = self.0.get_secret_value().secret_id(id).version_stage(stage);
        let answer = match region_of(id) {
            // A secret of another region is asked for there: only an ARN says so.
            Some(region) => {
                let there = Builder::new().region(Region::new(region.to_owned()));
                call.customize().config_override(there).send().await
            }
            None => call.send().await,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if stage != "AWSCURRENT" && is_missing(error.as_service_error()) => {
                return Ok(None);
            }
            Err(error) => return Err(ApiError::new(ACTION, id, &error)),
        };
        match answer.secret_string {
            Some(text) if !text.is_empty() => Ok(Some(Secret::new(text))),
            _ => Err(ApiError::answer(
                ACTION,
                id,
                "its value is not a text (it is binary, or empty)",
            )),
        }
    }
}

fn is_missing(error: Option<&GetSecretValueError>) -> bool {
    error.is_some_and(GetSecretValueError::is_resource_not_found_exception)
}

/// `arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME`.
fn region_of(id: &str) -> Option<&str> {
    let mut parts = id.split(':');
    let (arn, service) = (parts.next()?, parts.nth(1)?);
    (arn == "arn" && service == "secretsmanager").then(|| parts.next())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_named_by_its_arn_is_asked_for_in_its_region() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:partner-AbCdEf";
        assert_eq!(region_of(arn), Some("eu-west-1"));
        assert_eq!(region_of("prod/partner"), None);
        assert_eq!(region_of("arn"), None);
    }
}

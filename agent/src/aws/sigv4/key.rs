//! The key that signs for a day, and the signature.

use std::fmt;

use aws_credential_types::Credentials;
use aws_lc_rs::{
    digest,
    hmac::{self, HMAC_SHA256},
};
use http::HeaderValue;
use zeroize::Zeroizing;

use super::{SignError, body::hex, unsignable};

#[cfg(feature = "sigv4a")]
mod asymmetric;
#[cfg(all(test, feature = "sigv4a"))]
pub(super) use asymmetric::public_key;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";

/// Where a signature is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::aws) enum Regions {
    /// In this region: SigV4.
    One(String),
    /// In each region of this set (`us-east-1,eu-*`, or `*`): SigV4A.
    #[cfg(feature = "sigv4a")]
    Set(String),
}

/// A key, with what its signatures say of it. Good for one day, by the credential scope.
pub(in crate::aws) struct Key {
    secret: Secret,
    /// `20150830/eu-west-1/execute-api/aws4_request`
    scope: String,
    /// The access key's id, and the scope.
    credential: String,
    token: Option<HeaderValue>,
}

enum Secret {
    Symmetric(Box<hmac::Key>),
    #[cfg(feature = "sigv4a")]
    Asymmetric(aws_lc_rs::signature::EcdsaKeyPair),
}

impl Regions {
    /// Those of a route.
    ///
    /// # Errors
    /// In a build without SigV4A.
    #[cfg(not(feature = "sigv4a"))]
    pub(in crate::aws) fn set_of(_: &[String]) -> Result<Self, super::SetupError> {
        let why = "this build of warifu has no SigV4A: build it with `--features sigv4a`, or sign for one `region`";
        Err(super::SetupError::new("region_set", why))
    }

    /// Those of a route.
    ///
    /// # Errors
    /// In a build without SigV4A.
    #[cfg(feature = "sigv4a")]
    pub(in crate::aws) fn set_of(regions: &[String]) -> Result<Self, super::SetupError> {
        Ok(Self::Set(regions.join(",")))
    }

    /// As `x-amz-region-set` has it, where there is a set.
    pub(super) fn set(&self) -> Option<&str> {
        match self {
            Self::One(_) => None,
            #[cfg(feature = "sigv4a")]
            Self::Set(set) => Some(set),
        }
    }
}

impl Key {
    /// `date` as `x-amz-date` has it.
    pub(super) fn new(
        credentials: &Credentials,
        regions: &Regions,
        service: &str,
        date: &str,
    ) -> Result<Self, SignError> {
        let day = day(date);
        let (secret, scope) = match regions {
            Regions::One(region) => (
                Secret::Symmetric(Box::new(derived(
                    credentials.secret_access_key(),
                    [day, region, service],
                ))),
                [day, region, service, TERMINATOR].join("/"),
            ),
            #[cfg(feature = "sigv4a")]
            Regions::Set(_) => (
                Secret::Asymmetric(asymmetric::derived(credentials)?),
                [day, service, TERMINATOR].join("/"),
            ),
        };
        let token = credentials.session_token().map(|token| {
            let mut token = HeaderValue::from_str(token)?;
            // Half a credential.
            token.set_sensitive(true);
            Ok(token)
        });
        Ok(Self {
            secret,
            credential: format!("{}/{scope}", credentials.access_key_id()),
            scope,
            token: token
                .transpose()
                .map_err(|_: http::header::InvalidHeaderValue| {
                    unsignable("the session token is no header's value")
                })?,
        })
    }

    /// Whether it is that of the day of `date`.
    pub(in crate::aws) fn is_of(&self, date: &str) -> bool {
        self.scope.starts_with(day(date))
    }

    pub(super) fn algorithm(&self) -> &'static str {
        match self.secret {
            Secret::Symmetric(_) => ALGORITHM,
            #[cfg(feature = "sigv4a")]
            Secret::Asymmetric(_) => asymmetric::ALGORITHM,
        }
    }

    pub(super) fn credential(&self) -> &str {
        &self.credential
    }

    pub(super) fn token(&self) -> Option<&HeaderValue> {
        self.token.as_ref()
    }

    /// The signature of a canonical request, in hex.
    pub(super) fn sign(&self, date: &str, canonical_request: &[u8]) -> Result<String, SignError> {
        let text = self.string_to_sign(date, canonical_request);
        match &self.secret {
            Secret::Symmetric(key) => Ok(hex(hmac::sign(key, text.as_bytes()).as_ref())),
            #[cfg(feature = "sigv4a")]
            Secret::Asymmetric(key) => asymmetric::sign(key, text.as_bytes()),
        }
    }

    fn string_to_sign(&self, date: &str, canonical_request: &[u8]) -> String {
        let hash = hex(digest::digest(&digest::SHA256, canonical_request).as_ref());
        [self.algorithm(), date, &self.scope, &hash].join("\n")
    }
}

/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html#derive-signing-key>
fn derived(secret: &str, scope: [&str; 3]) -> hmac::Key {
    let start = Zeroizing::new(["AWS4", secret].concat());
    let mut key = hmac::Key::new(HMAC_SHA256, start.as_bytes());
    for step in scope.into_iter().chain([TERMINATOR]) {
        key = hmac::Key::new(HMAC_SHA256, hmac::sign(&key, step.as_bytes()).as_ref());
    }
    key
}

fn day(date: &str) -> &str {
    date.split_once('T').map_or(date, |(day, _)| day)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

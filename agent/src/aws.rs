//! STS roles and their credential cache, SigV4 profiles and signing.

use thiserror::Error;

/// Signs the requests of one route: its role, service, region and body limits.
#[derive(Debug)]
pub struct Signer {}

/// Why a request could not be signed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SignError {
    /// The request can't be put in canonical form (400).
    #[error("this request cannot be signed: {0}")]
    Unsignable(String),
    /// No valid credentials can be had (503).
    #[error("no credentials for {role}: {why}")]
    NoCredentials {
        /// The role, or `the base credentials`.
        role: String,
        /// The last error.
        why: String,
    },
}

impl Signer {
    /// Puts the query in canonical form, strips inbound `authorization` and `x-amz-*`, and signs.
    /// `parts.uri` is in origin form with the upstream's base path; `parts.headers` has the upstream's `host`.
    /// Called again for every attempt.
    ///
    /// # Errors
    /// See [`SignError`].
    pub async fn sign(
        &self,
        parts: &mut http::request::Parts,
        body: &[u8],
    ) -> Result<(), SignError> {
        let _ = (parts, body);
        unimplemented!("aws")
    }
}

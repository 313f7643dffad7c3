//! STS roles and their credential cache, SigV4 profiles and signing.
//!
//! ```text
//!  environment, profile, web identity,      AssumeRole            SigV4
//!  container, instance ──▶ base credentials ──▶ role session ──▶ Signer::sign ──▶ upstream
//!                          (cached)             (cached)
//! ```

mod cache;
mod call;
mod caller_identity;
mod clock;
mod error;
mod give;
mod http;
mod metrics;
mod refresh;
mod roles;
mod sdk;
mod secrets_manager;
mod session;
mod signer;
mod sigv4;
mod source;
mod sts;
mod web_identity;

use thiserror::Error;

pub use self::{
    cache::CredentialsStatus,
    call::ApiError,
    caller_identity::{CallError, CallSigner, SignedCall},
    error::{chain, is_busy},
    give::{NotGiven, SessionCredentials},
    roles::Roles,
    sdk::{sdk, sdk_at},
    secrets_manager::SecretsManager,
    session::{RoleSession, SessionError, SetupError},
    signer::{Presigned, Signer},
    sigv4::{Hasher, Payload, Plan, Profile},
    source::IdentityTokens,
    web_identity::{TokenError, WebIdentity, WebIdentityToken},
};

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

#[cfg(test)]
mod tests;

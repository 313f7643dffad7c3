//! Outbound tokens: JWT-SVIDs by audience, cached, refreshed ahead, never one per request.

use std::{future::Future, pin::Pin, time::SystemTime};

/// Where JWT-SVIDs come from: the authority, or a test.
pub trait Mint: Send + Sync + std::fmt::Debug + 'static {
    /// A fresh JWT-SVID for exactly this audience.
    fn mint(
        &self,
        audience: String,
    ) -> Pin<Box<dyn Future<Output = Result<Minted, MintError>> + Send>>;
}

/// A token with its expiry.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The compact JWS.
    pub token: warifu::Secret<String>,
    /// When it expires.
    pub expires_at: SystemTime,
}

/// Why no token could be had.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// Decided: asking again changes nothing until a rule does.
    #[error("the authority refused a token for audience {audience}: {why}")]
    Refused {
        /// The audience.
        audience: String,
        /// Its reason.
        why: String,
    },
    /// May pass.
    #[error("no token for audience {audience}: {why}")]
    Unavailable {
        /// The audience.
        audience: String,
        /// The last error.
        why: String,
    },
}

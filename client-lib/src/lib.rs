//! Call another service, and know for certain who calls you, without holding a credential.
//!
//! ```text
//!  app A ──http──▶ agent A ══ mTLS ══▶ agent B ──http──▶ app B
//!   Client          signs, encrypts     verifies, decides   CallerLayer
//! ```

#[cfg(feature = "caller")]
pub mod caller;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "tls")]
pub mod identity;
#[cfg(feature = "jwt")]
pub mod jwt;
mod secret;
#[cfg(feature = "tls")]
pub mod tls;

#[cfg(feature = "caller")]
pub use caller::{Caller, CallerLayer};
#[cfg(feature = "client")]
pub use client::Client;
pub use secret::Secret;
pub use spiffe::{SpiffeId, SpiffeIdError, TrustDomain};

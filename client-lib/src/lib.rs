//! Call another service, and know for certain who calls you, without holding a credential.
//!
//! ```text
//!  app A ──http──▶ agent A ══ mTLS ══▶ agent B ──http──▶ app B
//!   Client          signs, encrypts     verifies, decides   CallerLayer
//! ```
//!
//! Each app speaks plain HTTP to the agent beside it, and to no one else. The agents hold the
//! identities: they prove them to each other, decide what is allowed, and say who called.
//!
//! # Calling
//!
//! [`Client`] calls a service by the name the agent's route gives it. The URL says `http://`; the
//! agent adds TLS, tokens or an AWS signature.
//!
//! ```no_run
//! # #[cfg(feature = "client")]
//! # async fn call() -> Result<(), warifu::client::ClientError> {
//! let client = warifu::Client::from_env()?;
//! let response = client.get("http://payments/charges").send().await?;
//! println!("{}", response.status());
//! # Ok(()) }
//! ```
//!
//! # Being called
//!
//! [`CallerLayer`] puts the [`Caller`] that the agent verified into a request's extensions. It
//! refuses requests that did not provably come through the agent, so a handler that sees a caller
//! can rely on it, and needs no authentication code.
//!
//! ```
//! # #[cfg(feature = "caller")] {
//! use warifu::Caller;
//!
//! fn list_charges(request: http::Request<()>) -> String {
//!     match Caller::from_extensions(request.extensions()).and_then(Caller::peer_id) {
//!         Some(id) => format!("the charges of {id}"),
//!         None => "nobody is at the other end of the connection".to_owned(),
//!     }
//! }
//! # list_charges(http::Request::default()); }
//! ```
//!
//! The app listens on a unix socket of its own ([`caller::AppSocket`]), or on TCP with signed
//! contexts ([`CallerLayer::signed_context`]). Whole programs are in `examples/`.
//!
//! # Features
//!
//! | feature | gives | pulls in |
//! | --- | --- | --- |
//! | `client` (default) | [`Client`] | hyper, tokio; no TLS, no cryptography |
//! | `caller` (default) | [`Caller`], [`CallerLayer`] | `jwt`, tower's two traits |
//! | `jwt` | `jwt`: strict JWS/JWT verification, the keys of issuers | aws-lc-rs, tokio |
//! | `tls` | `identity`, `tls`: X.509-SVIDs, trust bundles, rustls configurations | rustls |
//! | `aws` | `aws`: tokens for calls, by the program's IAM role, where no agent runs | `tls`, hyper |

#[cfg(feature = "aws")]
pub mod aws;
pub mod calendar;
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

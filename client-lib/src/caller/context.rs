//! The headers in which the agent tells the app who called.
//!
//! Over a unix socket whose peer the app checks, [`CALLER_HEADER`] carries the caller as plain JSON.
//! Over TCP, where any process of the pod could connect, the app believes only [`CONTEXT_HEADER`]:
//! a short-lived ES256 JWS over the caller and the request it belongs to, made by the agent's
//! context key, whose public half the agent writes to a file only it may write.

/// The caller as one line of JSON ([`super::Caller`]), base64url without padding.
pub const CALLER_HEADER: &str = "x-warifu-caller";

/// The signed context: compact JWS, `typ` = [`CONTEXT_TYP`].
pub const CONTEXT_HEADER: &str = "x-warifu-context";

/// The `typ` of a signed context.
pub const CONTEXT_TYP: &str = "warifu-context+jwt";

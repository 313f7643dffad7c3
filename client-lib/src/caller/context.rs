//! The headers in which the agent tells the app who called.
//!
//! Over a unix socket whose peer the app checks, [`CALLER_HEADER`] carries the caller as plain JSON.
//! Over TCP, where any process of the pod could connect, the app believes only [`CONTEXT_HEADER`]:
//! a short-lived ES256 JWS over the caller and the request it belongs to, made by the agent's
//! context key, whose public half the agent writes to a file only it may write.
//!
//! The signed context binds method and target, not the body, and may be used until it expires: it
//! keeps a process that can reach the app, but sees no traffic, from making up a caller.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderValue, Method};
use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::{
    Caller, CallerError,
    codec::{somebody, to_json},
};
use crate::jwt::{self, JwtError, KeySet, Profile, SigningKey};

/// The caller as one line of JSON ([`super::Caller`]), base64url without padding.
pub const CALLER_HEADER: &str = "x-warifu-caller";

/// The signed context: compact JWS, `typ` = [`CONTEXT_TYP`].
pub const CONTEXT_HEADER: &str = "x-warifu-context";

/// The `typ` of a signed context.
pub const CONTEXT_TYP: &str = "warifu-context+jwt";

/// The `use` of the agent's context key in its JWK set.
pub(super) const CONTEXT_KEY_USE: &str = "sig";

/// The `iss` of a signed context.
pub const CONTEXT_ISSUER: &str = "warifu-agent";

/// The `aud` of a signed context.
pub const CONTEXT_AUDIENCE: &str = "warifu-app";

/// How long a signed context may be used. The app reads it when the request's head arrives, so
/// this covers a full accept queue, not a long upload.
pub const CONTEXT_LIFETIME: Duration = Duration::from_secs(30);

/// What a signed context says.
#[derive(Debug, Clone, Serialize)]
pub struct ContextClaims<'a> {
    /// Always [`CONTEXT_ISSUER`].
    pub iss: &'static str,
    /// Always [`CONTEXT_AUDIENCE`].
    pub aud: &'static str,
    /// Whom the caller's strongest statement names: the token's subject, else the peer. For
    /// readers of logs; the layer reads `caller`.
    pub sub: String,
    /// When it was made, seconds since 1970.
    pub iat: u64,
    /// When it ends, at most [`CONTEXT_LIFETIME`] later.
    pub exp: u64,
    /// The request's method.
    pub htm: &'a str,
    /// The request's target, path and query as forwarded: its SHA-256, base64url without padding,
    /// so that a long query costs no second long header.
    pub htp: String,
    /// Who called.
    pub caller: &'a Caller,
}

/// Why a context was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ContextError {
    /// It is not a valid JWS of the agent.
    #[error("signed context: {0}")]
    Token(#[from] JwtError),
    /// It lives longer than [`CONTEXT_LIFETIME`].
    #[error("signed context: valid for longer than {CONTEXT_LIFETIME:?}")]
    TooLong,
    /// It was made for a request with another method or target.
    #[error("signed context: made for another request ({0} differs)")]
    OtherRequest(&'static str),
    /// It holds no usable caller.
    #[error("signed context: {0}")]
    Caller(#[from] CallerError),
}

/// What the agent writes to its key file: the JWK set of `key`. It goes there in one step (written
/// beside, then renamed), readable by all and writable by the agent alone, before `key` is used.
pub fn key_file_json(key: &SigningKey) -> String {
    json!({"keys": [key.public().to_json(CONTEXT_KEY_USE)]}).to_string()
}

/// Signs who sent the request `method` `target` (path and query, as forwarded), as the value of
/// [`CONTEXT_HEADER`]. Costs one ES256 signature, some 16 µs.
///
/// # Errors
/// The caller is nobody, or too large.
pub fn sign(
    key: &SigningKey,
    caller: &Caller,
    method: &Method,
    target: &str,
    now: SystemTime,
) -> Result<HeaderValue, CallerError> {
    // Checked here, not left to the app: the agent knows which configuration made it too large.
    to_json(caller)?;
    let iat = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = ContextClaims {
        iss: CONTEXT_ISSUER,
        aud: CONTEXT_AUDIENCE,
        sub: principal(caller),
        iat,
        exp: iat + CONTEXT_LIFETIME.as_secs(),
        htm: method.as_str(),
        htp: target_digest(target),
        caller,
    };
    HeaderValue::try_from(jwt::sign(key, CONTEXT_TYP, &claims)).map_err(|_| CallerError::NotBase64)
}

/// The caller in `token`, if the agent signed it for the request `method` `target` and `now` is
/// within its life.
///
/// # Errors
/// See [`ContextError`].
pub fn verify(
    token: &str,
    keys: &KeySet,
    method: &Method,
    target: &str,
    now: SystemTime,
) -> Result<Caller, ContextError> {
    static PROFILE: LazyLock<Profile> =
        LazyLock::new(|| Profile::internal(CONTEXT_TYP, CONTEXT_ISSUER, CONTEXT_AUDIENCE));
    let mut claims = jwt::verify(token, &PROFILE, keys, now)?;
    let iat = claims
        .all
        .get("iat")
        .and_then(Value::as_u64)
        .ok_or(JwtError::Claim("iat"))?;
    let longest = UNIX_EPOCH
        .checked_add(Duration::from_secs(iat))
        .and_then(|made| made.checked_add(CONTEXT_LIFETIME))
        .ok_or(JwtError::Claim("iat"))?;
    if claims.expires_at > longest {
        return Err(ContextError::TooLong);
    }
    let claim = |name| claims.all.get(name).and_then(Value::as_str);
    if claim("htm") != Some(method.as_str()) {
        return Err(ContextError::OtherRequest("method"));
    }
    if claim("htp") != Some(&target_digest(target)) {
        return Err(ContextError::OtherRequest("target"));
    }
    let caller = claims.all.remove("caller").unwrap_or_default();
    let caller = serde_json::from_value(caller).map_err(|_| CallerError::NotJson)?;
    somebody(&caller)?;
    Ok(caller)
}

fn principal(caller: &Caller) -> String {
    match (&caller.subject, &caller.peer) {
        (Some(subject), _) => subject.subject.clone(),
        (None, Some(peer)) => peer.spiffe_id.to_string(),
        (None, None) => String::new(),
    }
}

fn target_digest(target: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, target.as_bytes()))
}

#[cfg(test)]
mod tests;

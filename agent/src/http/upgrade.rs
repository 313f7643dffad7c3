//! The WebSocket handshake (RFC 6455 §4), as who stands between its two sides must judge it (S4): a tunnel is
//! opened for a request that asks for a WebSocket and nothing else, and only when the answer proves that the
//! other side agreed to that very request. No other protocol is switched to.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
};
use thiserror::Error;

/// What a key is hashed with (RFC 6455 §1.3).
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes of a key.
const KEY: usize = 16;

/// A well-formed wish for a WebSocket, and what the answer must prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    accept: HeaderValue,
}

/// Why no tunnel is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct NoTunnel(pub &'static str);

impl Wanted {
    /// `None`: no WebSocket is asked for. Other protocols are not switched to, and their `upgrade` may be
    /// ignored (RFC 9110 §7.8): it does not pass.
    ///
    /// # Errors
    /// Where one is asked for in a way that two readers could read differently.
    pub fn of(parts: &Parts) -> Result<Option<Self>, NoTunnel> {
        let headers = &parts.headers;
        if !has_token(headers, &UPGRADE, b"websocket") {
            return Ok(None);
        }
        if parts.version != Version::HTTP_11 {
            return Err(NoTunnel("a WebSocket is opened over HTTP/1.1"));
        }
        if parts.method != Method::GET {
            return Err(NoTunnel("a WebSocket is opened with GET"));
        }
        if !is_only(headers, &UPGRADE, b"websocket") {
            return Err(NoTunnel("`upgrade` must be `websocket` and nothing else"));
        }
        if !has_token(headers, &CONNECTION, b"upgrade") {
            return Err(NoTunnel("`connection: upgrade` is missing"));
        }
        let no_length = |line: &HeaderValue| line.as_bytes() == b"0";
        if headers.contains_key(TRANSFER_ENCODING)
            || !headers.get_all(CONTENT_LENGTH).iter().all(no_length)
        {
            return Err(NoTunnel("a request that opens a WebSocket has no body"));
        }
        if !is_only(headers, &SEC_WEBSOCKET_VERSION, b"13") {
            return Err(NoTunnel("`sec-websocket-version` must be 13"));
        }
        let key = only(headers, &SEC_WEBSOCKET_KEY)
            .filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == KEY))
            .ok_or(NoTunnel(
                "`sec-websocket-key` must be there once, 16 bytes in base64",
            ))?;
        let accept = accept(key).ok_or(NoTunnel("`sec-websocket-key` is not usable"))?;
        Ok(Some(Self { accept }))
    }

    /// Says it to the next hop: `connection` and `upgrade`, which were removed with all that is hop-by-hop.
    pub fn say(headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }

    /// Whether this 101 agrees to what was asked.
    ///
    /// # Errors
    /// Where it agrees to something else.
    pub fn agreed(&self, status: StatusCode, headers: &HeaderMap) -> Result<(), NoTunnel> {
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(NoTunnel("the answer is not 101"));
        }
        if !is_only(headers, &UPGRADE, b"websocket") {
            return Err(NoTunnel("the answer's `upgrade` is not `websocket`"));
        }
        if !has_token(headers, &CONNECTION, b"upgrade") {
            return Err(NoTunnel("the answer has no `connection: upgrade`"));
        }
        if headers.contains_key(TRANSFER_ENCODING) || headers.contains_key(CONTENT_LENGTH) {
            return Err(NoTunnel("the answer has a body"));
        }
        if only(headers, &SEC_WEBSOCKET_ACCEPT) != Some(self.accept.as_bytes()) {
            return Err(NoTunnel(
                "the answer's `sec-websocket-accept` does not fit the key",
            ));
        }
        Ok(())
    }
}

/// What proves that a WebSocket server read `key`.
fn accept(key: &[u8]) -> Option<HeaderValue> {
    // SHA-1, as the protocol has it: it tells servers from caches, and keeps nothing secret.
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(MAGIC);
    HeaderValue::try_from(STANDARD.encode(hash.finish())).ok()
}

/// The one line of this name.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => Some(line.as_bytes().trim_ascii()),
        _ => None,
    }
}

fn is_only(headers: &HeaderMap, name: &HeaderName, value: &[u8]) -> bool {
    only(headers, name).is_some_and(|line| line.eq_ignore_ascii_case(value))
}

/// Whether any line of this name lists `token`.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    let lines = headers.get_all(name).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|it| it.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests;

//! `application/x-www-form-urlencoded` (RFC 6749 appendix B).

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use zeroize::Zeroizing;

/// A form to be sent. May hold secrets, so it shows nothing.
pub(super) struct Form(String);

impl Form {
    pub(super) fn new() -> Self {
        Self(String::new())
    }

    /// Adds a parameter.
    pub(super) fn put(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        encode(name, &mut self.0);
        self.0.push('=');
        encode(value, &mut self.0);
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// HTTP Basic as RFC 6749 §2.3.1 has it: both parts are form-encoded first.
pub(super) fn basic(id: &str, secret: &str) -> Option<HeaderValue> {
    let mut pair = Zeroizing::new(String::new());
    encode(id, &mut pair);
    pair.push(':');
    encode(secret, &mut pair);
    let line = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    let mut line = HeaderValue::from_str(&line).ok()?;
    line.set_sensitive(true);
    Some(line)
}

fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        match byte {
            b' ' => into.push('+'),
            b'*' | b'-' | b'.' | b'_' => into.push(char::from(byte)),
            plain if plain.is_ascii_alphanumeric() => into.push(char::from(plain)),
            other => {
                // Writing to a string does not fail.
                let _ = write!(into, "%{other:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_rfc_6749_appendix_b_has() {
        let mut form = Form::new();
        form.put("scope", "a b");
        form.put("x", " %&+£€");
        assert_eq!(form.into_text(), "scope=a+b&x=+%25%26%2B%C2%A3%E2%82%AC");
        let basic = basic("a:b", "hun ter+2").unwrap();
        assert!(basic.is_sensitive());
        let pair = STANDARD.encode("a%3Ab:hun+ter%2B2");
        assert_eq!(basic, format!("Basic {pair}"));
    }
}

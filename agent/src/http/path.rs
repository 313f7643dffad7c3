//! The normal form of a path: what is matched is what is forwarded (S11).
//!
//! A path that different programs could read differently is refused, never repaired: the rule that
//! allowed it and the app that serves it must mean the same thing. What is left has one spelling:
//! escapes of unreserved characters are decoded, the hex digits of all others are upper case.

use std::borrow::Cow;

use thiserror::Error;

/// Longest path in bytes. Servers commonly take 8 KiB for a whole request line.
pub const MAX_PATH_BYTES: usize = 8 * 1024;

/// Why a path has no normal form. The answer to each is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathError {
    /// Asterisk and authority form, or nothing at all.
    #[error("a path must begin with `/`")]
    NotAbsolute,
    /// Longer than [`MAX_PATH_BYTES`].
    #[error("the path is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// `//`: some servers merge them, some don't.
    #[error("the path has an empty segment (`//`)")]
    EmptySegment,
    /// `.` and `..`, raw or escaped.
    #[error("the path has a `.` or `..` segment")]
    DotSegment,
    /// `;a=b`: some servers cut it off before they match.
    #[error("the path has parameters (`;`)")]
    Parameters,
    /// `\`, raw or escaped: some servers read it as `/`.
    #[error("the path has a backslash")]
    Backslash,
    /// `%2F`: some servers read it as `/`.
    #[error("the path has an escaped slash (`%2F`)")]
    EscapedSlash,
    /// NUL, line ends and other controls, raw or escaped.
    #[error("the path has a control character")]
    Control,
    /// Neither an RFC 3986 path character nor an escape: it must be escaped.
    #[error("the path has a character that must be escaped")]
    Unescaped,
    /// `%` without two hex digits.
    #[error("the path has a `%` without two hexadecimal digits")]
    BadEscape,
    /// Escapes that together are not UTF-8: no two servers read them alike.
    #[error("the path has escapes that are not UTF-8")]
    NotUtf8,
}

/// The normal form of `path` (without a query), borrowed where it is already normal.
///
/// Percent-encoded octets outside ASCII must be UTF-8. Escapes of reserved characters stay escaped
/// (`%3B` is not `;`), so the result decodes to exactly what `path` decodes to.
///
/// # Errors
/// See [`PathError`].
pub fn normal_form(path: &str) -> Result<Cow<'_, str>, PathError> {
    if path.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    let normal = normal_escapes(path)?;
    check_segments(&normal)?;
    Ok(normal)
}

/// Checks every character, and brings escapes into their one spelling.
fn normal_escapes(path: &str) -> Result<Cow<'_, str>, PathError> {
    let mut pieces = path.split('%');
    let plain = pieces.next().unwrap_or_default();
    check_plain(plain)?;
    if plain.len() == path.len() {
        return Ok(Cow::Borrowed(path));
    }

    let mut normal = String::with_capacity(path.len());
    normal.push_str(plain);
    let mut high = Vec::new(); // escaped octets outside ASCII, till the run of them ends
    for piece in pieces {
        let (digits, plain) = piece.split_at_checked(2).ok_or(PathError::BadEscape)?;
        let octet = hex_octet(digits).ok_or(PathError::BadEscape)?;
        if octet.is_ascii() {
            check_utf8(&mut high)?;
        } else {
            high.push(octet);
        }
        match octet {
            b'/' => return Err(PathError::EscapedSlash),
            b'\\' => return Err(PathError::Backslash),
            0..=0x1f | 0x7f => return Err(PathError::Control),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                normal.push(char::from(octet));
            }
            _ => {
                normal.push('%');
                normal.extend(digits.chars().map(|digit| digit.to_ascii_uppercase()));
            }
        }
        if !plain.is_empty() {
            check_utf8(&mut high)?;
            check_plain(plain)?;
            normal.push_str(plain);
        }
    }
    check_utf8(&mut high)?;
    if normal == path {
        return Ok(Cow::Borrowed(path));
    }
    Ok(Cow::Owned(normal))
}

/// Only `pchar` of RFC 3986 §3.3 without escapes and without `;`, and `/`.
fn check_plain(text: &str) -> Result<(), PathError> {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {}
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' => {}
            b':' | b'@' => {}
            b';' => return Err(PathError::Parameters),
            b'\\' => return Err(PathError::Backslash),
            0..=0x1f | 0x7f => return Err(PathError::Control),
            _ => return Err(PathError::Unescaped),
        }
    }
    Ok(())
}

/// Absolute, no empty segment but a last one, no dot segments. Escapes are normal by now, so `%2e` shows.
fn check_segments(path: &str) -> Result<(), PathError> {
    let mut segments = path
        .strip_prefix('/')
        .ok_or(PathError::NotAbsolute)?
        .split('/')
        .peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" if segments.peek().is_some() => return Err(PathError::EmptySegment),
            "." | ".." => return Err(PathError::DotSegment),
            _ => {}
        }
    }
    Ok(())
}

fn hex_octet(digits: &str) -> Option<u8> {
    // `from_str_radix` alone would take a sign.
    digits
        .bytes()
        .all(|digit| digit.is_ascii_hexdigit())
        .then_some(())?;
    u8::from_str_radix(digits, 16).ok()
}

fn check_utf8(octets: &mut Vec<u8>) -> Result<(), PathError> {
    let valid = std::str::from_utf8(octets).is_ok();
    octets.clear();
    if valid {
        Ok(())
    } else {
        Err(PathError::NotUtf8)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn s11_a_path_in_normal_form_is_borrowed() {
        for path in [
            "/",
            "/charges",
            "/a/b/",
            "/a-b_c~d.e",
            "/...",
            "/a%2Cb",
            "/%E3%81%82",
            "/a:b@c,(d)",
        ] {
            assert!(
                matches!(normal_form(path), Ok(Cow::Borrowed(p)) if p == path),
                "{path}"
            );
        }
    }

    #[test]
    fn s11_a_path_has_one_spelling() {
        for (path, normal) in [
            ("/%63harges", "/charges"),
            ("/a%2db", "/a-b"),
            ("/a%2cb", "/a%2Cb"),
            ("/%e3%81%82", "/%E3%81%82"),
            ("/a%3bb", "/a%3Bb"),
            ("/a%252e", "/a%252e"),
            ("/%7Euser", "/~user"),
            ("/a%2e", "/a."),
        ] {
            assert_eq!(normal_form(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn s11_a_path_that_can_be_read_in_two_ways_is_refused() {
        use PathError::*;
        for (path, why) in [
            ("", NotAbsolute),
            ("*", NotAbsolute),
            ("charges", NotAbsolute),
            ("%2Fcharges", EscapedSlash),
            ("//", EmptySegment),
            ("//charges", EmptySegment),
            ("/a//b", EmptySegment),
            ("/a/b//", EmptySegment),
            ("/.", DotSegment),
            ("/..", DotSegment),
            ("/a/./b", DotSegment),
            ("/a/../b", DotSegment),
            ("/a/..", DotSegment),
            ("/a/%2e/b", DotSegment),
            ("/a/%2E%2e/b", DotSegment),
            ("/a/.%2e", DotSegment),
            ("/a%2fb", EscapedSlash),
            ("/a%2Fb", EscapedSlash),
            ("/a%5cb", Backslash),
            ("/a\\b", Backslash),
            ("/a%00", Control),
            ("/a%0d%0ab", Control),
            ("/a%7f", Control),
            ("/a\tb", Control),
            ("/a;b=c", Parameters),
            ("/a/..;/b", Parameters),
            ("/a%", BadEscape),
            ("/a%2", BadEscape),
            ("/a%zz", BadEscape),
            ("/a%+1", BadEscape),
            ("/a%2é", BadEscape),
            ("/%ff", NotUtf8),
            ("/%c0%ae", NotUtf8),
            ("/%e3%81", NotUtf8),
            ("/%e3x%81%82", NotUtf8),
            ("/%e3%41%81", NotUtf8),
            ("/é", Unescaped),
            ("/a b", Unescaped),
            ("/a{b}", Unescaped),
            ("/a?b", Unescaped),
            ("/a#b", Unescaped),
        ] {
            assert_eq!(normal_form(path), Err(why), "{path:?}");
        }
    }

    #[test]
    fn refuses_a_path_longer_than_the_limit() {
        let path = format!("/{}", "a".repeat(MAX_PATH_BYTES - 1));
        assert!(normal_form(&path).is_ok());
        assert_eq!(normal_form(&format!("{path}a")), Err(PathError::TooLong));
    }

    /// Percent-decoding as an app would do it.
    fn decode(path: &str) -> Vec<u8> {
        let mut rest = path.as_bytes();
        let mut decoded = Vec::new();
        while let Some((&byte, tail)) = rest.split_first() {
            let octet = (byte == b'%')
                .then(|| hex_octet(std::str::from_utf8(tail.get(..2)?).ok()?))
                .flatten();
            decoded.push(octet.unwrap_or(byte));
            rest = if octet.is_some() { &tail[2..] } else { tail };
        }
        decoded
    }

    proptest! {
        #[test]
        fn s17_never_panics(path in any::<String>()) {
            let _ = normal_form(&path);
        }

        #[test]
        fn s11_the_normal_form_is_its_own_normal_form_and_means_the_same(
            path in "(/([a-z.~:;]|%[0-9a-fA-F]{2}|%e3%81%8[0-9a-f]|\\\\){0,4}){1,5}"
        ) {
            if let Ok(normal) = normal_form(&path) {
                prop_assert!(matches!(normal_form(&normal), Ok(Cow::Borrowed(same)) if same == normal));
                prop_assert_eq!(decode(&normal), decode(&path));
                let decoded = String::from_utf8(decode(&normal)).unwrap();
                prop_assert_eq!(decoded.matches('/').count(), path.matches('/').count());
                prop_assert!(!decoded.split('/').any(|segment| segment == "." || segment == ".."));
            }
        }
    }
}

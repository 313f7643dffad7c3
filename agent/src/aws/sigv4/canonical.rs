//! The forms of path, query and headers that are sent and signed.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, HOST},
};

use super::{SignError, headers::AMZ};

/// How a service reads a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// Normalised, then escaped once more for the signature: every service but S3.
    Normalised,
    /// Every byte of a key counts: S3. Escaped once, nothing resolved.
    Key,
    /// A combination only the official test vectors have.
    #[cfg(test)]
    DoubleAsSent,
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// RFC 3986's unreserved characters: all that SigV4 leaves unescaped.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
}

/// The query as it is sent and signed; `None` where there is none.
pub(super) fn query(raw: &str) -> Result<Option<String>, SignError> {
    if raw.is_empty() {
        return Ok(None);
    }
    let mut pairs = Vec::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = component("query", name, true)?;
        // Signed twice, in the query and in a header, is signed by neither.
        if name
            .get(..AMZ.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(AMZ))
        {
            return Err(SignError::Unsignable(
                "the query has an x-amz-* parameter: it is signed already (a presigned URL), and \
                 this route signs with the agent's identity; call the URL directly"
                    .to_owned(),
            ));
        }
        pairs.push((name, component("query", value, true)?));
    }
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    Ok((!pairs.is_empty()).then(|| pairs.join("&")))
}

/// The path as it is sent; the signer escapes it once more where the service wants that.
pub(super) fn path(raw: &str, style: Path) -> Result<Cow<'_, str>, SignError> {
    if !raw.starts_with('/') {
        return Err(SignError::Unsignable("the target is not a path".to_owned()));
    }
    match style {
        Path::Normalised => normalised(raw),
        Path::Key => key(raw),
        #[cfg(test)]
        Path::DoubleAsSent => Ok(Cow::Borrowed(raw)),
    }
}

fn normalised(raw: &str) -> Result<Cow<'_, str>, SignError> {
    if raw.contains('%') {
        for segment in raw.split('/') {
            if segment.contains('%') && matches!(&*decoded("path", segment, false)?, "." | "..") {
                return Err(SignError::Unsignable(
                    "the path has an escaped dot segment".to_owned(),
                ));
            }
        }
    }
    if !raw.contains("//") && !raw.contains("/.") {
        return Ok(Cow::Borrowed(raw));
    }
    let mut segments = Vec::new();
    for segment in raw.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut path = format!("/{}", segments.join("/"));
    let is_directory = ["/", "/.", "/.."].iter().any(|end| raw.ends_with(end));
    if is_directory && !path.ends_with('/') {
        path.push('/');
    }
    Ok(Cow::Owned(path))
}

/// The path of an S3 key: decoded, and every byte but `/` and the unreserved escaped again.
///
/// S3 decodes a path into a key and builds the canonical form from that, so `%2F` and `/` are the same key, and the
/// same signature: `/` is sent. `.` and `..` are parts of a key like any other, and so are empty segments. S3 itself
/// refuses keys that climb above their start; so do we: behind a base path, whoever resolves them would be led out.
fn key(raw: &str) -> Result<Cow<'_, str>, SignError> {
    let decoded = decoded("path", raw, false)?;
    let mut depth = 0_usize;
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                depth = depth.checked_sub(1).ok_or_else(|| {
                    let why = "the key has more `..` segments than there are segments before them";
                    SignError::Unsignable(why.to_owned())
                })?;
            }
            _ => depth += 1,
        }
    }
    if raw.bytes().all(|byte| is_unreserved(byte) || byte == b'/') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut escaped = String::with_capacity(raw.len() + 16);
    escape_path(&decoded, &mut escaped);
    match escaped == raw {
        true => Ok(Cow::Borrowed(raw)),
        false => Ok(Cow::Owned(escaped)),
    }
}

/// Escapes all but `/` and the unreserved: of a path that is escaped already this is the second time.
pub(super) fn escape_path(raw: &str, into: &mut String) {
    for byte in raw.bytes() {
        match byte {
            b'/' => into.push('/'),
            byte => escape(byte, into),
        }
    }
}

/// Brings a signed header into one line: trimmed, white space collapsed, repeats joined by commas.
pub(super) fn one_line(headers: &mut HeaderMap, name: &HeaderName) -> Result<(), SignError> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else {
        return Ok(());
    };
    let repeated = values.next().is_some();
    if repeated && name == CONTENT_TYPE {
        return Err(SignError::Unsignable(format!("{name} is repeated")));
    }
    if !repeated && is_one_line(first.as_bytes()) {
        return Ok(());
    }
    let mut line = String::new();
    for (n, value) in headers.get_all(name).iter().enumerate() {
        let text = value.to_str().map_err(|_| {
            SignError::Unsignable(format!("{name} is signed and has characters beyond ASCII"))
        })?;
        if n > 0 {
            line.push(',');
        }
        let words = text.split([' ', '\t']).filter(|word| !word.is_empty());
        for (n, word) in words.enumerate() {
            if n > 0 {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    let unsignable = |_| SignError::Unsignable(format!("{name} is not a valid header"));
    let line = HeaderValue::try_from(line).map_err(unsignable)?;
    headers.insert(name, line);
    Ok(())
}

/// Visible ASCII in words with one space between them.
fn is_one_line(value: &[u8]) -> bool {
    let mut before = b' ';
    for &byte in value {
        if !(byte.is_ascii_graphic() || byte == b' ') || (byte == b' ' && before == b' ') {
            return false;
        }
        before = byte;
    }
    value.is_empty() || before != b' '
}

/// The only `host`, without a default port. `authority` is that of the target, if it has one.
pub(super) fn host(headers: &HeaderMap, authority: Option<&str>) -> Result<HeaderValue, SignError> {
    let unsignable = |why: &str| SignError::Unsignable(why.to_owned());
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(unsignable("there is not exactly one host header"));
    };
    let text = host.to_str().unwrap_or_default().trim();
    if text.is_empty() || text.contains([' ', '\t', ',']) {
        return Err(unsignable("the host header is not a host"));
    }
    if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(text)) {
        return Err(unsignable(
            "the target's authority is not the host header's",
        ));
    }
    let bare = text
        .strip_suffix(":443")
        .or_else(|| text.strip_suffix(":80"))
        .unwrap_or(text);
    HeaderValue::from_str(bare).map_err(|_| unsignable("the host header is not a host"))
}

/// `raw` decoded and escaped again, so that every spelling of it becomes the same.
fn component(place: &str, raw: &str, plus_is_space: bool) -> Result<String, SignError> {
    let decoded = decoded(place, raw, plus_is_space)?;
    let mut escaped = String::with_capacity(decoded.len());
    decoded.bytes().for_each(|byte| escape(byte, &mut escaped));
    Ok(escaped)
}

/// Escapes what may be anything: a token, a list of names.
pub(super) fn escaped(raw: &str) -> String {
    let mut escaped = String::with_capacity(raw.len());
    raw.bytes().for_each(|byte| escape(byte, &mut escaped));
    escaped
}

fn escape(byte: u8, into: &mut String) {
    if is_unreserved(byte) {
        into.push(char::from(byte));
        return;
    }
    let digit = |nibble: u8| {
        HEX.get(usize::from(nibble))
            .copied()
            .map_or('0', char::from)
    };
    into.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}

/// Undoes the escapes; the errors don't repeat what may be a secret. Decoding what is not UTF-8 loosely would give
/// different requests one signature.
fn decoded<'a>(place: &str, raw: &'a str, plus_is_space: bool) -> Result<Cow<'a, str>, SignError> {
    if !raw.contains(['%', '+']) {
        return Ok(Cow::Borrowed(raw));
    }
    let unsignable = |what: &str| SignError::Unsignable(format!("the {place} has {what}"));
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (high, low, after) = match after {
                    [high, low, after @ ..] => (hex(*high), hex(*low), after),
                    _ => (None, None, after),
                };
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(unsignable("an escape that is not two hex digits"));
                };
                bytes.push(high << 4 | low);
                rest = after;
            }
            b'+' if plus_is_space => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| unsignable("escapes that are not UTF-8"))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical_query(raw: &str) -> String {
        query(raw).unwrap().unwrap_or_default()
    }

    #[test]
    fn every_spelling_of_a_query_becomes_one() {
        assert_eq!(canonical_query("b=2&a=1"), "a=1&b=2");
        assert_eq!(canonical_query("a=2&a=1"), "a=1&a=2");
        assert_eq!(canonical_query("a=x+y%2bz"), "a=x%20y%2Bz");
        assert_eq!(canonical_query("a=%7e/%2f;"), "a=~%2F%2F%3B");
        assert_eq!(canonical_query("&&a&b=&=c&"), "=c&a=&b=");
        assert_eq!(canonical_query("a=b=c"), "a=b%3Dc");
        assert_eq!(canonical_query("ሴ=é"), "%E1%88%B4=%C3%A9");
        assert_eq!(query("").unwrap(), None);
        assert_eq!(query("&").unwrap(), None);
        // Sorted by the escaped name, then the escaped value: `a=` comes before `a-b=`.
        assert_eq!(canonical_query("a-b=1&a=2"), "a=2&a-b=1");
    }

    #[test]
    fn s06_an_undecodable_escape_is_refused() {
        for raw in ["a=%FF", "a=%", "a=%4", "a=%zz", "%C3=1", "a=%+1"] {
            assert!(query(raw).is_err(), "{raw}");
        }
        for raw in ["/%FF", "/a%", "/%g0", "/a/%C3/"] {
            assert!(path(raw, Path::Normalised).is_err(), "{raw}");
            assert!(path(raw, Path::Key).is_err(), "{raw}");
        }
    }

    #[test]
    fn s06_a_query_that_carries_a_signature_is_refused() {
        for raw in [
            "X-Amz-Signature=00",
            "a=b&x-amz-security-token=t",
            "X%2DAmz-Credential=c",
        ] {
            assert!(query(raw).is_err(), "{raw}");
        }
        assert!(query("x-am=1&x=x-amz-date").is_ok());
    }

    #[test]
    fn paths_are_normalised_except_for_s3() {
        let normal = |raw| path(raw, Path::Normalised).unwrap().into_owned();
        assert_eq!(normal("/a//b/./c/../d"), "/a/b/d");
        assert_eq!(normal("/a/.."), "/");
        assert_eq!(normal("/../../a/"), "/a/");
        assert_eq!(normal("/a/."), "/a/");
        assert_eq!(normal("/.well-known/x"), "/.well-known/x");
        assert_eq!(normal("/a%20b/@c:d"), "/a%20b/@c:d");
    }

    #[test]
    fn every_byte_of_an_s3_key_counts() {
        let s3 = |raw| path(raw, Path::Key).unwrap().into_owned();
        assert_eq!(s3("/bucket//a/../b"), "/bucket//a/../b");
        assert_eq!(s3("//a/"), "//a/");
        assert_eq!(s3("/k+%7e%2b (1)"), "/k%2B~%2B%20%281%29");
        assert_eq!(s3("/a%2Fb%2fc"), "/a/b/c");
        assert_eq!(s3("/a%252Fb"), "/a%252Fb");
        assert_eq!(s3("/a;b=c/\\/%00/ሴ"), "/a%3Bb%3Dc/%5C/%00/%E1%88%B4");
        assert_eq!(s3("/./a/.../..b"), "/./a/.../..b");
    }

    #[test]
    fn s11_a_key_does_not_climb_above_its_start() {
        for raw in [
            "/..",
            "/../a",
            "/a/../../b",
            "/%2e%2E/a",
            "/a/..%2f..%2fb",
            "//../a",
            "/./../a",
        ] {
            assert!(path(raw, Path::Key).is_err(), "{raw}");
        }
        for raw in ["/a/..", "/a/b/../../c", "/a/%2e%2e/b"] {
            assert!(path(raw, Path::Key).is_ok(), "{raw}");
        }
    }

    #[test]
    fn refuses_paths_that_a_verifier_may_read_otherwise() {
        assert!(path("/a/%2e%2E/b", Path::Normalised).is_err());
        assert!(path("/a/%2e", Path::Normalised).is_err());
        assert!(path("*", Path::Normalised).is_err());
        assert!(path("", Path::Normalised).is_err());
        assert!(path("/a%2Fb%2e", Path::Normalised).is_ok());
    }

    #[test]
    fn a_signed_header_is_one_line_without_surplus_space() {
        let name = HeaderName::from_static("x-tenant");
        let mut headers = HeaderMap::new();
        one_line(&mut headers, &name).unwrap();
        assert!(headers.is_empty());
        for (value, line) in [
            ("", ""),
            ("a b", "a b"),
            (" a", "a"),
            ("a ", "a"),
            ("a  b", "a b"),
            ("a\tb", "a b"),
        ] {
            headers.insert(&name, HeaderValue::from_static(value));
            one_line(&mut headers, &name).unwrap();
            assert_eq!(headers[&name], line, "{value:?}");
        }
        headers.insert(&name, HeaderValue::from_static(" a \t b"));
        headers.append(&name, HeaderValue::from_static("c "));
        one_line(&mut headers, &name).unwrap();
        assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), ["a b,c"]);
        headers.append(&name, HeaderValue::from_bytes(b"\xe9").unwrap());
        assert!(one_line(&mut headers, &name).is_err());

        headers.append(CONTENT_TYPE, HeaderValue::from_static("a/b"));
        headers.append(CONTENT_TYPE, HeaderValue::from_static("c/d"));
        assert!(one_line(&mut headers, &CONTENT_TYPE).is_err());
    }

    #[test]
    fn there_is_exactly_one_host() {
        let of = |values: &[&'static str], authority| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HOST, HeaderValue::from_static(value));
            }
            host(&headers, authority)
        };
        assert_eq!(of(&["a.example:443"], None).unwrap(), "a.example");
        assert_eq!(of(&["127.0.0.1:4566"], None).unwrap(), "127.0.0.1:4566");
        assert_eq!(of(&["[::1]:80"], None).unwrap(), "[::1]");
        assert!(of(&["a", "a"], None).is_err());
        assert!(of(&[], None).is_err());
        assert!(of(&[""], None).is_err());
        assert!(of(&["a"], Some("b")).is_err());
        assert!(of(&["a"], Some("A")).is_ok());
    }

    /// The pairs a service would read.
    fn pairs(raw: &str) -> Vec<(String, String)> {
        let decode = |text| decoded("query", text, true).unwrap().into_owned();
        let mut pairs: Vec<_> = raw
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (decode(name), decode(value)))
            .collect();
        pairs.sort();
        pairs
    }

    proptest! {
        #[test]
        fn a_canonical_query_says_the_same_and_stays(
            raw in "([a-zA-Z+;/?:@~.-]|%[2-7][0-9A-Fa-f]|=|&|é){0,40}"
        ) {
            // Refused are those that carry a signature; the pattern makes none that can't be decoded.
            if let Ok(canonical) = query(&raw) {
                let canonical = canonical.unwrap_or_default();
                prop_assert_eq!(pairs(&raw), pairs(&canonical));
                prop_assert_eq!(canonical_query(&canonical), canonical);
            }
        }

        #[test]
        fn a_canonical_path_stays(raw in "(/|[a-z.+:@é]|%[2-7][0-9A-Fa-f]){0,40}") {
            for style in [Path::Normalised, Path::Key] {
                let raw = format!("/{raw}");
                if let Ok(once) = path(&raw, style) {
                    prop_assert_eq!(&path(&once, style).unwrap(), &once);
                }
            }
        }

        #[test]
        fn nothing_panics(raw in "\\PC{0,60}") {
            let _ = query(&raw);
            let _ = path(&raw, Path::Normalised);
            let _ = path(&raw, Path::Key);
        }
    }
}

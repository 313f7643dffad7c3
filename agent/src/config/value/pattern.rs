//! Patterns over SPIFFE IDs and over requests.

use std::{borrow::Cow, fmt};

use warifu::{SpiffeId, TrustDomain};

use super::text::{Kind, reads_from_text};

/// Which SPIFFE IDs: `spiffe://td/path` where a segment `*` stands for one segment and a last `**` for the rest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdPattern {
    /// Trust domain, exact.
    pub trust_domain: String,
    /// Path segments.
    pub segments: Vec<Segment>,
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This segment exactly.
    Literal(String),
    /// Any one segment (`*`).
    One,
    /// The rest, at least one segment (`**`, last only).
    Rest,
}

/// What may be asked: `GET /charges/*`, `* /health`, `POST /reports/**`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The method; `None` for `*`.
    pub method: Option<String>,
    /// Path segments, in normal form.
    pub segments: Vec<Segment>,
    /// Whether the pattern ends in `/` (`GET /` is empty segments and true).
    pub trailing_slash: bool,
}

reads_from_text!(IdPattern, Target);

impl IdPattern {
    /// Whether `id` is one of these.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        if id.trust_domain_name() != self.trust_domain {
            return false;
        }
        let mut path = id.path().strip_prefix('/').unwrap_or_default().split('/');
        for segment in &self.segments {
            // A SPIFFE ID has no empty segment, so an empty one here means no path at all.
            let Some(next) = path.next().filter(|next| !next.is_empty()) else {
                return false;
            };
            match segment {
                Segment::Literal(literal) if literal != next => return false,
                Segment::Literal(_) | Segment::One => {}
                Segment::Rest => return true,
            }
        }
        path.next().is_none()
    }
}

impl Kind for IdPattern {
    type Value = Self;
    const NAME: &'static str = "IdPattern";
    const EXPECTED: &'static str = "a SPIFFE ID such as spiffe://example.org/orders, where a \
                                    segment may be * and the last **";
    const PATTERN: Option<&'static str> = Some("^spiffe://");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let rest = text.strip_prefix("spiffe://").ok_or("")?;
        let (domain, path) = rest
            .split_once('/')
            .ok_or("a path is missing; /** means every workload of the trust domain")?;
        let domain = TrustDomain::new(domain).map_err(|error| error.to_string())?;
        Ok(Self {
            trust_domain: domain.as_str().to_owned(),
            segments: segments(path, spiffe_segment)?,
        })
    }
}

impl Kind for Target {
    type Value = Self;
    const NAME: &'static str = "Target";
    const EXPECTED: &'static str = "a method and a path such as \"GET /charges/*\", where the method \
                                    may be *, a segment * and the last **";
    const PATTERN: Option<&'static str> = Some("^[A-Z*-]+ /");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let (method, path) = text.split_once(' ').ok_or("")?;
        let method = match method {
            "*" => None,
            _ if is_method(method) => Some(method.to_owned()),
            _ => return Err("the method is in capital letters, or *".into()),
        };
        let path = path.strip_prefix('/').ok_or("the path begins with /")?;
        let (segments, trailing_slash) = match (path, path.strip_suffix('/')) {
            ("", _) => (Vec::new(), true),
            (_, Some(path)) => (segments(path, path_segment)?, true),
            (_, None) => (segments(path, path_segment)?, false),
        };
        if trailing_slash && segments.last() == Some(&Segment::Rest) {
            return Err("** already covers a last /".into());
        }
        Ok(Self {
            method,
            segments,
            trailing_slash,
        })
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Literal(literal) => literal,
            Self::One => "*",
            Self::Rest => "**",
        })
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.trust_domain)?;
        self.segments.iter().try_for_each(|s| write!(f, "/{s}"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.method.as_deref().unwrap_or("*"))?;
        self.segments.iter().try_for_each(|s| write!(f, "/{s}"))?;
        match self.trailing_slash {
            true => f.write_str("/"),
            false => Ok(()),
        }
    }
}

fn segments(
    path: &str,
    literal: fn(&str) -> Result<(), Cow<'static, str>>,
) -> Result<Vec<Segment>, Cow<'static, str>> {
    let count = path.split('/').count();
    path.split('/')
        .enumerate()
        .map(|(index, segment)| match segment {
            "*" => Ok(Segment::One),
            "**" if index + 1 == count => Ok(Segment::Rest),
            "**" => Err("** stands last".into()),
            "" => Err("the path has an empty segment".into()),
            "." | ".." => Err("the path has a dot segment".into()),
            _ if segment.contains('*') => Err("* is a whole segment".into()),
            _ => literal(segment).map(|()| Segment::Literal(segment.to_owned())),
        })
        .collect()
}

/// SPIFFE-ID §2.2.
fn spiffe_segment(segment: &str) -> Result<(), Cow<'static, str>> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match segment.bytes().all(plain) {
        true => Ok(()),
        false => Err("a segment has letters, digits and -._".into()),
    }
}

/// A segment in the form in which requests are matched: what need not be escaped is not, what must be
/// is, with capital hex digits (RFC 3986 §6.2.2). Otherwise it would never match anything.
fn path_segment(segment: &str) -> Result<(), Cow<'static, str>> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut rest = segment.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if unreserved(byte) || b"!$&'()+,=:@".contains(&byte) {
            decoded.push(byte);
            continue;
        }
        if byte != b'%' {
            return Err("a character is not allowed in a path; escape it (%20)".into());
        }
        let (escape, after) = rest.split_at_checked(2).ok_or("% begins %XX")?;
        rest = after;
        let hex = std::str::from_utf8(escape).unwrap_or_default();
        let capital = hex
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
        let escaped = match u8::from_str_radix(hex, 16) {
            Ok(escaped) if capital => escaped,
            _ => return Err("% begins %XX with capital hex digits".into()),
        };
        if unreserved(escaped) {
            return Err("an escape stands for a plain character; write the character".into());
        }
        if escaped.is_ascii_control() || escaped == b'/' || escaped == b'\\' {
            return Err("no request is accepted with this escape".into());
        }
        decoded.push(escaped);
    }
    match std::str::from_utf8(&decoded) {
        Ok(_) => Ok(()),
        Err(_) => Err("escapes must be UTF-8".into()),
    }
}

fn is_method(method: &str) -> bool {
    let capital = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
    !method.is_empty() && method.len() <= 32 && method.bytes().all(capital)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, id: &str) -> bool {
        let pattern: IdPattern = pattern.parse().unwrap();
        pattern.matches(&SpiffeId::new(id).unwrap())
    }

    #[test]
    fn a_pattern_matches_whole_segments_of_its_own_trust_domain() {
        assert!(matches("spiffe://a.org/x", "spiffe://a.org/x"));
        assert!(!matches("spiffe://a.org/x", "spiffe://b.org/x"));
        assert!(!matches("spiffe://a.org/x", "spiffe://a.org/x/y"));
        assert!(!matches("spiffe://a.org/x", "spiffe://a.org/xy"));
        assert!(matches("spiffe://a.org/*/y", "spiffe://a.org/x/y"));
        assert!(!matches("spiffe://a.org/*", "spiffe://a.org/x/y"));
        assert!(matches("spiffe://a.org/x/**", "spiffe://a.org/x/y/z"));
        assert!(!matches("spiffe://a.org/x/**", "spiffe://a.org/x"));
        assert!(!matches("spiffe://a.org/**", "spiffe://a.org"));
        assert!(!matches("spiffe://a.org/*", "spiffe://a.org"));
        assert!(matches("spiffe://A.org/x", "spiffe://a.org/x"));
    }

    #[test]
    fn refuses_patterns_that_would_never_match() {
        for wrong in [
            "example.org/x",
            "spiffe://a.org",
            "spiffe://a.org/",
            "spiffe://a.org/x/",
            "spiffe://a.org/x*",
            "spiffe://a.org/**/x",
            "spiffe://*/x",
            "spiffe://a.org/../x",
            "spiffe://a.org/ä",
        ] {
            assert!(wrong.parse::<IdPattern>().is_err(), "{wrong}");
        }
        for wrong in [
            "/charges",
            "GET",
            "GET charges",
            "get /charges",
            "GET  /charges",
            "GET //",
            "GET /a/../b",
            "GET /a*",
            "GET /**/a",
            "GET /a/**/",
            "GET /%61",
            "GET /%2f",
            "GET /%2F",
            "GET /%5C",
            "GET /%00",
            "GET /%2",
            "GET /%FF",
            "GET /a?b",
            "GET /a;b",
            "GET /ä",
        ] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_last_slash_is_told_apart() {
        let read = |text: &str| text.parse::<Target>().unwrap();
        assert!(read("GET /").trailing_slash && read("GET /").segments.is_empty());
        assert!(read("GET /a/").trailing_slash);
        assert!(!read("GET /a").trailing_slash);
        assert_eq!(read("* /a").method, None);
        assert_eq!(
            read("GET /a%20b%C3%A4/*/**").segments,
            [
                Segment::Literal("a%20b%C3%A4".into()),
                Segment::One,
                Segment::Rest
            ]
        );
    }

    proptest! {
        #[test]
        fn what_is_read_reads_again_from_what_it_shows(
            text in "(spiffe://|GET |\\* )?[a-z/*%0-9A-F.é ]{0,30}"
        ) {
            if let Ok(pattern) = text.parse::<IdPattern>() {
                prop_assert_eq!(pattern.to_string().parse::<IdPattern>().unwrap(), pattern);
            }
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
            }
        }

        #[test]
        fn an_id_without_stars_matches_itself_alone(
            a in "[a-z]{1,8}(/[a-z0-9-]{1,8}){0,3}", b in "[a-z]{1,8}(/[a-z0-9-]{1,8}){0,3}"
        ) {
            let (a, b) = (format!("spiffe://t.org/{a}"), format!("spiffe://t.org/{b}"));
            prop_assert!(matches(&a, &a));
            prop_assert_eq!(matches(&a, &b), a == b);
        }
    }
}

//! `{fact}` templates of SPIFFE ID paths and DNS names.

use std::{borrow::Cow, fmt};

use super::text::{Kind, reads_from_text};

/// Reserved for the authority and what belongs to it: nothing under `/warifu` is ever issued by rule.
const RESERVED: &str = "warifu";
/// Longest SPIFFE ID path we issue. The whole ID may have 2048 bytes; the trust domain up to 255.
pub const MAX_PATH: usize = 1024;
/// RFC 1035 §2.3.4.
const MAX_LABEL: usize = 63;
/// RFC 1035 §2.3.4, as text without the final dot.
pub const MAX_NAME: usize = 253;

/// The path of a SPIFFE ID. Each segment has at most one fact and each fact is named once, so that two sets
/// of facts never fill it the same way unless the facts it names are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdTemplate(Vec<Piece>);

/// A DNS name; a fact fills a whole label, and each is named once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsTemplate(Vec<Piece>);

/// A segment or a label: `prefix{fact}suffix`, or the prefix alone where there is no fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Before the fact.
    pub prefix: String,
    /// The fact's name.
    pub fact: Option<String>,
    /// After the fact.
    pub suffix: String,
}

reads_from_text!(IdTemplate, DnsTemplate);

impl IdTemplate {
    /// Its segments: one at least.
    pub fn segments(&self) -> &[Piece] {
        &self.0
    }
}

impl DnsTemplate {
    /// Its labels: one at least.
    pub fn labels(&self) -> &[Piece] {
        &self.0
    }
}

impl Kind for IdTemplate {
    type Value = Self;
    const NAME: &'static str = "IdTemplate";
    const EXPECTED: &'static str = "the path of a SPIFFE ID such as /orders or /{role}";

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let path = text.strip_prefix('/').ok_or("it begins with /")?;
        if text.len() > MAX_PATH {
            return Err(format!("it has at most {MAX_PATH} bytes").into());
        }
        let segment = |segment| {
            let piece = Piece::parse(segment)?;
            let possible = piece.literals().all(is_path_character);
            if !possible || (piece.fact.is_none() && is_no_segment(&piece.prefix)) {
                return Err(Cow::from(
                    "it has a segment that SPIFFE forbids; there are letters, digits, \"-\", \"_\" and \".\" \
                     between single slashes",
                ));
            }
            Ok(piece)
        };
        let segments: Vec<Piece> = path.split('/').map(segment).collect::<Result<_, _>>()?;
        let first = segments.first();
        if first.is_some_and(|first| first.fact.is_none() && is_reserved(&first.prefix)) {
            return Err(format!("/{RESERVED}/… is reserved for the authority").into());
        }
        named_once(&segments)?;
        Ok(Self(segments))
    }
}

impl Kind for DnsTemplate {
    type Value = Self;
    const NAME: &'static str = "DnsTemplate";
    const EXPECTED: &'static str = "a DNS name such as orders.internal or {role}.internal";

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        if text.len() > MAX_NAME {
            return Err(format!("it has at most {MAX_NAME} bytes").into());
        }
        let label = |label| {
            let piece = Piece::parse(label)?;
            let alone = piece.prefix.is_empty() && piece.suffix.is_empty();
            if if piece.fact.is_some() {
                !alone
            } else {
                !is_label(&piece.prefix)
            } {
                return Err(Cow::from(
                    "a label has lower-case letters, digits and inner \"-\"; a fact fills a whole one",
                ));
            }
            Ok(piece)
        };
        let labels: Vec<Piece> = text.split('.').map(label).collect::<Result<_, _>>()?;
        // A name all of facts could come out as anything, `localhost` or the top of a zone included; and what
        // ends in a number is an address to some.
        let fixed = labels
            .last()
            .filter(|last| last.fact.is_none() && !last.prefix.bytes().all(|b| b.is_ascii_digit()));
        if fixed.is_none() {
            return Err("it ends in a fixed domain".into());
        }
        named_once(&labels)?;
        Ok(Self(labels))
    }
}

impl Piece {
    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        const BRACES: &str =
            "at most one {fact}, with its name in lower case, stands between slashes (or dots)";
        let (prefix, fact, suffix) = match text.split_once('{') {
            None => (text, None, ""),
            Some((prefix, rest)) => {
                let (fact, suffix) = rest.split_once('}').ok_or(BRACES)?;
                (prefix, Some(fact), suffix)
            }
        };
        if [prefix, suffix].concat().contains(['{', '}']) || !fact.is_none_or(is_fact_name) {
            return Err(BRACES.into());
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            fact: fact.map(str::to_owned),
            suffix: suffix.to_owned(),
        })
    }

    fn literals(&self) -> impl Iterator<Item = char> {
        self.prefix.chars().chain(self.suffix.chars())
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)?;
        if let Some(fact) = &self.fact {
            write!(f, "{{{fact}}}")?;
        }
        f.write_str(&self.suffix)
    }
}

impl fmt::Display for IdTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| write!(f, "/{piece}"))
    }
}

impl fmt::Display for DnsTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self.0.iter().map(Piece::to_string).collect();
        f.write_str(&labels.join("."))
    }
}

/// What a fact may be called.
pub fn is_fact_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// SPIFFE ID §2.2.
pub fn is_path_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// What stands between two slashes and is no segment.
pub fn is_no_segment(segment: &str) -> bool {
    matches!(segment, "" | "." | "..")
}

/// Whether this first segment is the authority's. Case counts in SPIFFE IDs, and people overlook it.
pub fn is_reserved(first: &str) -> bool {
    first.eq_ignore_ascii_case(RESERVED)
}

/// What a label is made of.
pub fn is_label_character(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

/// One label of a DNS name, in lower case.
pub fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.chars().all(is_label_character)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn named_once(pieces: &[Piece]) -> Result<(), Cow<'static, str>> {
    let mut facts: Vec<&str> = pieces
        .iter()
        .filter_map(|piece| piece.fact.as_deref())
        .collect();
    facts.sort_unstable();
    let twice = facts.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    });
    twice.map_or(Ok(()), |fact| {
        Err(format!("{{{fact}}} stands in it twice; once says all").into())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn s18_a_template_cannot_name_a_reserved_or_impossible_identity() {
        for right in [
            "/orders",
            "/{role}",
            "/prod/ns/{namespace}/sa/svc-{name}",
            "/warifu-x",
            "/a/warifu",
        ] {
            assert_eq!(right.parse::<IdTemplate>().unwrap().to_string(), right);
        }
        for wrong in [
            "",
            "/",
            "orders",
            "/warifu",
            "/Warifu/x",
            "/warifu/authority",
            "/warifu/{role}",
            "/a//b",
            "/a/../b",
            "/a/",
            "/{role",
            "/role}",
            "/{}",
            "/{Role}",
            "/a b",
            "/ä",
            "/{",
            "/a}",
        ] {
            assert!(wrong.parse::<IdTemplate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn s18_two_facts_in_one_segment_are_refused_for_they_could_be_split_two_ways() {
        let refused = "/{a}-{b}".parse::<IdTemplate>().unwrap_err().to_string();
        assert!(refused.contains("at most one {fact}"), "{refused}");
    }

    #[test]
    fn a_fact_is_named_once() {
        for wrong in ["/{a}/{a}", "/{a}/x/{b}/y-{a}"] {
            let refused = wrong.parse::<IdTemplate>().unwrap_err().to_string();
            assert!(refused.contains("{a} stands in it twice"), "{refused}");
        }
        assert!("{a}.{a}.internal".parse::<DnsTemplate>().is_err());
    }

    #[test]
    fn a_dns_name_takes_whole_lower_case_labels_and_ends_in_a_fixed_domain() {
        for right in ["orders.internal", "{role}.internal", "{a}.{b}.x"] {
            assert_eq!(right.parse::<DnsTemplate>().unwrap().to_string(), right);
        }
        for wrong in [
            "{s}",
            "x.{s}",
            "svc-{s}.internal",
            "*.internal",
            "Internal",
            "a..b",
            "",
            "-a.internal",
            "a_b.internal",
            "10.0.0.1",
        ] {
            assert!(wrong.parse::<DnsTemplate>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = (IdTemplate::read(&text), DnsTemplate::read(&text));
        }
    }
}

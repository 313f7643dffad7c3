//! `{fact}` templates of SPIFFE ID paths and DNS names.

use super::Facts;

/// Reserved for the authority and what belongs to it: nothing under `/warifu` is ever issued by rule.
const RESERVED: &str = "warifu";
/// Longest SPIFFE ID path we issue. The whole ID may have 2048 bytes; the trust domain up to 255.
const MAX_PATH: usize = 1024;
/// RFC 1035 §2.3.4.
const MAX_LABEL: usize = 63;
/// RFC 1035 §2.3.4, as text without the final dot.
const MAX_NAME: usize = 253;

/// A SPIFFE ID path; each segment has at most one fact, so that two sets of facts never fill the
/// template the same way unless the facts it names are the same.
#[derive(Debug)]
pub(super) struct PathTemplate(Vec<Segment>);

/// A DNS name; a fact fills a whole label.
#[derive(Debug)]
pub(super) struct DnsTemplate(Vec<Segment>);

/// `prefix{fact}suffix`, or a literal where there is no fact.
#[derive(Debug)]
struct Segment {
    prefix: String,
    fact: Option<String>,
    suffix: String,
}

impl PathTemplate {
    pub(super) fn parse(template: &str) -> Result<Self, String> {
        let Some(segments) = template.strip_prefix('/') else {
            return Err(format!(
                "{template:?} does not begin with \"/\"; expected a path such as \"/prod/{{role}}\""
            ));
        };
        let segments: Vec<Segment> = segments
            .split('/')
            .map(|segment| {
                let segment = Segment::parse(segment)?;
                let literal = segment.literals().all(is_path_character);
                if !literal || (segment.fact.is_none() && is_no_segment(&segment.prefix)) {
                    return Err(format!(
                        "{template:?} has a segment that SPIFFE forbids; expected letters, digits, \"-\", \"_\" and \".\" between single slashes"
                    ));
                }
                Ok(segment)
            })
            .collect::<Result<_, _>>()?;
        if let Some(first) = segments.first()
            && first.fact.is_none()
            && is_reserved(&first.prefix)
        {
            return Err(format!(
                "{template:?} is reserved: nothing under /{RESERVED} is issued by rule"
            ));
        }
        Ok(Self(segments))
    }

    pub(super) fn fill(&self, facts: &Facts) -> Result<String, String> {
        let mut path = String::new();
        for (index, segment) in self.0.iter().enumerate() {
            let filled = segment.fill(
                facts,
                is_path_character,
                "letters, digits, \"-\", \"_\" and \".\"",
            )?;
            if is_no_segment(&filled) {
                return Err(format!("{filled:?} is no path segment"));
            }
            if index == 0 && is_reserved(&filled) {
                return Err(format!("/{filled} is reserved"));
            }
            path.push('/');
            path.push_str(&filled);
        }
        if path.len() > MAX_PATH {
            return Err(format!("the path is over {MAX_PATH} bytes"));
        }
        Ok(path)
    }
}

impl DnsTemplate {
    pub(super) fn parse(template: &str) -> Result<Self, String> {
        let labels: Vec<Segment> = template
            .split('.')
            .map(|label| {
                let label = Segment::parse(label)?;
                let alone = label.prefix.is_empty() && label.suffix.is_empty();
                if if label.fact.is_some() { !alone } else { !is_label(&label.prefix) } {
                    return Err(format!(
                        "{template:?} is no DNS name; expected lower-case labels, a fact filling a whole one, such as \"{{role}}.internal\""
                    ));
                }
                Ok(label)
            })
            .collect::<Result<_, _>>()?;
        // A name all of facts could come out as anything, `localhost` or the top of a zone included.
        if labels.last().is_none_or(|last| last.fact.is_some()) {
            return Err(format!(
                "{template:?} ends in a fact; expected a fixed domain"
            ));
        }
        Ok(Self(labels))
    }

    pub(super) fn fill(&self, facts: &Facts) -> Result<String, String> {
        let mut labels = Vec::with_capacity(self.0.len());
        for label in &self.0 {
            let filled = label.fill(
                facts,
                is_label_character,
                "lower-case letters, digits and \"-\"",
            )?;
            if !is_label(&filled) {
                return Err(format!("{filled:?} is no DNS label"));
            }
            labels.push(filled);
        }
        let name = labels.join(".");
        if name.len() > MAX_NAME {
            return Err(format!("{name} is over {MAX_NAME} bytes"));
        }
        Ok(name)
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        let braces = || {
            format!(
                "{text:?}: expected at most one {{fact}}, with its name in lower case, between slashes (or dots)"
            )
        };
        let (prefix, fact, suffix) = match text.split_once('{') {
            None => (text, None, ""),
            Some((prefix, rest)) => {
                let (fact, suffix) = rest.split_once('}').ok_or_else(braces)?;
                (prefix, Some(fact), suffix)
            }
        };
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        if [prefix, suffix].concat().contains(['{', '}']) || !fact.is_none_or(is_name) {
            return Err(braces());
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

    fn fill(
        &self,
        facts: &Facts,
        allowed: fn(char) -> bool,
        expected: &str,
    ) -> Result<String, String> {
        let Some(fact) = &self.fact else {
            return Ok(self.prefix.clone());
        };
        let value = facts
            .get(fact)
            .ok_or_else(|| format!("fact {fact:?} was not attested"))?;
        if value.is_empty() || !value.chars().all(allowed) {
            return Err(format!("fact {fact} is {value:?}; expected {expected}"));
        }
        Ok(format!("{}{value}{}", self.prefix, self.suffix))
    }
}

/// SPIFFE ID §2.2.
fn is_path_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn is_no_segment(segment: &str) -> bool {
    matches!(segment, "" | "." | "..")
}

/// Case counts in SPIFFE IDs, and people overlook it.
fn is_reserved(first: &str) -> bool {
    first.eq_ignore_ascii_case(RESERVED)
}

fn is_label_character(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.chars().all(is_label_character)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

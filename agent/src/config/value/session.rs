//! Texts of role sessions (names, source identities, tags), with what is known of the workload filled in.

use std::{borrow::Cow, fmt};

use aws_lc_rs::digest;
use warifu::SpiffeId;

use super::text::{Kind, reads_from_text};

/// Shortest and longest `RoleSessionName` and `SourceIdentity`, both of one form.
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
const SHORTEST: usize = 2;
const LONGEST: usize = 64;

/// How much of a name that is too long stays, before `-` and [`DIGITS`] of its hash.
const KEPT: usize = LONGEST - 1 - DIGITS;

/// Hex digits of the hash that tells two shortened names apart.
const DIGITS: usize = 8;

/// Before a name that is too short.
const BEFORE: &str = "warifu-";

/// Longest value of a session tag.
pub const MAX_TAG_VALUE: usize = 256;

/// A role session's name, or a source identity: with `{trust_domain}`, `{path}` and `{name}` filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionTemplate(Vec<Part>);

/// A session tag's value: as [`SessionTemplate`], and with `{spiffe_id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagTemplate(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Of(Variable),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    /// `spiffe://example.org/shop/orders`
    SpiffeId,
    /// `example.org`
    TrustDomain,
    /// `/shop/orders`
    Path,
    /// `orders`
    Name,
}

reads_from_text!(SessionTemplate, TagTemplate);

impl SessionTemplate {
    /// `{path}`: what a session is named after where nothing is said.
    pub fn path() -> Self {
        Self(vec![Part::Of(Variable::Path)])
    }

    /// The name, for the workload with this identity: `/` of its path becomes `.`. What is longer than 64 characters
    /// keeps 55, and ends in a hash of all; what has only one gets `warifu-` before it. `None` where it takes an
    /// identity and there is none.
    pub fn fill(&self, workload: Option<&SpiffeId>) -> Option<String> {
        let name = fill(&self.0, workload, |value| {
            value.trim_start_matches('/').replace('/', ".")
        })?;
        Some(match name.len() {
            ..SHORTEST => format!("{BEFORE}{name}"),
            SHORTEST..=LONGEST => name,
            _ => shortened(&name),
        })
    }
}

impl TagTemplate {
    /// The value, for the workload with this identity. `None` where it takes an identity and there is none.
    pub fn fill(&self, workload: Option<&SpiffeId>) -> Option<String> {
        fill(&self.0, workload, |value| value)
    }
}

fn shortened(name: &str) -> String {
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let bytes = hash.as_ref().iter().take(DIGITS / 2);
    let digits: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    let kept: String = name.chars().take(KEPT).collect();
    format!("{kept}-{digits}")
}

fn fill(
    parts: &[Part],
    workload: Option<&SpiffeId>,
    form: impl Fn(String) -> String,
) -> Option<String> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Of(variable) => text.push_str(&form(variable.of(workload?))),
        }
    }
    Some(text)
}

impl Variable {
    const ALL: [(Self, &'static str); 4] = [
        (Self::SpiffeId, "{spiffe_id}"),
        (Self::TrustDomain, "{trust_domain}"),
        (Self::Path, "{path}"),
        (Self::Name, "{name}"),
    ];

    fn of(self, id: &SpiffeId) -> String {
        match self {
            Self::SpiffeId => id.to_string(),
            Self::TrustDomain => id.trust_domain().to_string(),
            Self::Path => id.path().to_owned(),
            Self::Name => id.path().rsplit('/').next().unwrap_or_default().to_owned(),
        }
    }
}

/// Literals and variables, as they alternate.
fn parts(text: &str) -> Result<Vec<Part>, Cow<'static, str>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (literal, from) = rest.split_at(at);
        let found = Variable::ALL
            .iter()
            .find_map(|(variable, word)| Some((*variable, from.strip_prefix(word)?)));
        let Some((variable, after)) = found else {
            let known: Vec<&str> = Variable::ALL.iter().map(|(_, word)| *word).collect();
            return Err(format!("what is in braces is one of {}", known.join(", ")).into());
        };
        if !literal.is_empty() {
            parts.push(Part::Text(literal.to_owned()));
        }
        parts.push(Part::Of(variable));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn literals(parts: &[Part]) -> impl Iterator<Item = &str> {
    parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        Part::Of(_) => None,
    })
}

impl Kind for SessionTemplate {
    type Value = Self;
    const NAME: &'static str = "SessionTemplate";
    const EXPECTED: &'static str = "2 to 64 letters, digits and +=,.@_-, with {trust_domain}, {path} and {name} filled in, \
                                    such as orders or {name}.{trust_domain}";

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let parts = parts(text)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
        if parts.contains(&Part::Of(Variable::SpiffeId)) {
            return Err(
                "a session's name has no : and no /; {trust_domain} and {path} say the same".into(),
            );
        }
        if !literals(&parts).all(|text| text.chars().all(allowed)) {
            return Err("".into());
        }
        let fixed: usize = literals(&parts).map(str::len).sum();
        let is_fixed = parts.iter().all(|part| matches!(part, Part::Text(_)));
        match fixed > LONGEST || (is_fixed && fixed < SHORTEST) {
            true => Err(format!("{fixed} characters of it are fixed").into()),
            false => Ok(Self(parts)),
        }
    }
}

impl Kind for TagTemplate {
    type Value = Self;
    const NAME: &'static str = "TagTemplate";
    const EXPECTED: &'static str = "a tag's value: up to 256 letters, digits, spaces and _.:/=+-@, with {spiffe_id}, \
                                    {trust_domain}, {path} and {name} filled in";

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let parts = parts(text)?;
        if !literals(&parts).all(|text| text.chars().all(is_tag_character)) {
            return Err("".into());
        }
        let fixed: usize = literals(&parts).map(|text| text.chars().count()).sum();
        match fixed > MAX_TAG_VALUE {
            true => Err(format!("{fixed} characters of it are fixed").into()),
            false => Ok(Self(parts)),
        }
    }
}

/// What tags are made of: `[\p{L}\p{Z}\p{N}_.:/=+\-@]`.
pub fn is_tag_character(c: char) -> bool {
    c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c)
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Of(variable) => {
                let mut all = Variable::ALL.iter();
                let word = all.find(|(it, _)| it == variable).map(|(_, word)| *word);
                f.write_str(word.unwrap_or_default())
            }
        }
    }
}

impl fmt::Display for SessionTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| write!(f, "{part}"))
    }
}

impl fmt::Display for TagTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| write!(f, "{part}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(template: &str, id: &str) -> String {
        let template: SessionTemplate = template.parse().unwrap();
        template.fill(Some(&SpiffeId::new(id).unwrap())).unwrap()
    }

    #[test]
    fn a_session_is_named_after_the_workload() {
        let orders = "spiffe://example.org/shop/orders";
        assert_eq!(named("{path}", orders), "shop.orders");
        assert_eq!(named("{name}@{trust_domain}", orders), "orders@example.org");
        assert_eq!(named("blue", orders), "blue");
        assert_eq!(named("{path}", "spiffe://example.org/a"), "warifu-a");
        assert_eq!(SessionTemplate::path(), "{path}".parse().unwrap());
    }

    #[test]
    fn long_names_are_shortened_and_stay_apart() {
        let of = |end: &str| {
            named(
                "{path}",
                &format!("spiffe://example.org/{}{end}", "x".repeat(80)),
            )
        };
        assert_eq!(of("1").len(), LONGEST);
        assert_eq!(of("1"), of("1"));
        assert_ne!(of("1"), of("2"));
    }

    #[test]
    fn a_name_without_variables_needs_no_identity_and_one_with_them_does() {
        let fixed: SessionTemplate = "orders".parse().unwrap();
        assert_eq!(fixed.fill(None).as_deref(), Some("orders"));
        assert_eq!(SessionTemplate::path().fill(None), None);
    }

    #[test]
    fn tags_have_the_identity_as_it_is() {
        let id = SpiffeId::new("spiffe://example.org/shop/orders").unwrap();
        let filled = |text: &str| {
            text.parse::<TagTemplate>()
                .unwrap()
                .fill(Some(&id))
                .unwrap()
        };
        assert_eq!(filled("{spiffe_id}"), id.to_string());
        assert_eq!(filled("Tür {path}"), "Tür /shop/orders");
        assert_eq!(filled(""), "");
    }

    #[test]
    fn refuses_what_aws_would_refuse_and_variables_it_does_not_know() {
        for wrong in [
            "",
            "a",
            "a b",
            "a/b",
            "{host}",
            "{path",
            "path}",
            "{}",
            "ä",
            "{spiffe_id}",
            "{{path}}",
            &"x".repeat(65),
        ] {
            assert!(wrong.parse::<SessionTemplate>().is_err(), "{wrong}");
        }
        for wrong in ["a\tb", "a#b", "{host}", "{", &"x".repeat(257)] {
            assert!(wrong.parse::<TagTemplate>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_name_fits_sts(path in "[a-zA-Z0-9_-]{1,40}(/[a-zA-Z0-9._-]{0,60}x){0,4}", prefix in "[a-z+=,.@-]{0,64}") {
            let id = SpiffeId::new(format!("spiffe://example.org/{path}")).unwrap();
            let template: SessionTemplate = format!("{prefix}{{path}}").parse().unwrap();
            let name = template.fill(Some(&id)).unwrap();
            prop_assert!((SHORTEST..=LONGEST).contains(&name.len()), "{}", name);
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b)), "{}", name);
            prop_assert_eq!(template.to_string().parse::<SessionTemplate>().unwrap(), template);
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = (SessionTemplate::read(&text), TagTemplate::read(&text));
        }
    }
}

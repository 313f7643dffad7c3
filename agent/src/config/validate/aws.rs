//! `aws:` of the agent's file, and who names its roles.
//!
//! Limits are those of [AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html).

use std::{collections::BTreeSet, time::Duration};

use super::{Path, Problems, root};
use crate::config::{
    AgentConfig,
    aws::{Aws, AwsRole, RoleFrom},
    suggest::nearest,
    value::{RoleRef, is_role_name, is_tag_character},
};

/// `DurationSeconds`: 15 minutes to 12 hours.
const SESSION: (Duration, Duration) = (
    Duration::from_secs(15 * 60),
    Duration::from_secs(12 * 60 * 60),
);

/// The most of a role that is assumed with another role's session.
const CHAINED: Duration = Duration::from_secs(60 * 60);

/// Session tags, and the characters of a key.
const MAX_TAGS: usize = 50;
const MAX_TAG_KEY: usize = 128;

/// Managed session policies; and the characters of them (their ARNs) and the inline one together.
const MAX_POLICY_ARNS: usize = 10;
const MAX_POLICY: usize = 2048;

/// Beside the region's own. Each that hangs costs a waiting request seconds.
const MAX_FAILOVER: usize = 3;

pub(super) fn aws(config: &AgentConfig, problems: &mut Problems) {
    let at = root().key("aws");
    let aws = &config.aws;
    failover(aws, &at.key("sts_failover"), problems);
    let reads = aws.secretsmanager.role.as_ref();
    named(aws, reads, at.key("secretsmanager").key("role"), problems);
    for (name, role) in &aws.roles {
        let at = at.key("roles").key(name);
        problems.add_if(
            !is_role_name(name) || name == "base",
            at.clone(),
            "expected a name of letters, digits and ._- (at most 64), and not `base`, which stands for the base \
             credentials",
        );
        self::role(aws, name, role, &at, problems);
    }
}

/// `role` of a route or an endpoint: an ARN, or one of `aws.roles`.
pub(super) fn named(aws: &Aws, role: Option<&RoleRef>, at: Path, problems: &mut Problems) {
    if let Some(RoleRef::Name(name)) = role
        && !aws.roles.contains_key(name)
    {
        problems.add(at, unknown(aws, name));
    }
}

fn unknown(aws: &Aws, name: &str) -> String {
    let known: Vec<&str> = aws.roles.keys().map(String::as_str).collect();
    match (nearest(name, &known), known.as_slice()) {
        (Some(near), _) => format!("aws.roles has no {name:?}, did you mean {near:?}?"),
        (None, []) => {
            format!("aws.roles has no {name:?}: there are none; add it, or write the role's ARN")
        }
        (None, known) => format!(
            "aws.roles has no {name:?}; there are {}; add it, or write the role's ARN",
            known.join(", ")
        ),
    }
}

fn failover(aws: &Aws, at: &Path, problems: &mut Problems) {
    problems.at_most(MAX_FAILOVER, aws.sts_failover.len(), at.clone());
    for (index, other) in aws.sts_failover.iter().enumerate() {
        let at = at.index(index);
        let mut before = aws.sts_failover.iter().take(index);
        problems.add_if(
            before.any(|earlier| earlier == other),
            at.clone(),
            format!("{other} is listed already"),
        );
        problems.add_if(
            aws.region.as_ref() == Some(&other.region) && other.endpoint.is_none(),
            at,
            format!(
                "{} is this agent's own region, and asked first",
                other.region
            ),
        );
    }
}

fn role(aws: &Aws, name: &str, role: &AwsRole, at: &Path, problems: &mut Problems) {
    problems.span(at.key("duration"), role.duration, SESSION.0, SESSION.1);
    from(aws, name, role, at, problems);
    tags(role, at, problems);
    problems.at_most(
        MAX_POLICY_ARNS,
        role.policy_arns.len(),
        at.key("policy_arns"),
    );
    let arns: usize = role.policy_arns.iter().map(String::len).sum();
    let inline = role
        .policy
        .as_ref()
        .map_or(0, |it| it.as_str().chars().count());
    let field = if inline > 0 { "policy" } else { "policy_arns" };
    problems.add_if(
        inline + arns > MAX_POLICY,
        at.key(field),
        format!(
            "expected at most {MAX_POLICY} characters, policy and policy_arns together, found {}",
            inline + arns
        ),
    );
}

fn from(aws: &Aws, name: &str, role: &AwsRole, at: &Path, problems: &mut Problems) {
    let here = at.key("from");
    match &role.from {
        RoleFrom::Base => {}
        RoleFrom::WebIdentity(_) => by_token(role, at, problems),
        RoleFrom::Role(other) if !aws.roles.contains_key(other) => {
            problems.add(here, unknown(aws, other));
        }
        RoleFrom::Role(_) => match before(aws, name, role) {
            Err(circle) => problems.add(
                here,
                format!("roles are assumed with each other in a circle: {circle}; one of them must be from base or a token"),
            ),
            Ok(before) => chained(role, &before, at, problems),
        },
    }
}

/// The roles that `role` is assumed with, nearest first; or the circle they make.
fn before<'a>(
    aws: &'a Aws,
    name: &'a str,
    role: &'a AwsRole,
) -> Result<Vec<(&'a str, &'a AwsRole)>, String> {
    let mut way = vec![name];
    let mut before = Vec::new();
    let mut role = role;
    while let RoleFrom::Role(other) = &role.from {
        way.push(other);
        if way.iter().filter(|it| *it == other).count() > 1 {
            return Err(way.join(" from "));
        }
        // An unknown one is said where it is named.
        let Some((other, next)) = aws.roles.get_key_value(other) else {
            break;
        };
        before.push((other.as_str(), next));
        role = next;
    }
    Ok(before)
}

/// What AWS refuses of a role that is assumed with another.
fn chained(role: &AwsRole, before: &[(&str, &AwsRole)], at: &Path, problems: &mut Problems) {
    problems.add_if(
        role.duration.0 > CHAINED,
        at.key("duration"),
        format!(
            "expected at most 1h, found {}: AWS gives no more to a role that is assumed with another's session (role \
             chaining)",
            role.duration
        ),
    );
    for (name, earlier) in before {
        problems.add_if(
            role.source_identity.is_some() && earlier.source_identity.is_some(),
            at.key("source_identity"),
            format!("{name} sets it already, and it stays the same along a chain"),
        );
        for key in role.tags.keys() {
            let inherited = earlier.transitive_tags.iter();
            problems.add_if(
                inherited.into_iter().any(|it| it.eq_ignore_ascii_case(key)),
                at.key("tags").key(key),
                format!(
                    "it is inherited from {name} (transitive_tags), and AWS refuses to set it again"
                ),
            );
        }
    }
}

/// AssumeRoleWithWebIdentity has no such parameters.
fn by_token(role: &AwsRole, at: &Path, problems: &mut Problems) {
    for (field, given) in [
        ("external_id", role.external_id.is_some()),
        ("source_identity", role.source_identity.is_some()),
        ("tags", !role.tags.is_empty()),
        ("transitive_tags", !role.transitive_tags.is_empty()),
    ] {
        problems.add_if(
            given,
            at.key(field),
            format!(
                "AssumeRoleWithWebIdentity takes no {field}: tags and source identity are claims of the token; remove it"
            ),
        );
    }
}

fn tags(role: &AwsRole, at: &Path, problems: &mut Problems) {
    problems.at_most(MAX_TAGS, role.tags.len(), at.key("tags"));
    let mut seen = BTreeSet::new();
    for key in role.tags.keys() {
        let at = at.key("tags").key(key);
        let length = key.chars().count();
        problems.add_if(
            !(1..=MAX_TAG_KEY).contains(&length) || !key.chars().all(is_tag_character),
            at.clone(),
            format!(
                "expected a tag's key: 1 to {MAX_TAG_KEY} letters, digits, spaces and _.:/=+-@"
            ),
        );
        problems.add_if(
            key.to_ascii_lowercase().starts_with("aws:"),
            at.clone(),
            "keys that begin with aws: are AWS's own",
        );
        problems.add_if(
            !seen.insert(key.to_lowercase()),
            at,
            "there is one with this key already: for AWS, keys of tags that differ in case only are the same",
        );
    }
    for (index, key) in role.transitive_tags.iter().enumerate() {
        let at = at.key("transitive_tags").index(index);
        problems.add_if(
            !role.tags.contains_key(key),
            at.clone(),
            format!("{key:?} is none of this role's tags"),
        );
        let mut before = role.transitive_tags.iter().take(index);
        problems.add_if(
            before.any(|it| it == key),
            at,
            format!("{key:?} is listed already"),
        );
    }
}

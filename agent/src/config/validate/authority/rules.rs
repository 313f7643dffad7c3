//! `rules` and `administrators`.

use std::{collections::BTreeMap, time::Duration};

use super::SHORTEST;
use crate::config::{
    authority::{Administrator, Also, Attestor, AuthorityConfig, Rule, facts},
    overlap,
    suggest::nearest,
    validate::{Path, Problems, root},
    value::{
        DnsTemplate, Glob, IdTemplate, Span,
        template::{Piece, is_fact_name},
    },
};

/// A JWT-SVID is a bearer token, and a third party's verifier knows no revocation.
const LONGEST_JWT: Duration = Duration::from_secs(24 * 60 * 60);
/// Twice what a file of 1 MiB can hold in practice; holding each against each takes a second then.
const MAX_RULES: usize = 10_000;
/// Further identities of one rule. Each costs a signature at every renewal, and a certificate in every answer and in
/// every message of the Workload API. Programs that share a pod or task need two or three.
const MAX_ALSO: usize = 8;
/// Administrators are asked one after the other.
const MAX_ADMINISTRATORS: usize = 100;
/// Facts that a rule or an administrator is matched by: no attestor proves more that tell anything.
const MAX_FACTS: usize = 32;
/// DNS names of one certificate: more make handshakes slow.
const MAX_DNS: usize = 16;
/// Audiences, and scopes, of one rule: a token carries all its scopes, and has to fit into a header.
const MAX_NAMES: usize = 64;

pub(super) fn rules(config: &AuthorityConfig, problems: &mut Problems) {
    let at = root().key("rules");
    problems.at_most(MAX_RULES, config.rules.len(), at.clone());
    for (index, rule) in config.rules.iter().enumerate() {
        self::rule(config, rule, &at.index(index), problems);
    }
    if config.rules.len() > MAX_RULES {
        return;
    }
    for found in overlap::find(&config.rules, &config.attestors) {
        let rule = at.index(found.rule);
        let identity = match found.also {
            None => rule,
            Some(also) => rule.key("also").index(also),
        };
        let field = match found.dns {
            None => identity.key("id"),
            Some(name) => identity.key("dns").index(name),
        };
        problems.add(field, found.to_string());
    }
}

pub(super) fn administrators(config: &AuthorityConfig, problems: &mut Problems) {
    let at = root().key("administrators");
    problems.at_most(MAX_ADMINISTRATORS, config.administrators.len(), at.clone());
    for (index, administrator) in config.administrators.iter().enumerate() {
        self::administrator(config, administrator, &at.index(index), problems);
    }
}

fn administrator(
    config: &AuthorityConfig,
    administrator: &Administrator,
    at: &Path,
    problems: &mut Problems,
) {
    let name = &administrator.attestor;
    problems.attestor(config, name, at);
    problems.add_if(
        matches!(config.attestors.get(name), Some(Attestor::JoinToken)),
        at.key("attestor"),
        format!(
            "{name:?} takes join tokens, which administrators make: one could make others of them; expected an \
             attestor of another kind"
        ),
    );
    problems.facts(
        config.attestors.get(name),
        &administrator.r#match,
        at,
        "the facts of who may administer, such as {account: \"123456789012\", role: platform-admin}",
    );
    let everybody = administrator
        .r#match
        .values()
        .all(|glob| glob.as_str().bytes().all(|b| b == b'*'));
    problems.add_if(
        everybody && !administrator.r#match.is_empty(),
        at.key("match"),
        "this is everybody whom the attestor admits; expected a fact that says who",
    );
    problems.add_if(
        administrator.may.is_empty(),
        at.key("may"),
        "expected what they may do: join-token, revoke, rotate, explain, status",
    );
}

fn rule(config: &AuthorityConfig, rule: &Rule, at: &Path, problems: &mut Problems) {
    problems.attestor(config, &rule.attestor, at);
    let attestor = config.attestors.get(&rule.attestor);
    identity(config, rule, Identity::from(rule), at, problems);
    also(config, rule, &at.key("also"), problems);
    problems.facts(
        attestor,
        &rule.r#match,
        at,
        "the facts this rule is for, such as {service: payments}",
    );
    let longest = config.ca.intermediate_ttl;
    problems.add_if(
        rule.ttl.0 < SHORTEST || rule.ttl > longest,
        at.key("ttl"),
        format!(
            "expected {} to {longest} (ca.intermediate_ttl: a leaf never outlives its intermediate), found {}",
            Span(SHORTEST),
            rule.ttl
        ),
    );
    problems.span(at.key("jwt_ttl"), rule.jwt_ttl, SHORTEST, LONGEST_JWT);
}

/// What a rule says of one identity.
struct Identity<'a> {
    id: &'a IdTemplate,
    dns: &'a [DnsTemplate],
    audiences: &'a [String],
    scopes: &'a [String],
}

impl<'a> From<&'a Rule> for Identity<'a> {
    fn from(rule: &'a Rule) -> Self {
        Self {
            id: &rule.id,
            dns: &rule.dns,
            audiences: &rule.audiences,
            scopes: &rule.scopes,
        }
    }
}

impl<'a> From<&'a Also> for Identity<'a> {
    fn from(also: &'a Also) -> Self {
        Self {
            id: &also.id,
            dns: &also.dns,
            audiences: &also.audiences,
            scopes: &also.scopes,
        }
    }
}

/// The further identities.
fn also(config: &AuthorityConfig, rule: &Rule, at: &Path, problems: &mut Problems) {
    problems.at_most(MAX_ALSO, rule.also.len(), at.clone());
    for (index, also) in rule.also.iter().enumerate().take(MAX_ALSO) {
        let at = at.index(index);
        identity(config, rule, Identity::from(also), &at, problems);
        problems.hint(at.key("hint"), also.hint.as_deref());
        let before = || rule.also.iter().take(index);
        problems.add_if(
            also.hint.is_some() && before().any(|other| other.hint == also.hint),
            at.key("hint"),
            "expected a hint of its own: of two identities with one hint a workload sees the first only",
        );
        problems.add_if(
            also.id == rule.id || before().any(|other| other.id == also.id),
            at.key("id"),
            "this rule gives that identity already",
        );
    }
}

fn identity(
    config: &AuthorityConfig,
    rule: &Rule,
    identity: Identity<'_>,
    at: &Path,
    problems: &mut Problems,
) {
    let attestor = config.attestors.get(&rule.attestor);
    problems.template(attestor, identity.id.segments(), &at.key("id"));
    problems.at_most(MAX_DNS, identity.dns.len(), at.key("dns"));
    problems.at_most(MAX_NAMES, identity.audiences.len(), at.key("audiences"));
    problems.at_most(MAX_NAMES, identity.scopes.len(), at.key("scopes"));
    for (index, name) in identity.dns.iter().enumerate() {
        problems.template(attestor, name.labels(), &at.key("dns").index(index));
        let taken = config
            .dns_names
            .iter()
            .any(|own| own.eq_ignore_ascii_case(&name.to_string()));
        problems.add_if(
            taken,
            at.key("dns").index(index),
            format!("{name} is the authority's own name; no workload may have it"),
        );
    }
    let wildcard = |audience: &String| audience.contains('*') && audience != "*";
    for (index, audience) in identity.audiences.iter().enumerate() {
        problems.add_if(
            wildcard(audience),
            at.key("audiences").index(index),
            format!("expected an audience or \"*\" alone, found {audience:?}"),
        );
    }
}

impl Problems {
    fn attestor(&mut self, config: &AuthorityConfig, name: &String, at: &Path) {
        let known: Vec<&str> = config.attestors.keys().map(String::as_str).collect();
        self.add_if(
            !config.attestors.contains_key(name),
            at.key("attestor"),
            format!(
                "there is no attestor {name:?}; there are: {}",
                known.join(", ")
            ),
        );
    }

    fn facts(
        &mut self,
        attestor: Option<&Attestor>,
        facts: &BTreeMap<String, Glob>,
        at: &Path,
        expected: &str,
    ) {
        let at = at.key("match");
        self.add_if(
            facts.is_empty(),
            at.clone(),
            format!("expected {expected}; \"*\" matches any value"),
        );
        self.at_most(MAX_FACTS, facts.len(), at.clone());
        for name in facts.keys() {
            match is_fact_name(name) {
                true => self.fact(attestor, name, || at.key(name)),
                false => self.add(
                    at.key(name),
                    format!(
                        "{name:?} is no fact; their names have lower-case letters, digits and \"_\""
                    ),
                ),
            }
        }
    }

    /// A fact that the attestor never proves would never match, or never fill anything.
    fn fact(&mut self, attestor: Option<&Attestor>, name: &str, at: impl FnOnce() -> Path) {
        let Some(attestor) = attestor.filter(|attestor| !facts::is_of(attestor, name)) else {
            return;
        };
        if facts::OF_PODS.contains(&name) && matches!(attestor, Attestor::AwsWebIdentity(_)) {
            return self.add(
                at(),
                format!("{name} is proved for roles of EKS Pod Identity only; list them in pod_identity_roles of the attestor"),
            );
        }
        let proved = facts::of(attestor).unwrap_or_default();
        let meant = match nearest(name, &proved) {
            Some(meant) => format!(", did you mean {meant:?}? It proves"),
            None => "; it proves".to_owned(),
        };
        self.add(
            at(),
            format!(
                "this attestor proves no fact {name:?}{meant}: {}",
                proved.join(", ")
            ),
        );
    }

    /// The facts of a template.
    fn template(&mut self, attestor: Option<&Attestor>, pieces: &[Piece], at: &Path) {
        for name in pieces.iter().filter_map(|piece| piece.fact.as_deref()) {
            self.fact(attestor, name, || at.clone());
            let is_aws = matches!(
                attestor,
                Some(Attestor::AwsWebIdentity(_) | Attestor::AwsCallerIdentity(_))
            );
            self.add_if(
                is_aws && facts::CHOSEN.contains(&name),
                at.clone(),
                format!(
                    "{{{name}}} is chosen by whoever assumes the role: it can be matched, and be no part of an identity"
                ),
            );
        }
    }
}

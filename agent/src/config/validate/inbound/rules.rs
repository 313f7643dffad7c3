//! Rules: who may call what.

use std::collections::BTreeMap;

use http::HeaderName;
use warifu::TrustDomain;

use super::{Path, Problems, accept::Accepted};
use crate::config::{
    inbound::{Accept, Inbound, Rule, SubjectMatch, When},
    value::{IdPattern, Listen},
};

/// Most values of one part: beyond this, a claim or a group of callers should be named.
const MAX_VALUES: usize = 1000;

/// Most proxies in front of a listener.
const MAX_HOPS: usize = 16;

/// Headers that rules don't look at, and what to use instead. What the network says in them proves nothing, or is a
/// secret that has no place in a file.
const NOT_FOR_RULES: &[(&str, &str)] = &[
    (
        "authorization",
        "accept a token, and name what it says in subject",
    ),
    ("cookie", "accept a token, and name what it says in subject"),
    (
        "proxy-authorization",
        "accept a token, and name what it says in subject",
    ),
    ("client-cert", "use peer"),
    ("x-forwarded-client-cert", "use peer"),
    ("forwarded", "use source, with trusted_hops"),
    ("x-forwarded-for", "use source, with trusted_hops"),
    ("x-real-ip", "use source, with trusted_hops"),
];

/// All rules of a listener, at `at`. One that can never hold, or that names nobody, is a mistake.
pub(super) fn rules(
    own: &TrustDomain,
    inbound: &Inbound,
    accepted: &Accepted<'_>,
    at: &Path,
    problems: &mut Problems,
) {
    let mut names = BTreeMap::new();
    for (list, rules) in [("allow", &inbound.allow), ("deny", &inbound.deny)] {
        for (index, rule) in rules.iter().enumerate() {
            let at = at.key(list).index(index);
            if let Some(name) = &rule.name {
                let place = format!("{list}[{index}]");
                if let Some(other) = names.insert(name, place) {
                    let at = at.key("name");
                    problems.add(
                        at,
                        format!(
                            "{name} is the name of {other} already; audit lines would not say which"
                        ),
                    );
                }
            }
            match list {
                "allow" => {
                    allows(rule, inbound.is_opaque(), &at, problems);
                    one_issuer(rule, accepted, &at.key("subject"), problems);
                }
                _ => denies(rule, &at, problems),
            }
            caller(own, rule, inbound, accepted, &at, problems);
            request(rule, inbound, &at, problems);
        }
    }
    problems.add_if(
        inbound.trusted_hops > MAX_HOPS,
        at.key("trusted_hops"),
        format!("expected at most {MAX_HOPS}: the proxies between the caller and this listener"),
    );
}

/// Where connections are carried as `opaque` bytes, who may connect may do so.
fn allows(rule: &Rule, opaque: bool, at: &Path, problems: &mut Problems) {
    problems.add_if(
        rule.peer.is_none() && rule.subject.is_none(),
        at.clone(),
        "expected peer or subject: a rule says who may call",
    );
    problems.add_if(
        rule.to.is_empty() && !opaque,
        at.key("to"),
        "expected what may be asked, such as [\"GET /charges/*\"]",
    );
}

/// What one issuer says of a caller counts for as much as what another says, unless the rule names whose word it takes.
fn one_issuer(rule: &Rule, accepted: &Accepted<'_>, at: &Path, problems: &mut Problems) {
    let Some(subject) = &rule.subject else { return };
    let named = subject.issuer.is_some() || subject.spiffe_id.is_some() || subject.role.is_some();
    problems.add_if(
        !named && accepted.names.len() > 1,
        at.clone(),
        format!(
            "expected issuer, one of [{}]: each of them grants scopes and claims as it likes",
            accepted.names.join(", ")
        ),
    );
}

fn denies(rule: &Rule, at: &Path, problems: &mut Problems) {
    let Rule {
        name: _,
        peer,
        subject,
        to,
        source,
        headers,
        when,
        shadow: _,
    } = rule;
    let demands = peer.is_some() || subject.is_some() || when.is_some();
    let demands = demands || !to.is_empty() || !source.is_empty() || !headers.is_empty();
    problems.add_if(
        !demands,
        at.clone(),
        "expected what is denied, such as to: [\"* /admin/**\"]; as it stands, everything is",
    );
}

fn caller(
    own: &TrustDomain,
    rule: &Rule,
    inbound: &Inbound,
    accepted: &Accepted<'_>,
    at: &Path,
    problems: &mut Problems,
) {
    if let Some(peer) = &rule.peer {
        problems.add_if(
            accepted.peers.is_empty(),
            at.key("peer"),
            "no caller has a peer identity here: add mtls to accept",
        );
        of_accepted(
            peer,
            &accepted.peers,
            ("caller", "mtls"),
            &at.key("peer"),
            problems,
        );
    }
    let Some(subject) = &rule.subject else { return };
    let at = at.key("subject");
    let SubjectMatch {
        issuer,
        spiffe_id,
        role,
        scope,
        claims,
    } = subject;
    problems.add_if(
        accepted.names.is_empty(),
        at.clone(),
        "no caller has a subject here: add jwt to accept",
    );
    let named = spiffe_id.is_some() || role.is_some() || issuer.is_some();
    problems.add_if(
        !named && scope.is_none() && claims.is_empty(),
        at.clone(),
        "expected issuer, spiffe_id, role, scope or claims",
    );
    // Another trust domain's authority grants scopes and claims as it likes.
    let foreign = accepted.subjects.iter().find(|domain| **domain != own);
    if let (None, Some(foreign)) = (spiffe_id, foreign) {
        problems.add(
            at.clone(),
            format!(
                "expected spiffe_id beside scope, such as \"spiffe://{own}/**\": tokens of {foreign} are \
                 accepted here, and its authority grants any scope"
            ),
        );
    }
    if let Some(id) = spiffe_id {
        let at = at.key("spiffe_id");
        problems.add_if(
            accepted.subjects.is_empty(),
            at.clone(),
            "no token here has a SPIFFE ID: add jwt with profile jwt-svid to accept",
        );
        of_accepted(id, &accepted.subjects, ("token", "jwt"), &at, problems);
    }
    if let Some(issuer) = issuer {
        let names: Vec<&str> = inbound.accept.iter().filter_map(Accept::name).collect();
        problems.add_if(
            !names.contains(&issuer.as_str()),
            at.key("issuer"),
            format!(
                "expected the name of an entry of accept that proves a subject, one of [{}], found {issuer:?}",
                names.join(", ")
            ),
        );
    }
    problems.add_if(
        role.is_some() && !inbound.accept.iter().any(Accept::proves_roles),
        at.key("role"),
        "no caller proves an AWS role here: add aws-web-identity to accept",
    );
    for (name, wanted) in claims {
        let at = at.key("claims").key(name);
        problems.add_if(
            name == "scope",
            at.clone(),
            "a token has all its scopes in one text; use subject.scope, which looks for one of them",
        );
        some_values(wanted.0.len(), &at, problems);
    }
}

fn request(rule: &Rule, inbound: &Inbound, at: &Path, problems: &mut Problems) {
    problems.at_most(MAX_VALUES, rule.to.len(), at.key("to"));
    problems.at_most(MAX_VALUES, rule.source.len(), at.key("source"));
    problems.add_if(
        !rule.source.is_empty()
            && matches!(inbound.listen, Listen::Unix(_))
            && inbound.trusted_hops == 0,
        at.key("source"),
        "no caller has an address on a unix socket: where a proxy in front of it says the address in \
         x-forwarded-for, set trusted_hops",
    );
    for (name, values) in &rule.headers {
        let at = at.key("headers").key(name.as_str());
        if let Some(instead) = instead_of(name) {
            problems.add(
                at.clone(),
                format!("rules don't look at the header {name}: {instead}"),
            );
        }
        some_values(values.len(), &at, problems);
        for (index, value) in values.iter().enumerate() {
            let visible = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
            let possible = value.bytes().all(visible) && value.trim_matches([' ', '\t']) == value;
            problems.add_if(
                !possible,
                at.index(index),
                "no header has this value: it has visible ASCII characters, and no space at its ends",
            );
        }
    }
    if let Some(when) = &rule.when {
        window(when, &at.key("when"), problems);
    }
}

fn window(when: &When, at: &Path, problems: &mut Problems) {
    problems.add_if(
        *when == When::default(),
        at.clone(),
        "expected days, from, to, not_before or not_after",
    );
    if let (Some(from), Some(to)) = (when.from, when.to) {
        problems.add_if(
            from == to,
            at.key("to"),
            format!("from {from} to {to} is no time at all; leave out both for the whole day"),
        );
    }
    if let (Some(start), Some(end)) = (when.not_before, when.not_after) {
        problems.add_if(
            start >= end,
            at.key("not_after"),
            format!("expected a moment after not_before, {start}"),
        );
    }
    problems.add_if(
        when.from.is_some_and(|from| from.0 == 24 * 60),
        at.key("from"),
        "nothing of the day is left at 24:00; expected 00:00 to 23:59",
    );
    problems.add_if(
        when.to.is_some_and(|to| to.0 == 0) && when.from.is_none(),
        at.key("to"),
        "nothing of the day has passed at 00:00; expected 00:01 to 24:00",
    );
    for (index, day) in when.days.iter().enumerate() {
        problems.add_if(
            when.days.iter().take(index).any(|it| it == day),
            at.key("days").index(index),
            "this day is listed already",
        );
    }
}

fn some_values(count: usize, at: &Path, problems: &mut Problems) {
    problems.add_if(
        count == 0,
        at.clone(),
        "expected at least one value: this never holds",
    );
    problems.at_most(MAX_VALUES, count, at.clone());
}

/// What to use instead of a header that is not for rules.
fn instead_of(header: &HeaderName) -> Option<&'static str> {
    let name = header.as_str();
    let listed = NOT_FOR_RULES.iter().find(|(listed, _)| *listed == name);
    match listed {
        Some((_, instead)) => Some(instead),
        None if name.starts_with("x-warifu-") => Some("use peer or subject"),
        None => None,
    }
}

fn of_accepted(
    id: &IdPattern,
    accepted: &[&TrustDomain],
    (what, by): (&str, &str),
    at: &Path,
    problems: &mut Problems,
) {
    if accepted.is_empty() || accepted.iter().any(|it| it.as_str() == id.trust_domain) {
        return;
    }
    let listed: Vec<&str> = accepted.iter().map(|it| it.as_str()).collect();
    problems.add(
        at.clone(),
        format!(
            "no {what} of trust domain {} is accepted, only of {}; add it to trust_domains of {by} in accept",
            id.trust_domain,
            listed.join(", ")
        ),
    );
}

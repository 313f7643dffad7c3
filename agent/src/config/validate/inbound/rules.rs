//! Rules: who may call what.

use warifu::TrustDomain;

use super::{Path, Problems, accept::Accepted};
use crate::config::{inbound::Allow, value::IdPattern};

/// A rule that can never match, or that names nobody, is a mistake.
pub(super) fn rule(
    own: &TrustDomain,
    allow: &Allow,
    accepted: &Accepted<'_>,
    at: &Path,
    problems: &mut Problems,
) {
    problems.add_if(
        allow.peer.is_none() && allow.subject.is_none(),
        at.clone(),
        "expected peer or subject: a rule says who may call",
    );
    problems.add_if(
        allow.to.is_empty(),
        at.key("to"),
        "expected what may be asked, such as [\"GET /charges/*\"]",
    );
    if let Some(peer) = &allow.peer {
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
    if let Some(subject) = &allow.subject {
        problems.add_if(
            accepted.subjects.is_empty(),
            at.key("subject"),
            "no caller has a subject here: add jwt to accept",
        );
        problems.add_if(
            subject.spiffe_id.is_none() && subject.scope.is_none(),
            at.key("subject"),
            "expected spiffe_id or scope",
        );
        // Another trust domain's authority grants scopes as it likes.
        let foreign = accepted.subjects.iter().find(|domain| **domain != own);
        if let (None, Some(foreign)) = (&subject.spiffe_id, foreign) {
            problems.add(
                at.key("subject"),
                format!(
                    "expected spiffe_id beside scope, such as \"spiffe://{own}/**\": tokens of {foreign} are \
                     accepted here, and its authority grants any scope"
                ),
            );
        }
        if let Some(id) = &subject.spiffe_id {
            let at = at.key("subject").key("spiffe_id");
            of_accepted(id, &accepted.subjects, ("token", "jwt"), &at, problems);
        }
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

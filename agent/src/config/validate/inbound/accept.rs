//! Ways for a caller to prove itself.

use warifu::{TrustDomain, identity::MAX_TRUST_DOMAINS};

use super::{Path, Problems};
use crate::config::inbound::{Accept, Inbound, JwtAccept};

/// Whose callers a listener accepts, by what they present.
#[derive(Default)]
pub(super) struct Accepted<'a> {
    pub(super) peers: Vec<&'a TrustDomain>,
    pub(super) subjects: Vec<&'a TrustDomain>,
}

/// Every way that `inbound` lists, at `at`.
pub(super) fn accept<'a>(
    own: &'a TrustDomain,
    inbound: &'a Inbound,
    at: &Path,
    problems: &mut Problems,
) -> Accepted<'a> {
    let (mut mtls, mut jwt) = (0, 0);
    let mut accepted = Accepted::default();
    for (index, accept) in inbound.accept.iter().enumerate() {
        let at = at.index(index);
        match accept {
            Accept::Mtls { trust_domains } => {
                mtls += 1;
                let at = at.key("mtls").key("trust_domains");
                problems.add_if(
                    trust_domains.is_empty(),
                    at.clone(),
                    format!("expected [{own}]"),
                );
                listed_once(trust_domains, &at, problems);
                accepted.peers.extend(trust_domains);
            }
            Accept::Jwt(JwtAccept {
                audiences,
                trust_domains,
                ..
            }) => {
                jwt += 1;
                problems.add_if(
                    audiences.is_empty(),
                    at.key("jwt").key("audiences"),
                    "expected the audiences that mean this service, such as [payments]: a token meant for \
                     another service must not pass here",
                );
                listed_once(trust_domains, &at.key("jwt").key("trust_domains"), problems);
                accepted.subjects.extend(trust_domains);
                if trust_domains.is_empty() {
                    accepted.subjects.push(own);
                }
            }
        }
    }
    for (count, name) in [(mtls, "mtls"), (jwt, "jwt")] {
        problems.add_if(
            count > 1,
            at.clone(),
            format!("{name} is listed {count} times; list it once"),
        );
    }
    accepted
}

fn listed_once(trust_domains: &[TrustDomain], at: &Path, problems: &mut Problems) {
    problems.at_most(MAX_TRUST_DOMAINS, trust_domains.len(), at.clone());
    for (index, domain) in trust_domains.iter().enumerate() {
        problems.add_if(
            trust_domains.iter().take(index).any(|it| it == domain),
            at.index(index),
            format!("{domain} is listed already"),
        );
    }
}

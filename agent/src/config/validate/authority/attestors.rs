//! `attestors`: whom each believes, and that no two believe the same.

use std::{collections::BTreeMap, path::PathBuf};

use warifu::aws::is_region;

use crate::config::{
    authority::{
        Attestor, AuthorityConfig, CallerIdentityAttestor, OidcAttestor, TokenReview,
        WebIdentityAttestor,
    },
    validate::{Path, Problems, root},
    value::{Upstream, is_call_audience, template::is_fact_name},
};

/// Accounts of one attestor: each has keys that are fetched and kept.
const MAX_ISSUERS: usize = 1000;
/// Facts that are made of claims: a record must hold them.
const MAX_FACTS: usize = 32;
/// What every token proves.
const SUBJECT: &str = "sub";
/// Audiences that tokens in pods have for others: whoever is handed one could attest with it.
const OF_OTHERS: [&str; 4] = [
    "sts.amazonaws.com",
    "pods.eks.amazonaws.com",
    "https://kubernetes.default.svc",
    "https://kubernetes.default.svc.cluster.local",
];

/// What attestors may have once among them all, and who has it.
#[derive(Default)]
struct Taken<'a> {
    issuers: BTreeMap<&'a str, Path>,
    audiences: BTreeMap<&'a str, Path>,
}

pub(super) fn attestors(config: &AuthorityConfig, problems: &mut Problems) {
    let mut taken = Taken::default();
    let mut caller_identity = None;
    for (name, attestor) in &config.attestors {
        let at = root().key("attestors").key(name);
        match attestor {
            Attestor::JoinToken => {}
            Attestor::AwsCallerIdentity(it) => {
                if let Some(other) = caller_identity.replace(at.clone()) {
                    problems.add(
                        at.key("kind"),
                        format!(
                            "{other} is one already, and nothing in a proof says which is meant; list all accounts there: \
                             rules tell them apart"
                        ),
                    );
                }
                sts_endpoints(it, &at.key("sts_endpoints"), problems);
            }
            Attestor::AwsWebIdentity(it) => web_identity(it, &at, &mut taken, problems),
            Attestor::Kubernetes(it) => {
                taken.issuer(&it.issuer, at.key("issuer"), problems);
                taken.audience(&it.audience, at.key("audience"), problems);
                tls(
                    &it.issuer,
                    it.jwks_url.as_ref(),
                    it.ca_file.as_ref(),
                    &at,
                    problems,
                );
                if let Some(review) = &it.token_review {
                    token_review(review, &at.key("token_review"), problems);
                }
            }
            Attestor::Oidc(it) => {
                taken.issuer(&it.issuer, at.key("issuer"), problems);
                taken.audience(&it.audience, at.key("audience"), problems);
                tls(
                    &it.issuer,
                    it.jwks_url.as_ref(),
                    it.ca_file.as_ref(),
                    &at,
                    problems,
                );
                facts(it, &at.key("facts"), problems);
            }
        }
    }
}

impl<'a> Taken<'a> {
    /// An issuer's tokens go to one attestor: of two, the one that comes first would have them all.
    fn issuer(&mut self, issuer: &'a str, at: Path, problems: &mut Problems) {
        if let Some(other) = self.issuers.get(issuer) {
            problems.add(
                at,
                format!("{issuer} is the issuer of {other} already; each issuer has one attestor"),
            );
        } else {
            self.issuers.insert(issuer, at);
        }
    }

    fn audience(&mut self, audience: &'a str, at: Path, problems: &mut Problems) {
        problems.add_if(
            is_call_audience(audience),
            at.clone(),
            format!(
                "{audience:?} is an audience for calls: whoever is called could attest with the token; expected one \
                 for attestation alone, such as warifu:example.org:attest"
            ),
        );
        problems.add_if(
            OF_OTHERS.contains(&audience),
            at.clone(),
            format!(
                "{audience:?} is somebody else's: whoever is handed such a token could attest with it; expected one \
                 for attestation alone, such as warifu:example.org:attest"
            ),
        );
        if let Some(other) = self.audiences.get(audience) {
            problems.add(
                at,
                format!(
                    "{audience:?} is {other} already; give each attestor an audience of its own"
                ),
            );
        } else {
            self.audiences.insert(audience, at);
        }
    }
}

fn web_identity<'a>(
    attestor: &'a WebIdentityAttestor,
    at: &Path,
    taken: &mut Taken<'a>,
    problems: &mut Problems,
) {
    problems.at_most(MAX_ISSUERS, attestor.issuers.len(), at.key("issuers"));
    for (account, issuer) in &attestor.issuers {
        let at = at.key("issuers").key(account);
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        problems.add_if(
            !is_account,
            at.clone(),
            format!("expected an AWS account as the key: 12 digits, quoted; found {account:?}"),
        );
        taken.issuer(issuer, at, problems);
    }
    let is_org = |org: &str| {
        let id = org.strip_prefix("o-").unwrap_or_default();
        (1..=32).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    if let Some(org) = &attestor.org {
        problems.add_if(
            !is_org(org),
            at.key("org"),
            format!("expected the id of an AWS organisation such as o-a1b2c3d4e5, found {org:?}"),
        );
    }
    for (index, role) in attestor.pod_identity_roles.iter().enumerate() {
        problems.add_if(
            !attestor.issuers.contains_key(role.account()),
            at.key("pod_identity_roles").index(index),
            format!(
                "account {} has no issuer here; no token of its roles attests",
                role.account()
            ),
        );
    }
}

fn sts_endpoints(attestor: &CallerIdentityAttestor, at: &Path, problems: &mut Problems) {
    for (region, endpoint) in &attestor.sts_endpoints {
        let at = at.key(region);
        problems.add_if(
            !is_region(region),
            at.clone(),
            format!("expected an AWS region such as eu-west-1 as the key, found {region:?}"),
        );
        problems.add_if(
            !endpoint.base_path.is_empty(),
            at,
            format!("expected an endpoint without a path, found {endpoint}: STS is asked at /"),
        );
    }
}

fn facts(attestor: &OidcAttestor, at: &Path, problems: &mut Problems) {
    problems.at_most(MAX_FACTS, attestor.facts.len(), at.clone());
    for (fact, claim) in &attestor.facts {
        problems.add_if(
            !is_fact_name(fact) || fact == SUBJECT,
            at.key(fact),
            format!(
                "expected the name of a fact such as repository: lower-case letters, digits and _, and not {SUBJECT}, \
                 which every token proves; found {fact:?}"
            ),
        );
        problems.add_if(
            claim.split('.').any(str::is_empty),
            at.key(fact),
            format!("expected the name of a claim such as repository, or a.b for b of a; found {claim:?}"),
        );
    }
}

/// A file of CAs is for TLS, and nothing else may stand in for it.
fn tls(
    issuer: &str,
    jwks_url: Option<&Upstream>,
    ca_file: Option<&PathBuf>,
    at: &Path,
    problems: &mut Problems,
) {
    let with_tls = jwks_url.map_or(issuer.starts_with("https://"), |url| url.tls);
    problems.add_if(
        ca_file.is_some() && !with_tls,
        at.key("ca_file"),
        "the issuer's keys are fetched over http://, where no certificate is shown; remove it, or use https://",
    );
}

fn token_review(review: &TokenReview, at: &Path, problems: &mut Problems) {
    problems.add_if(
        review.ca_file.is_some() && !review.url.tls,
        at.key("ca_file"),
        "url is http://, where no certificate is shown; remove it, or use https://",
    );
}

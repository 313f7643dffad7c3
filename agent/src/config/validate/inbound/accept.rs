//! Ways for a caller to prove itself.

use std::{collections::BTreeMap, time::Duration};

use warifu::{TrustDomain, identity::MAX_TRUST_DOMAINS};

use super::{Path, Problems};
use crate::config::{
    inbound::{
        Accept, Inbound, JwtAccept, JwtProfile, LoadBalancer, SecretHeaderAccept, WebIdentityAccept,
    },
    validate::is_of_the_message,
};

/// Entries of `accept` at once. Who has more issuers has a gateway's problem, and not a sidecar's.
const MAX_ENTRIES: usize = 32;

/// Accounts of one entry.
const MAX_ACCOUNTS: usize = 100;

/// Whose callers a listener accepts, by what they present.
#[derive(Default)]
pub(super) struct Accepted<'a> {
    /// Trust domains of X.509-SVIDs.
    pub(super) peers: Vec<&'a TrustDomain>,
    /// Trust domains of JWT-SVIDs.
    pub(super) subjects: Vec<&'a TrustDomain>,
    /// Entries that give a caller a subject, by name.
    pub(super) names: Vec<&'a str>,
}

/// Every way that `inbound` lists, at `at`.
pub(super) fn accept<'a>(
    own: &'a TrustDomain,
    inbound: &'a Inbound,
    at: &Path,
    problems: &mut Problems,
) -> Accepted<'a> {
    let (mut mtls, mut svid, mut alb) = (0, 0, 0);
    let mut accepted = Accepted::default();
    let mut tokens = BTreeMap::new();
    problems.at_most(MAX_ENTRIES, inbound.accept.len(), at.clone());
    for (index, accept) in inbound.accept.iter().enumerate() {
        let at = at.index(index);
        if let Some(name) = accept.name() {
            problems.add_if(
                accepted.names.contains(&name),
                at.clone(),
                format!(
                    "another entry is called {name} already; give this one a name of its own: name: {name}-2"
                ),
            );
            accepted.names.push(name);
        }
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
            Accept::Jwt(jwt) => {
                let at = at.key("jwt");
                lifetime(jwt, &at, problems);
                if let JwtProfile::JwtSvid { trust_domains, .. } = &jwt.profile {
                    svid += 1;
                    listed_once(trust_domains, &at.key("trust_domains"), problems);
                    accepted.subjects.extend(trust_domains);
                    if trust_domains.is_empty() {
                        accepted.subjects.push(own);
                    }
                }
                if let JwtProfile::Alb(balancer) = &jwt.profile {
                    alb += 1;
                    one_region(balancer, &at.key("signers"), problems);
                }
                if let Some(issuer) = jwt.profile.issuer() {
                    let kind = told_apart_by(&jwt.profile);
                    told_apart(issuer, kind, jwt.name.as_str(), &mut tokens, &at, problems);
                }
            }
            Accept::AwsWebIdentity(aws) => {
                let at = at.key("aws-web-identity");
                web_identity(aws, &at, problems);
                for issuer in aws.issuers.values() {
                    let other = "a JWT";
                    told_apart(issuer, other, aws.name.as_str(), &mut tokens, &at, problems);
                }
            }
            Accept::SecretHeader(secret) => {
                secret_header(secret, inbound, &at.key("secret-header"), problems);
            }
        }
    }
    for (count, name) in [
        (mtls, "mtls"),
        (svid, "jwt with profile jwt-svid"),
        (alb, "jwt with profile alb"),
    ] {
        problems.add_if(
            count > 1,
            at.clone(),
            format!("{name} is listed {count} times; list it once"),
        );
    }
    accepted
}

/// What tells the tokens of a profile from others of the same issuer, before they are verified.
fn told_apart_by(profile: &JwtProfile) -> &'static str {
    match profile {
        JwtProfile::AccessToken { .. } => "an at+jwt",
        JwtProfile::CognitoAccess { .. } => "token_use access",
        JwtProfile::CognitoId { .. } => "token_use id",
        JwtProfile::Alb(_) => "x-amzn-oidc-data",
        JwtProfile::JwtSvid { .. }
        | JwtProfile::Kubernetes { .. }
        | JwtProfile::Oidc { .. }
        | JwtProfile::Hs256 { .. } => "a JWT",
    }
}

/// Each token is verified as what one entry says, and as nothing else.
fn told_apart<'a>(
    issuer: &'a str,
    kind: &'static str,
    name: &'a str,
    known: &mut BTreeMap<(&'a str, &'static str), &'a str>,
    at: &Path,
    problems: &mut Problems,
) {
    if let Some(other) = known.insert((issuer, kind), name) {
        problems.add(
            at.clone(),
            format!(
                "tokens of {issuer} that are {kind} are those of {other} already, and could not be told apart; \
                 list what both accept in one entry"
            ),
        );
    }
}

/// Each region has keys of its own.
fn one_region(balancer: &LoadBalancer, at: &Path, problems: &mut Problems) {
    let region = |arn: &String| arn.splitn(5, ':').take(4).collect::<Vec<_>>().join(":");
    let mut regions = balancer.signers.iter().map(region);
    let first = regions.next();
    problems.add_if(
        regions.any(|region| Some(region) != first),
        at.clone(),
        "expected load balancers of one region: each region's sign with keys of their own",
    );
}

fn lifetime(jwt: &JwtAccept, at: &Path, problems: &mut Problems) {
    if let Some(longest) = jwt.max_lifetime {
        let day = Duration::from_secs(24 * 60 * 60);
        let at = at.key("max_lifetime");
        problems.span(at, longest, Duration::from_secs(1), 366 * day);
    }
}

fn web_identity(aws: &WebIdentityAccept, at: &Path, problems: &mut Problems) {
    let at = at.key("issuers");
    problems.add_if(
        aws.issuers.is_empty(),
        at.clone(),
        "expected the accounts whose roles may call, each with its issuer, such as \
         {\"123456789012\": \"https://UUID.tokens.sts.global.api.aws\"}: every customer of AWS has tokens like these",
    );
    problems.at_most(MAX_ACCOUNTS, aws.issuers.len(), at.clone());
    for account in aws.issuers.keys() {
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        problems.add_if(
            !is_account,
            at.key(account),
            "expected an AWS account: 12 digits, quoted",
        );
    }
}

fn secret_header(
    secret: &SecretHeaderAccept,
    inbound: &Inbound,
    at: &Path,
    problems: &mut Problems,
) {
    let name = secret.header.as_str();
    let at = at.key("header");
    problems.add_if(
        is_of_the_message(name)
            // Tokens are read there.
            || secret.header == http::header::AUTHORIZATION
            || ["x-warifu-", "x-amzn-oidc-", "x-forwarded-"]
                .iter()
                .any(|it| name.starts_with(it)),
        at.clone(),
        format!(
            "the header {name} has a meaning of its own; choose another, such as x-custom-auth"
        ),
    );
    problems.add_if(
        inbound
            .forward_claims
            .values()
            .any(|it| *it == secret.header),
        at,
        format!(
            "forward_claims puts a claim into {name}, where the app would take it for the secret"
        ),
    );
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

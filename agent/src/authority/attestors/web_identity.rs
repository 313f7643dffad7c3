//! `aws-web-identity`: tokens of `sts:GetWebIdentityToken`, verified with the keys of the account's issuer. AWS
//! is not asked: who holds a session of a role had it sign a token whose only audience is one renewal key.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_token_claims.html>

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use warifu::{
    Secret, TrustDomain,
    jwt::{
        Claims, Profile, PublicJwk,
        aws::{self, Arn},
    },
};

use super::{
    AttestorProblem, Presented, Proven,
    pool::Pool,
    token::{self, Issuer, Refused},
};
use crate::{
    attest::wire,
    authority::{denied::Denied, metrics::Metrics, rules::Facts},
    config::{
        authority::{WebIdentityAttestor, facts as fact},
        value::{RolePattern, template::is_fact_name},
    },
};

/// Oldest token, since its `iat`: an agent has one made for each attestation.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// The session tags of EKS Pod Identity.
/// <https://docs.aws.amazon.com/eks/latest/userguide/pod-id-abac.html>
const POD_TAGS: [&str; 6] = [
    "eks-cluster-arn",
    "eks-cluster-name",
    "kubernetes-namespace",
    "kubernetes-service-account",
    "kubernetes-pod-name",
    "kubernetes-pod-uid",
];

/// One attestor.
#[derive(Debug)]
pub(super) struct WebIdentity {
    name: String,
    /// By `iss`.
    accounts: BTreeMap<String, Account>,
    org: Option<String>,
    /// Roles that nobody but EKS Pod Identity can assume.
    pod_identity_roles: Vec<RolePattern>,
}

/// An account, and who signs for it.
#[derive(Debug)]
pub(super) struct Account {
    id: String,
    url: String,
    issuer: Issuer,
}

impl WebIdentity {
    pub(super) fn new(
        name: &str,
        configured: &WebIdentityAttestor,
        metrics: &Metrics,
    ) -> Result<Self, AttestorProblem> {
        let pool = Pool::new(name, metrics);
        let algorithms = Profile::aws_web_identity("", "").algorithms;
        let accounts = configured.issuers.iter().map(|(id, url)| {
            let keys = Arc::new(token::keys(url, None, None)?);
            let account = Account {
                id: id.clone(),
                url: url.clone(),
                issuer: Issuer::new(keys, algorithms.clone(), &pool),
            };
            Ok((url.clone(), account))
        });
        Ok(Self {
            name: name.to_owned(),
            accounts: accounts.collect::<Result<_, AttestorProblem>>()?,
            org: configured.org.clone(),
            pod_identity_roles: configured.pod_identity_roles.clone(),
        })
    }

    /// The account whose tokens are of `issuer`.
    pub(super) fn account_of(&self, issuer: &str) -> Option<&Account> {
        self.accounts.get(issuer)
    }

    pub(super) fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        self.accounts.values().map(|account| &account.issuer)
    }

    /// What a token of `account`'s issuer proves when `renewal_key` came with it.
    pub(super) async fn prove(
        &self,
        account: &Account,
        token: &Secret<String>,
        trust_domain: &TrustDomain,
        presented: Presented<'_>,
    ) -> Result<Proven, Denied> {
        let audience = audience(trust_domain, presented.renewal_key);
        self.prove_for(account, token, &audience, presented).await
    }

    async fn prove_for(
        &self,
        account: &Account,
        token: &Secret<String>,
        audience: &str,
        presented: Presented<'_>,
    ) -> Result<Proven, Denied> {
        let profile = Profile::aws_web_identity(&account.url, audience);
        let claims = account.issuer.verify(token, &profile, &presented).await?;
        Ok(Proven {
            attestor: self.name.clone(),
            facts: token::checked(self.facts(&account.id, &claims, presented.now)?)?,
            lineage: None,
            // It is worth nothing with another key.
            single_use: None,
        })
    }

    /// What a token proves with the key it is bound to, whichever that is, and which it is.
    pub(super) async fn examine(
        &self,
        account: &Account,
        token: &Secret<String>,
        trust_domain: &TrustDomain,
        presented: Presented<'_>,
    ) -> Result<(Proven, String), Denied> {
        let found = token::unverified_audience(token).unwrap_or_default();
        let begin = wire::attest_audience(trust_domain, "");
        let key = found.strip_prefix(&begin).ok_or_else(|| {
            Refused(format!(
                "its audience is {found:?}; expected {begin}HASH, of the renewal key it is for"
            ))
        })?;
        let proven = self.prove_for(account, token, &found, presented).await?;
        Ok((proven, key.to_owned()))
    }

    /// What verified claims prove, of an issuer that is of `account`.
    fn facts(&self, account: &str, claims: &Claims, now: SystemTime) -> Result<Facts, Refused> {
        check_age(claims, now)?;
        let role = aws::WebIdentity::from_claims(claims, account, self.org.as_deref())
            .map_err(|why| Refused(why.to_string()))?;
        let mut facts = Facts::new();
        let mut say = |name: &str, value: &str| facts.insert(name.to_owned(), value.to_owned());
        say(fact::PARTITION, &role.partition);
        say(fact::ACCOUNT, &role.account);
        say(fact::ROLE, &role.role_name);
        say("role_path", &role.role_path);
        // A fact has one value.
        let ou_path = match role.ou_path.as_slice() {
            [one] => Some(one.as_str()),
            _ => None,
        };
        let aws_says = [
            ("org", role.org_id.as_deref()),
            ("ou_path", ou_path),
            ("source_region", role.source_region.as_deref()),
        ];
        for (name, value) in aws_says {
            if let Some(value) = value {
                say(name, value);
            }
        }
        if let Some(arn) = own(&role.ec2_source_instance_arn, "ec2", &role)
            && let Some(instance) = arn.resource.strip_prefix("instance/")
        {
            say("ec2_instance", instance);
        }
        if let Some(arn) = own(&role.lambda_source_function_arn, "lambda", &role)
            && let Some(function) = arn.resource.strip_prefix("function:")
        {
            // What follows its name is a version.
            say(
                "lambda_function",
                function.split(':').next().unwrap_or(function),
            );
            say("lambda_region", arn.region);
        }
        let is_of_pods = |pattern: &RolePattern| pattern.matches(&role.account, &role.role_name);
        facts.extend(match self.pod_identity_roles.iter().any(is_of_pods) {
            true => of_pod(&role.principal_tags),
            false => Facts::new(),
        });
        facts.extend(of_tags(&role.principal_tags));
        Ok(facts)
    }
}

/// An ARN of `service` in the role's own account.
fn own<'a>(arn: &'a Option<String>, service: &str, role: &aws::WebIdentity) -> Option<Arn<'a>> {
    let arn = Arn::parse(arn.as_deref()?)?;
    let is_own = arn.account == role.account && arn.partition == role.partition;
    (is_own && arn.service == service).then_some(arn)
}

/// The only audience that attests with this key.
fn audience(trust_domain: &TrustDomain, renewal_key: &PublicJwk) -> String {
    let hash = URL_SAFE_NO_PAD.encode(renewal_key.spki_sha256());
    wire::attest_audience(trust_domain, &hash)
}

fn check_age(claims: &Claims, now: SystemTime) -> Result<(), Refused> {
    // That it is not of the future, beyond clocks that differ, the profile has seen to.
    let age = claims
        .issued_at
        .map(|at| now.duration_since(at).unwrap_or_default());
    match age {
        Some(age) if age <= MAX_AGE => Ok(()),
        _ => Err(Refused(format!(
            "it is older than {} s; have a new one made for each attestation",
            MAX_AGE.as_secs()
        ))),
    }
}

/// The pod, where all of Pod Identity's tags are there: some of them are somebody else's.
fn of_pod(tags: &BTreeMap<String, Value>) -> Facts {
    let tag = |name: &str| tags.get(name).and_then(Value::as_str);
    let Some(values) = POD_TAGS.map(tag).into_iter().collect::<Option<Vec<_>>>() else {
        return Facts::new();
    };
    let names = [
        fact::CLUSTER_ARN,
        fact::CLUSTER,
        fact::NAMESPACE,
        fact::SERVICE_ACCOUNT,
        fact::POD,
        fact::POD_UID,
    ];
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let mut facts: Facts = names
        .into_iter()
        .zip(values.iter().copied())
        .map(own)
        .collect();
    if let Some(arn) = values.first().and_then(|arn| Arn::parse(arn)) {
        facts.insert(fact::CLUSTER_REGION.to_owned(), arn.region.to_owned());
        facts.insert(fact::CLUSTER_ACCOUNT.to_owned(), arn.account.to_owned());
    }
    facts
}

/// `tag_KEY` for tags of the role or its session, the key in lower case. A key with other characters than letters,
/// digits and `_` gives no fact, and neither do two that differ in case only: a fact has one tag behind it.
fn of_tags(tags: &BTreeMap<String, Value>) -> Facts {
    let mut facts = BTreeMap::<String, Option<String>>::new();
    for (key, value) in tags {
        let name = format!("tag_{}", key.to_ascii_lowercase());
        if is_fact_name(&name) && !key.is_empty() {
            facts
                .entry(name)
                .and_modify(|twice| *twice = None)
                .or_insert_with(|| value.as_str().map(str::to_owned));
        }
    }
    let unambiguous = |(name, value): (String, Option<String>)| Some((name, value?));
    facts.into_iter().filter_map(unambiguous).collect()
}

#[cfg(test)]
mod tests;

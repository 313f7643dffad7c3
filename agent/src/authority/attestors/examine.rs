//! What evidence would prove if an agent presented it: for people who wonder. Nothing is spent.

use std::time::SystemTime;

use warifu::jwt::SigningKey;

use super::{Attestor, Attestors, Presented, Proven, token};
use crate::{
    attest::wire::Evidence,
    authority::{denied::Denied, state::Store},
};

/// What the attestors make of some evidence.
#[derive(Debug)]
pub(in crate::authority) struct Examined {
    /// Each attestor, and why it did not take the evidence; `None` for the one that did.
    pub(in crate::authority) verdicts: Vec<(String, Option<String>)>,
    /// What the evidence proves.
    pub(in crate::authority) taken: Option<Taken>,
}

/// Evidence that an attestor took.
#[derive(Debug)]
pub(in crate::authority) struct Taken {
    pub(in crate::authority) proven: Proven,
    /// The key it is bound to: base64url of the SHA-256 of its SubjectPublicKeyInfo. `None` for what anybody
    /// can present.
    pub(in crate::authority) bound_to: Option<String>,
}

impl Attestors {
    /// What each attestor makes of `evidence`. Where it is bound to a key, any key will do.
    pub(in crate::authority) async fn examine(
        &self,
        evidence: &Evidence,
        store: &dyn Store,
        now: SystemTime,
    ) -> Examined {
        let key = SigningKey::generate();
        let presented = Presented {
            evidence,
            renewal_key: key.public(),
            challenge: "",
            remote: "administration",
            now,
        };
        let mut examined = Examined {
            verdicts: vec![],
            taken: None,
        };
        for (name, attestor) in &self.by_name {
            let verdict = match self.examine_by(name, attestor, presented, store).await {
                Ok(taken) => {
                    examined.taken = Some(taken);
                    None
                }
                Err(why) => Some(why),
            };
            examined.verdicts.push((name.clone(), verdict));
        }
        examined
    }

    async fn examine_by(
        &self,
        name: &str,
        attestor: &Attestor,
        presented: Presented<'_>,
        store: &dyn Store,
    ) -> Result<Taken, String> {
        let said = |why: Denied| why.message;
        let other = |issuer: Option<String>| match issuer {
            Some(issuer) => format!("it is for another issuer than the token's, {issuer:?}"),
            None => "this is no token that names its issuer".to_owned(),
        };
        let bearer = |proven| Taken {
            proven,
            bound_to: None,
        };
        match (attestor, presented.evidence) {
            (Attestor::JoinToken, Evidence::JoinToken { token }) => {
                let proven = self.join_token(token, store, presented.now).await.map_err(said)?;
                match proven.attestor == name {
                    true => Ok(bearer(proven)),
                    false => Err(format!("the token was made for {:?}", proven.attestor)),
                }
            }
            (Attestor::WebIdentity(it), Evidence::AwsWebIdentity { token }) => {
                let issuer = token::unverified_issuer(token);
                let account = issuer.as_deref().and_then(|issuer| it.account_of(issuer));
                let account = account.ok_or_else(|| other(issuer.clone()))?;
                let examined = it.examine(account, token, &self.trust_domain, presented).await;
                let (proven, key) = examined.map_err(said)?;
                self.check_partition(&proven).map_err(said)?;
                Ok(Taken {
                    proven,
                    bound_to: Some(key),
                })
            }
            (Attestor::Kubernetes(it), Evidence::Kubernetes { token }) => {
                let issuer = token::unverified_issuer(token);
                match issuer.as_deref().is_some_and(|issuer| it.bearer.is_of(issuer)) {
                    true => it.prove(token, presented).await.map(bearer).map_err(said),
                    false => Err(other(issuer)),
                }
            }
            (Attestor::Oidc(it), Evidence::Oidc { token }) => {
                let issuer = token::unverified_issuer(token);
                match issuer.as_deref().is_some_and(|issuer| it.bearer.is_of(issuer)) {
                    true => it.prove(token, presented).await.map(bearer).map_err(said),
                    false => Err(other(issuer)),
                }
            }
            (Attestor::CallerIdentity(_), Evidence::AwsCallerIdentity(_)) => Err(
                "it is signed over a renewal key and a challenge, which are no part of it: nobody can judge it but \
                 when it is presented with them"
                    .to_owned(),
            ),
            (attestor, evidence) => Err(format!(
                "it takes {}, and this is {}",
                attestor.kind(),
                evidence.kind()
            )),
        }
    }
}

impl Attestor {
    fn kind(&self) -> &'static str {
        match self {
            Self::JoinToken => "join-token",
            Self::WebIdentity(_) => "aws-web-identity",
            Self::CallerIdentity(_) => "aws-caller-identity",
            Self::Kubernetes(_) => "kubernetes",
            Self::Oidc(_) => "oidc",
        }
    }
}

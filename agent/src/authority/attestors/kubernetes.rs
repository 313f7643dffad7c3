//! `kubernetes`: projected service-account tokens, verified with the keys of the cluster's issuer; and by the
//! cluster itself where it is to be asked, which knows of pods that are gone.
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens>

use serde::Deserialize;
use serde_json::Value;
use warifu::{Secret, jwt::Claims};

use super::{
    AttestorProblem, Presented, Proven,
    bearer::Bearer,
    pool::{Pool, Waiting},
    token::Refused,
};
use crate::{
    authority::{denied::Denied, metrics::Metrics, rules::Facts},
    config::authority::{KubernetesAttestor, facts as fact},
    http::fetch::FetcherError,
};

mod review;

use review::Reviewer;

/// The claim that holds what the API server says.
const KUBERNETES: &str = "kubernetes.io";

/// One attestor.
#[derive(Debug)]
pub(super) struct Kubernetes {
    pub(super) bearer: Bearer,
    /// The cluster's API, and the places of those who wait for its answer: it has other things to do.
    review: Option<(Reviewer, Waiting)>,
}

/// What a token says of its bearer.
#[derive(Debug, Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Object,
    pod: Option<Object>,
    node: Option<Object>,
}

/// A reference to an object of the cluster.
#[derive(Debug, Deserialize)]
struct Object {
    name: String,
    uid: Option<String>,
}

impl Kubernetes {
    pub(super) fn new(
        name: &str,
        configured: &KubernetesAttestor,
        metrics: &Metrics,
    ) -> Result<Self, AttestorProblem> {
        let it = configured;
        let keys = (it.jwks_url.as_ref(), it.ca_file.clone());
        let pool = Pool::new(name, metrics);
        let review = configured.token_review.as_ref().map(|it| {
            let reviewer = Reviewer::new(it)?;
            Ok::<_, FetcherError>((reviewer, pool.waiting("asking the cluster")))
        });
        Ok(Self {
            bearer: Bearer::new(name, &it.issuer, &it.audience, keys, &pool)?,
            review: review.transpose()?,
        })
    }

    /// What a token proves.
    pub(super) async fn prove(
        &self,
        token: &Secret<String>,
        presented: Presented<'_>,
    ) -> Result<Proven, Denied> {
        let claims = self.bearer.verify(token, presented).await?;
        let bound = bound(&claims)?;
        if let Some((reviewer, waiting)) = &self.review {
            let [audience] = claims.audiences.as_slice() else {
                return Err(Refused("it is for more than one audience".to_owned()).into());
            };
            // Only evidence that verified gets here.
            let review = reviewer.review(token, audience, &claims.subject, &bound);
            waiting.run(presented.remote, review).await??;
        }
        Ok(self.bearer.proven(token, &claims, facts(bound))?)
    }
}

/// Reads what is in a verified token, and holds it against `sub`.
fn bound(claims: &Claims) -> Result<Bound, Refused> {
    let refused = |why: &str| Refused(why.to_owned());
    let bound = claims.all.get(KUBERNETES).cloned().unwrap_or(Value::Null);
    let bound = Bound::deserialize(bound).map_err(|_| {
        refused("it has no `kubernetes.io` claim with a namespace and a service account; expected a projected service-account token")
    })?;
    let account = &bound.serviceaccount.name;
    if !is_name(&bound.namespace) || !is_name(account) {
        return Err(refused(
            "its namespace or service account is no name of Kubernetes",
        ));
    }
    if claims.subject != format!("system:serviceaccount:{}:{account}", bound.namespace) {
        return Err(refused("its `sub` is not the service account it names"));
    }
    Ok(bound)
}

/// `pod`, `pod_uid` and `node` are those of a token that dies with its pod.
fn facts(bound: Bound) -> Facts {
    let mut facts = Facts::from([
        (fact::NAMESPACE.to_owned(), bound.namespace),
        (fact::SERVICE_ACCOUNT.to_owned(), bound.serviceaccount.name),
    ]);
    if let Some(pod) = bound.pod {
        facts.insert(fact::POD.to_owned(), pod.name);
        facts.extend(pod.uid.map(|uid| (fact::POD_UID.to_owned(), uid)));
        facts.extend(bound.node.map(|node| ("node".to_owned(), node.name)));
    }
    facts
}

/// RFC 1123, as Kubernetes has it: nothing that could be taken for a separator in `sub`.
fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
    };
    (1..=253).contains(&name.len()) && name.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use warifu::jwt::SigningKey;

    use super::{
        super::{
            bearer,
            stub::{NOW, Stub, at, presented},
        },
        *,
    };

    const URL: &str = "https://oidc.eks.eu-west-1.amazonaws.com/id/X";
    const AUDIENCE: &str = "warifu:example.org:attest";

    fn claims() -> Value {
        json!({
            "aud": [AUDIENCE], "exp": NOW + 3600, "iat": NOW, "nbf": NOW, "iss": URL, "jti": "ea28ed49",
            "kubernetes.io": {
                "namespace": "shop",
                "node": {"name": "ip-10-0-0-1", "uid": "58456cb0"},
                "pod": {"name": "orders-7d9c", "uid": "778a530c"},
                "serviceaccount": {"name": "orders", "uid": "a087d5a0"},
                "warnafter": NOW + 3607,
            },
            "sub": "system:serviceaccount:shop:orders",
        })
    }

    async fn prove(claims: &Value) -> Result<Proven, Denied> {
        let signer = Stub::with(SigningKey::generate_rsa());
        let profile = bearer::profile(URL, AUDIENCE).unwrap();
        let attestor = Kubernetes {
            bearer: Bearer {
                name: "prod".to_owned(),
                issuer: signer.issuer(profile.algorithms.clone()),
                profile,
            },
            review: None,
        };
        let presented = presented(signer.key.public(), at(NOW));
        attestor.prove(&signer.sign(claims), presented).await
    }

    #[tokio::test]
    async fn a_projected_token_proves_pod_node_and_service_account() {
        let proven = prove(&claims()).await.unwrap();
        let expected = [
            ("namespace", "shop"),
            ("node", "ip-10-0-0-1"),
            ("pod", "orders-7d9c"),
            ("pod_uid", "778a530c"),
            ("service_account", "orders"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(proven.facts, Facts::from(expected));
        assert!(proven.single_use.is_some(), "a bearer token");
    }

    #[tokio::test]
    async fn a_token_of_no_pod_proves_the_service_account_only() {
        let mut claims = claims();
        claims["kubernetes.io"]
            .as_object_mut()
            .unwrap()
            .remove("pod");
        let facts = prove(&claims).await.unwrap().facts;
        assert_eq!(
            facts.keys().collect::<Vec<_>>(),
            ["namespace", "service_account"]
        );
    }

    #[tokio::test]
    async fn what_it_says_must_agree_with_its_subject() {
        for (pointer, value) in [
            ("/kubernetes.io/namespace", "kube-system"),
            ("/kubernetes.io/serviceaccount/name", "admin"),
            ("/sub", "system:serviceaccount:shop:orders:x"),
            ("/sub", "system:node:ip-10-0-0-1"),
        ] {
            let mut claims = claims();
            *claims.pointer_mut(pointer).unwrap() = json!(value);
            let why = prove(&claims).await.unwrap_err();
            assert!(why.message.contains("`sub`"), "{pointer}: {}", why.message);
        }
        // `a:b` of `c` is no `a` of `b:c`.
        let mut claims = claims();
        claims["kubernetes.io"]["namespace"] = json!("shop:orders");
        claims["kubernetes.io"]["serviceaccount"]["name"] = json!("x");
        claims["sub"] = json!("system:serviceaccount:shop:orders:x");
        assert!(prove(&claims).await.is_err());
    }

    #[tokio::test]
    async fn tokens_of_secrets_and_of_other_issuers_kinds_are_refused() {
        for gone in ["exp", "aud", "iat", "kubernetes.io"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(gone);
            assert!(prove(&claims).await.is_err(), "{gone}");
        }
    }

    #[test]
    fn names_are_those_of_kubernetes() {
        for (name, good) in [
            ("a", true),
            ("a-b.c", true),
            ("", false),
            ("A", false),
            ("a:b", false),
        ] {
            assert_eq!(is_name(name), good, "{name}");
        }
    }
}

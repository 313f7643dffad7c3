//! `oidc`: tokens of any issuer. They are bearer tokens: what a stolen one leaves is in the threat model.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use warifu::{Secret, jwt::Claims};

use super::{AttestorProblem, Presented, Proven, bearer::Bearer, pool::Pool, token::Refused};
use crate::{
    authority::{denied::Denied, metrics::Metrics, rules::Facts},
    config::authority::OidcAttestor,
};

/// The fact that every token gives.
const SUBJECT: &str = "sub";

/// One attestor.
#[derive(Debug)]
pub(super) struct Oidc {
    pub(super) bearer: Bearer,
    /// Fact → claim.
    facts: BTreeMap<String, String>,
}

impl Oidc {
    pub(super) fn new(
        name: &str,
        configured: &OidcAttestor,
        metrics: &Metrics,
    ) -> Result<Self, AttestorProblem> {
        let it = configured;
        let keys = (it.jwks_url.as_ref(), it.ca_file.clone());
        let pool = Pool::new(name, metrics);
        Ok(Self {
            bearer: Bearer::new(name, &it.issuer, &it.audience, keys, &pool)?,
            facts: it.facts.clone(),
        })
    }

    /// What a token proves.
    pub(super) async fn prove(
        &self,
        token: &Secret<String>,
        presented: Presented<'_>,
    ) -> Result<Proven, Denied> {
        let claims = self.bearer.verify(token, presented).await?;
        let facts = facts(&claims, &self.facts)?;
        Ok(self.bearer.proven(token, &claims, facts)?)
    }
}

/// `sub`, and each of `wanted` whose claim is there.
fn facts(claims: &Claims, wanted: &BTreeMap<String, String>) -> Result<Facts, Refused> {
    let mut facts = Facts::from([(SUBJECT.to_owned(), claims.subject.clone())]);
    for (fact, path) in wanted {
        let mut found = Vec::new();
        find(&claims.all, path, &mut found);
        let value = match found.as_slice() {
            [] => continue,
            [value] => value,
            // `a.b` and `b` of `a`: who may set one need not be who may set the other.
            _ => return Err(Refused(format!("two of its claims are called {path:?}"))),
        };
        if let Some(value) = text(value, path)? {
            facts.insert(fact.clone(), value);
        }
    }
    Ok(facts)
}

/// Every claim that `path` may mean: names of claims have dots, too.
fn find<'a>(members: &'a Map<String, Value>, path: &str, found: &mut Vec<&'a Value>) {
    found.extend(members.get(path));
    for (dot, _) in path.match_indices('.') {
        let (name, rest) = (path.get(..dot), path.get(dot + 1..));
        if let (Some(name), Some(rest)) = (name, rest)
            && let Some(Value::Object(members)) = members.get(name)
        {
            find(members, rest, found);
        }
    }
}

/// A claim as a fact. A list is refused and not left out: a rule that was written for one of its entries would
/// be passed over, and a later rule would decide.
fn text(value: &Value, path: &str) -> Result<Option<String>, Refused> {
    let wrong = |is: &str| {
        let why =
            format!("claim {path:?} is {is}; a fact is a text, a whole number, or true or false");
        Err(Refused(why))
    };
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Bool(it) => Ok(Some(it.to_string())),
        Value::Number(number) if number.is_u64() || number.is_i64() => Ok(Some(number.to_string())),
        // It has more than one spelling.
        Value::Number(_) => wrong("a number with a fraction, or a very large one"),
        Value::Array(_) => wrong("a list"),
        Value::Object(_) => wrong("an object"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use warifu::jwt::SigningKey;

    use super::{
        super::{
            SingleUse, bearer,
            stub::{NOW, Stub, at, presented},
        },
        *,
    };
    use crate::attest::wire::ErrorCode;

    const URL: &str = "https://token.actions.example.com";
    const AUDIENCE: &str = "warifu:example.org:attest:ci";

    fn attestor(facts: &[(&str, &str)]) -> (Arc<Stub>, Oidc) {
        let signer = Stub::with(SigningKey::generate());
        let profile = bearer::profile(URL, AUDIENCE).unwrap();
        let own = |(fact, claim): &(&str, &str)| ((*fact).to_owned(), (*claim).to_owned());
        let attestor = Oidc {
            bearer: Bearer {
                name: "ci".to_owned(),
                issuer: signer.issuer(profile.algorithms.clone()),
                profile,
            },
            facts: facts.iter().map(own).collect(),
        };
        (signer, attestor)
    }

    fn claims(more: Value) -> Value {
        let mut claims = json!({
            "iss": URL, "sub": "repo:shop/orders", "aud": AUDIENCE, "iat": NOW, "exp": NOW + 600, "jti": "7",
        });
        if let (Some(claims), Value::Object(more)) = (claims.as_object_mut(), more) {
            claims.extend(more);
        }
        claims
    }

    async fn facts_of(wanted: &[(&str, &str)], more: Value) -> Result<Facts, Denied> {
        let (signer, attestor) = attestor(wanted);
        let token = signer.sign(&claims(more));
        Ok(attestor
            .prove(&token, presented(signer.key.public(), at(NOW)))
            .await?
            .facts)
    }

    #[tokio::test]
    async fn the_subject_and_configured_claims_are_facts() {
        let wanted = [
            ("repository", "repository"),
            ("run", "run_number"),
            ("protected", "ref_protected"),
            ("role", "realm_access.main"),
            ("project", "https://example.com/project.id"),
            ("absent", "absent"),
            ("nothing", "nothing"),
        ];
        let facts = facts_of(
            &wanted,
            json!({
                "repository": "shop/orders", "run_number": 42, "ref_protected": true,
                "realm_access": {"main": "deploy"}, "https://example.com/project.id": "p1",
                "nothing": null, "not_asked": "x",
            }),
        );
        let expected = [
            ("project", "p1"),
            ("protected", "true"),
            ("repository", "shop/orders"),
            ("role", "deploy"),
            ("run", "42"),
            ("sub", "repo:shop/orders"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(facts.await.unwrap(), Facts::from(expected));
    }

    #[tokio::test]
    async fn a_claim_that_has_no_one_spelling_is_refused_and_not_left_out() {
        for wrong in [
            json!(["a"]),
            json!([]),
            json!({"b": 1}),
            json!(1.5),
            json!(1e300),
        ] {
            let why = facts_of(&[("a", "a")], json!({"a": wrong}))
                .await
                .unwrap_err();
            assert_eq!(why.code, ErrorCode::InvalidEvidence);
            assert!(why.message.contains("claim \"a\" is"), "{}", why.message);
        }
    }

    #[tokio::test]
    async fn a_path_that_could_mean_two_claims_is_refused() {
        let twice = json!({"a.b": "theirs", "a": {"b": "ours"}});
        let why = facts_of(&[("a", "a.b")], twice).await.unwrap_err();
        assert!(why.message.contains("two of its claims"), "{}", why.message);
        let deep = json!({"a": {"b.c": {"d": "x"}}});
        let facts = facts_of(&[("a", "a.b.c.d")], deep).await.unwrap();
        assert_eq!(facts["a"], "x");
    }

    #[tokio::test]
    async fn s15_a_token_is_for_one_key_for_as_long_as_it_verifies() {
        let (signer, attestor) = attestor(&[]);
        let once = async |more: Value| {
            let token = signer.sign(&claims(more));
            let proven = attestor
                .prove(&token, presented(signer.key.public(), at(NOW)))
                .await
                .unwrap();
            match proven.single_use {
                Some(SingleUse::Token { id, until }) => (id, until),
                other => panic!("{other:?}"),
            }
        };
        let (first, until) = once(json!({})).await;
        assert!(
            until > at(NOW + 600),
            "the skew that a verifier allows is added"
        );
        assert!(
            attestor
                .prove(
                    &signer.sign(&claims(json!({}))),
                    presented(signer.key.public(), until)
                )
                .await
                .is_err()
        );
        assert_eq!(once(json!({"x": 1})).await.0, first, "by its jti");
        assert_ne!(once(json!({"jti": "8"})).await.0, first);
        // ECDSA signatures are never the same: what is signed is.
        let without = json!({"jti": null});
        let mut unnamed = claims(without);
        unnamed.as_object_mut().unwrap().remove("jti");
        let ids = async || {
            let proven = attestor
                .prove(
                    &signer.sign(&unnamed),
                    presented(signer.key.public(), at(NOW)),
                )
                .await
                .unwrap();
            proven.single_use
        };
        assert_eq!(ids().await, ids().await);
    }

    #[tokio::test]
    async fn a_token_that_lives_for_days_is_refused() {
        for (life, good) in [(25 * 3600, true), (25 * 3600 + 1, false)] {
            let result = facts_of(&[], json!({"exp": NOW + life})).await;
            assert_eq!(result.is_ok(), good, "{result:?}");
        }
        // Also when most of its life is over.
        let result = facts_of(&[], json!({"iat": NOW - 48 * 3600, "exp": NOW + 600})).await;
        assert!(result.unwrap_err().message.contains("25 h at most"));
    }

    #[tokio::test]
    async fn two_audiences_another_issuer_and_an_audience_for_calls_attest_nothing() {
        for more in [
            json!({"aud": [AUDIENCE, "sts.amazonaws.com"]}),
            json!({"aud": "sts.amazonaws.com"}),
            json!({"iss": "https://token.actions.example.com/"}),
        ] {
            let why = facts_of(&[], more).await.unwrap_err();
            assert_eq!(why.code, ErrorCode::InvalidEvidence, "{why:?}");
        }
        for audience in [
            "warifu:example.org:call:payments",
            "warifu:other:call:x",
            "warifu:x:call",
        ] {
            assert!(matches!(
                bearer::profile(URL, audience),
                Err(AttestorProblem::CallAudience(_))
            ));
        }
    }

    #[tokio::test]
    async fn s10_unknown_kids_do_not_drive_fetches_and_an_outage_is_no_verdict() {
        use std::sync::atomic::Ordering::SeqCst;
        let (signer, attestor) = attestor(&[]);
        let good = signer.sign(&claims(json!({})));
        attestor
            .prove(&good, presented(signer.key.public(), at(NOW)))
            .await
            .unwrap();
        let stranger = Stub::with(SigningKey::generate());
        for _ in 0..20 {
            let token = stranger.sign(&claims(json!({})));
            let why = attestor
                .prove(&token, presented(signer.key.public(), at(NOW + 5)))
                .await
                .unwrap_err();
            assert_eq!(why.code, ErrorCode::InvalidEvidence);
        }
        assert_eq!(signer.asked.load(SeqCst), 1);
        signer.away.store(true, SeqCst);
        let token = stranger.sign(&claims(json!({})));
        let why = attestor
            .prove(&token, presented(signer.key.public(), at(NOW + 60)))
            .await
            .unwrap_err();
        assert_eq!(why.code, ErrorCode::EvidenceUnavailable, "{why:?}");
        assert!(
            attestor
                .prove(&good, presented(signer.key.public(), at(NOW + 60)))
                .await
                .is_ok(),
            "S13"
        );
    }
}

//! A job of a CI system attests with the token it has from its issuer: configured claims are facts, and nothing
//! else is.

use serde_json::{Value, json};
use warifu_tests::{
    mesh::Mesh,
    oidc::{Algorithm, Issuer, Mood, claims},
};

const AUDIENCE: &str = "warifu:example.org:attest:ci";
const SUBJECT: &str = "repo:shop/orders:ref:refs/heads/main";

const RULES: &str = r#"
- {attestor: ci, match: {sub: "repo:shop/*", repository: shop/orders, ref: refs/heads/main, protected: "true"}, id: "/deploy/{project}"}
"#;

async fn world() -> (Mesh, Issuer) {
    let issuer = Issuer::start().await;
    let attestor = format!(
        "{{kind: oidc, issuer: \"{}\", audience: \"{AUDIENCE}\", \
         facts: {{repository: repository, ref: ref, protected: ref_protected, project: custom.project}}}}",
        issuer.url()
    );
    let mesh = Mesh::with(|authority| authority.attestor("ci", &attestor).rules(RULES)).await;
    (mesh, issuer)
}

fn job(issuer: &Issuer, more: Value) -> Value {
    let mut job = claims(
        issuer,
        SUBJECT,
        AUDIENCE,
        json!({
            "repository": "shop/orders",
            "ref": "refs/heads/main",
            "ref_protected": true,
            "custom": {"project": "p1"},
            "run_id": 42,
        }),
    );
    for (name, value) in more.as_object().unwrap() {
        job[name] = value.clone();
    }
    job
}

#[tokio::test]
async fn a_job_becomes_what_the_rules_make_of_its_claims() {
    let (mesh, issuer) = world().await;
    for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384] {
        let token = issuer.sign(algorithm, &job(&issuer, json!({})));
        let id = mesh.claimant().oidc(&token).await.unwrap();
        assert_eq!(id, "spiffe://example.org/deploy/p1", "{algorithm:?}");
    }
    let facts = &mesh.authority.audit("attest")[0]["facts"];
    let expected = json!({
        "sub": SUBJECT, "repository": "shop/orders", "ref": "refs/heads/main", "protected": "true", "project": "p1",
    });
    assert_eq!(*facts, expected);
}

#[tokio::test]
async fn s15_a_token_is_for_one_key_whether_it_has_a_name_or_not() {
    let (mesh, issuer) = world().await;
    let mut unnamed = job(&issuer, json!({}));
    unnamed.as_object_mut().unwrap().remove("jti");
    for claims in [job(&issuer, json!({})), unnamed] {
        let (owner, thief) = (mesh.claimant(), mesh.claimant());
        owner
            .oidc(&issuer.sign(Algorithm::Es256, &claims))
            .await
            .unwrap();
        // Signed once more: ECDSA makes another signature for the same token.
        let again = issuer.sign(Algorithm::Es256, &claims);
        let refusal = thief.oidc(&again).await.unwrap_err();
        refusal.is_refused("used by another agent already");
        owner.oidc(&again).await.unwrap();
    }
}

#[tokio::test]
async fn s15_a_token_that_no_rule_admits_is_not_spent() {
    let (mesh, issuer) = world().await;
    let feature = job(&issuer, json!({"ref": "refs/heads/feature"}));
    let token = issuer.sign(Algorithm::Rs256, &feature);
    for _ in 0..2 {
        let refusal = mesh.claimant().oidc(&token).await.unwrap_err();
        assert!(refusal.message.contains("no rule matches"), "{refusal:?}");
    }
}

#[tokio::test]
async fn tokens_for_others_and_claims_without_one_value_attest_nothing() {
    let (mesh, issuer) = world().await;
    let claimant = mesh.claimant();
    for (more, why) in [
        (json!({"aud": "sts.amazonaws.com"}), "aud"),
        (json!({"aud": [AUDIENCE, "sts.amazonaws.com"]}), "aud"),
        (json!({"aud": "warifu:example.org:call:payments"}), "aud"),
        (
            json!({"repository": ["shop/orders", "shop/payments"]}),
            "\"repository\" is a list",
        ),
        (
            json!({"repository": {"name": "shop/orders"}}),
            "\"repository\" is an object",
        ),
        (json!({"custom.project": "admin"}), "two of its claims"),
        (json!({"repository": "shop/orders\n"}), "control character"),
        (json!({"exp": 4_000_000_000_u64}), "25 h at most"),
    ] {
        let token = issuer.sign(Algorithm::Rs256, &job(&issuer, more));
        claimant.oidc(&token).await.unwrap_err().is_refused(why);
    }
    let claims = job(&issuer, json!({}));
    claimant
        .oidc(&issuer.unsigned(&claims))
        .await
        .unwrap_err()
        .is_refused("alg");
    claimant
        .oidc(&issuer.sign_with_public_key(&claims))
        .await
        .unwrap_err()
        .is_refused("alg");
}

#[tokio::test]
async fn s10_an_issuer_that_is_away_is_no_verdict_and_nobody_else_is_asked() {
    let issuer = Issuer::start().await;
    issuer.is(Mood::Failing);
    let attestor = format!(
        "{{kind: oidc, issuer: \"{}\", audience: \"{AUDIENCE}\", jwks_url: \"{}\", facts: {{}}}}",
        issuer.url(),
        issuer.jwks_url(),
    );
    let rules = "\n- {attestor: ci, match: {sub: \"repo:shop/*\"}, id: /job}\n";
    let mesh = Mesh::with(|authority| authority.attestor("ci", &attestor).rules(rules)).await;
    let token = issuer.sign(Algorithm::Rs256, &job(&issuer, json!({})));
    mesh.claimant()
        .oidc(&token)
        .await
        .unwrap_err()
        .is_no_verdict();
    // Where the keys are was configured: nothing else was asked for.
    assert!(
        issuer
            .asked()
            .iter()
            .all(|path| path.ends_with("jwks.json"))
    );
}

//! A pod attests with its projected token: verified with the keys of the cluster's issuer, and by the cluster
//! itself where it is to be asked.

use std::fs;

use serde_json::{Value, json};
use warifu_tests::{
    kubernetes::{ApiMood, Cluster, Pod, REVIEWER},
    mesh::Mesh,
    oidc::{Algorithm, Issuer, Mood},
};

const AUDIENCE: &str = "warifu:example.org:attest";

const RULES: &str = r#"
- {attestor: prod, match: {namespace: shop, pod_uid: "*"}, id: "/ns/{namespace}/sa/{service_account}"}
- {attestor: prod, match: {namespace: shop}, id: "/unbound/{service_account}"}
"#;

/// A cluster, and an authority that knows it.
struct World {
    mesh: Mesh,
    cluster: Cluster,
    files: tempfile::TempDir,
}

impl World {
    /// One that verifies offline.
    async fn new() -> Self {
        Self::with(|_| String::new()).await
    }

    /// One that asks the cluster, too.
    async fn that_reviews() -> Self {
        Self::with(|url| {
            format!(", token_review: {{url: \"{url}\", ca_file: DIR/api.pem, token_file: DIR/own}}")
        })
        .await
    }

    async fn with(review: impl FnOnce(&str) -> String) -> Self {
        let cluster = Cluster::start().await;
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(files.path().join(name), text).unwrap();
        write("issuer.pem", cluster.issuer.ca_pem().unwrap());
        write("api.pem", cluster.api_ca_pem());
        write("own", &format!("{REVIEWER}\n"));
        let attestor = format!(
            "{{kind: kubernetes, issuer: \"{}\", audience: \"{AUDIENCE}\", ca_file: DIR/issuer.pem{}}}",
            cluster.issuer.url(),
            review(&cluster.api_url()),
        );
        let attestor = attestor.replace("DIR", files.path().to_str().unwrap());
        let mesh = Mesh::with(|authority| authority.attestor("prod", &attestor).rules(RULES)).await;
        Self {
            mesh,
            cluster,
            files,
        }
    }
}

#[tokio::test]
async fn a_pod_becomes_what_the_rules_make_of_its_token() {
    let world = World::new().await;
    let pod = Pod::of("shop", "orders");
    let token = world.cluster.token(&pod, AUDIENCE);
    let claimant = world.mesh.claimant();
    for _ in 0..2 {
        let id = claimant.kubernetes(&token).await.unwrap();
        assert_eq!(id, "spiffe://example.org/ns/shop/sa/orders");
    }
    let facts = &world.mesh.authority.audit("attest")[0]["facts"];
    assert_eq!(facts["pod_uid"], pod.uid);
    assert_eq!(facts["node"], pod.node);
    // Made with `kubectl create token`.
    let unbound = world
        .cluster
        .sign(&pod.claims_without_pod(&world.cluster.issuer, AUDIENCE));
    let id = world.mesh.claimant().kubernetes(&unbound).await.unwrap();
    assert_eq!(id, "spiffe://example.org/unbound/orders");
    let facts = &world.mesh.authority.audit("attest")[2]["facts"];
    assert_eq!(
        *facts,
        json!({"namespace": "shop", "service_account": "orders"})
    );
}

#[tokio::test]
async fn an_agent_attests_with_the_token_the_kubelet_keeps_in_its_file() {
    let world = World::that_reviews().await;
    let file = world.files.path().join("projected");
    let pod = Pod::of("shop", "orders");
    fs::write(&file, world.cluster.token(&pod, AUDIENCE)).unwrap();
    let attestation = format!("{{kubernetes: {{token_file: {}}}}}", file.display());
    let agent = world
        .mesh
        .agent("orders")
        .attestation(&attestation)
        .start()
        .await;
    let id = agent.identity().svid.id().to_string();
    assert_eq!(id, "spiffe://example.org/ns/shop/sa/orders");
}

#[tokio::test]
async fn s15_a_stolen_token_is_worth_nothing_after_its_owner_used_it() {
    let world = World::new().await;
    let token = world.cluster.token(&Pod::of("shop", "orders"), AUDIENCE);
    let (owner, thief) = (world.mesh.claimant(), world.mesh.claimant());
    owner.kubernetes(&token).await.unwrap();
    let refusal = thief.kubernetes(&token).await.unwrap_err();
    refusal.is_refused("used by another agent already");
    owner.kubernetes(&token).await.unwrap();

    // At the same instant: one of them.
    let token = world.cluster.token(&Pod::of("shop", "orders"), AUDIENCE);
    let claimants: Vec<_> = (0..16).map(|_| world.mesh.claimant()).collect();
    let mut racing = tokio::task::JoinSet::new();
    for claimant in claimants {
        let token = token.clone();
        racing.spawn(async move { claimant.kubernetes(&token).await.is_ok() });
    }
    let winners = racing.join_all().await.into_iter().filter(|won| *won);
    assert_eq!(winners.count(), 1);
}

#[tokio::test]
async fn tokens_that_are_not_for_us_alone_or_say_two_things_attest_nothing() {
    let world = World::new().await;
    let pod = Pod::of("shop", "orders");
    let issuer = &world.cluster.issuer;
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut claims = pod.claims(issuer, AUDIENCE);
        change(&mut claims);
        world.cluster.sign(&claims)
    };
    let api = "https://kubernetes.default.svc";
    let tokens = [
        (changed(&|claims| claims["aud"] = json!([api])), "aud"),
        (
            changed(&|claims| claims["aud"] = json!([AUDIENCE, api])),
            "aud",
        ),
        (
            changed(&|claims| claims["aud"] = json!(["warifu:example.org:call:payments"])),
            "aud",
        ),
        (changed(&|claims| claims["aud"] = json!([])), "aud"),
        (
            changed(&|claims| claims["sub"] = json!("system:serviceaccount:shop:admin")),
            "`sub`",
        ),
        (
            changed(&|claims| claims["kubernetes.io"]["namespace"] = json!("kube-system")),
            "`sub`",
        ),
        (
            changed(&|claims| claims["exp"] = json!(claims["iat"].as_u64().unwrap() + 365 * 86400)),
            "25 h at most",
        ),
        (
            changed(&|claims| {
                claims.as_object_mut().unwrap().remove("kubernetes.io");
            }),
            "kubernetes.io",
        ),
        (
            world.cluster.sign(&pod.legacy_claims()),
            "no attestor of this kind is for the issuer",
        ),
        (
            {
                let mut legacy = pod.legacy_claims();
                legacy["iss"] = json!(issuer.url());
                world.cluster.sign(&legacy)
            },
            "exp",
        ),
        (issuer.unsigned(&pod.claims(issuer, AUDIENCE)), "alg"),
        (
            issuer.sign_with_public_key(&pod.claims(issuer, AUDIENCE)),
            "alg",
        ),
    ];
    let claimant = world.mesh.claimant();
    for (token, why) in tokens {
        claimant
            .kubernetes(&token)
            .await
            .unwrap_err()
            .is_refused(why);
    }
    // Another cluster's, and one whose issuer is the API server inside it.
    let other = Issuer::start().await;
    let claims = pod.claims(&other, AUDIENCE);
    let refusal = claimant
        .kubernetes(&other.sign(Algorithm::Rs256, &claims))
        .await
        .unwrap_err();
    refusal.is_refused("no attestor of this kind is for the issuer");
    let inside = changed(&|claims| claims["iss"] = json!(api));
    claimant
        .kubernetes(&inside)
        .await
        .unwrap_err()
        .is_refused(api);
    assert_eq!(other.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn s10_an_issuer_that_is_away_is_no_verdict_and_keys_at_hand_go_on() {
    let world = World::new().await;
    let claimant = world.mesh.claimant();
    let pod = Pod::of("shop", "orders");
    claimant
        .kubernetes(&world.cluster.token(&pod, AUDIENCE))
        .await
        .unwrap();
    world.cluster.issuer.is(Mood::Failing);
    claimant
        .kubernetes(&world.cluster.token(&pod, AUDIENCE))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_review_tells_of_pods_that_are_gone() {
    let world = World::that_reviews().await;
    let claimant = world.mesh.claimant();
    let pod = Pod::of("shop", "orders");
    let token = world.cluster.token(&pod, AUDIENCE);
    claimant.kubernetes(&token).await.unwrap();
    assert_eq!(world.cluster.reviewed(), 1);
    world.cluster.delete(&pod.uid);
    let refusal = claimant.kubernetes(&token).await.unwrap_err();
    refusal.is_refused("does not take this token any more");

    // Only what verified is shown to the cluster.
    let forged = world
        .cluster
        .issuer
        .sign_with_public_key(&pod.claims(&world.cluster.issuer, AUDIENCE));
    claimant
        .kubernetes(&forged)
        .await
        .unwrap_err()
        .is_refused("alg");
    assert_eq!(world.cluster.reviewed(), 2);
}

#[tokio::test]
async fn a_review_that_speaks_of_somebody_else_or_of_no_audience_proves_nothing() {
    let world = World::that_reviews().await;
    let claimant = world.mesh.claimant();
    let token = world.cluster.token(&Pod::of("shop", "orders"), AUDIENCE);
    for (mood, why) in [
        (ApiMood::Unaware, "our audience"),
        (ApiMood::Confused, "another service account"),
    ] {
        world.cluster.is(mood);
        claimant
            .kubernetes(&token)
            .await
            .unwrap_err()
            .is_refused(why);
    }
}

#[tokio::test]
async fn s10_a_cluster_that_cannot_be_asked_is_no_verdict() {
    let world = World::that_reviews().await;
    let claimant = world.mesh.claimant();
    let token = world.cluster.token(&Pod::of("shop", "orders"), AUDIENCE);
    for mood in [
        ApiMood::Failing,
        ApiMood::Redirecting,
        ApiMood::Huge,
        ApiMood::Hanging,
    ] {
        world.cluster.is(mood);
        let refusal = claimant.kubernetes(&token).await.unwrap_err();
        assert!(!refusal.message.contains("127.0.0.1"), "{refusal:?}");
        refusal.is_no_verdict();
    }
    world.cluster.is(ApiMood::Well);
    // Our own token is the one the kubelet wrote last.
    world.cluster.takes_reviewer("the-next-one");
    claimant
        .kubernetes(&token)
        .await
        .unwrap_err()
        .is_no_verdict();
    fs::write(world.files.path().join("own"), "the-next-one").unwrap();
    claimant.kubernetes(&token).await.unwrap();
    fs::remove_file(world.files.path().join("own")).unwrap();
    claimant
        .kubernetes(&token)
        .await
        .unwrap_err()
        .is_no_verdict();
}

#[tokio::test]
async fn s19_an_issuer_or_cluster_with_a_certificate_of_another_ca_is_not_asked() {
    let mut world = World::that_reviews().await;
    // Both files now have a CA that signed neither.
    let stranger = Cluster::start().await;
    for file in ["issuer.pem", "api.pem"] {
        let path = world.files.path().join(file);
        fs::write(path, stranger.api_ca_pem()).unwrap();
    }
    world.mesh.authority.stop();
    world.mesh.authority.start().await;
    let claimant = world.mesh.claimant();
    let token = world.cluster.token(&Pod::of("shop", "orders"), AUDIENCE);
    claimant
        .kubernetes(&token)
        .await
        .unwrap_err()
        .is_no_verdict();
    assert_eq!(world.cluster.reviewed(), 0);
}

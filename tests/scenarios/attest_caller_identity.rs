//! A role attests by a signature over `sts:GetCallerIdentity` which an STS verifies that is none of ours: good for one
//! key and one challenge, and nothing in it chooses what is asked, of whom, or who it turns out to be.

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use serde_json::json;
use warifu::Secret;
use warifu_agent::{
    attest::wire::{CallerIdentityProof, ErrorCode, Evidence},
    aws::{CallSigner, Roles, SignedCall},
    config::aws::Aws,
};
use warifu_tests::{
    mesh::{Mesh, Refusal},
    peers::{Ministack, SessionKeys},
    process::Sandbox,
};

const RULES: &str = r#"
- {attestor: aws, match: {account: "000000000000", role: "svc-*"}, id: "/{role}", ttl: TTL}
"#;

/// An account with a role, and an authority that asks its STS.
struct World {
    mesh: Mesh,
    ministack: Ministack,
}

impl World {
    async fn new() -> Self {
        Self::for_accounts(Ministack::ACCOUNT).await
    }

    async fn for_accounts(accounts: &str) -> Self {
        let ministack = Ministack::start().await.unwrap();
        let attestor = format!(
            "{{kind: aws-caller-identity, accounts: [\"{accounts}\"], sts_endpoints: {{{}: \"{}\"}}}}",
            Ministack::REGION,
            ministack.endpoint()
        );
        let mesh = Mesh::with(|authority| authority.attestor("aws", &attestor).rules(RULES)).await;
        Self { mesh, ministack }
    }

    /// Keys of a session of a role of this name.
    async fn session(&self, role: &str) -> SessionKeys {
        let root = format!("arn:aws:iam::{}:root", Ministack::ACCOUNT);
        let trust =
            json!([{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": root}}]);
        // GetCallerIdentity needs no permission.
        let may = json!([{"Effect": "Deny", "Action": "*", "Resource": "*"}]);
        let arn = self.ministack.create_role(role, trust, may).await.unwrap();
        self.ministack.assume_role(&arn, "i-1").await.unwrap()
    }
}

async fn signer(keys: &SessionKeys) -> CallSigner {
    let credentials = Credentials::new(
        &keys.access_key_id,
        &keys.secret_access_key,
        Some(keys.session_token.clone()),
        None,
        "test",
    );
    let settings = Aws {
        region: Some(Ministack::REGION.to_owned()),
        ..Aws::default()
    };
    let provider = SharedCredentialsProvider::new(credentials);
    let roles = Roles::with_provider(&settings, provider).await.unwrap();
    roles.call_signer().await.unwrap()
}

fn evidence(call: SignedCall) -> Evidence {
    Evidence::AwsCallerIdentity(CallerIdentityProof {
        region: call.region,
        access_key_id: call.access_key_id,
        date: call.date,
        session_token: call.session_token,
        signature: call.signature,
    })
}

/// Attests with a signature over `key.challenge`, changed by `change`.
async fn attest(
    world: &World,
    keys: &SessionKeys,
    binding: impl Fn(&str, &str) -> String + Send + Sync + 'static,
    change: impl Fn(&mut SignedCall) + Send + Sync + 'static,
) -> Result<String, Refusal> {
    let claimant = world.mesh.claimant();
    let (signer, key) = (signer(keys).await, claimant.key_hash());
    claimant
        .attest_with(&move |challenge: &str| {
            let mut call = signer.sign(&binding(&key, challenge)).unwrap();
            change(&mut call);
            Ok(evidence(call))
        })
        .await
}

fn bound(key: &str, challenge: &str) -> String {
    format!("{key}.{challenge}")
}

#[tokio::test]
async fn s07_a_signature_is_good_for_its_key_and_challenge_and_for_nothing_else() {
    let world = World::new().await;
    let keys = world.session("svc-orders").await;
    let id = attest(&world, &keys, bound, |_| {}).await.unwrap();
    assert_eq!(id, "spiffe://example.org/svc-orders");
    let line = &world.mesh.authority.audit("attest")[0];
    assert_eq!(line["attestor"], "aws");
    for (fact, value) in [
        ("account", Ministack::ACCOUNT),
        ("partition", "aws"),
        ("role", "svc-orders"),
        ("session", "i-1"),
        ("region", Ministack::REGION),
    ] {
        assert_eq!(line["facts"][fact], value, "{line}");
    }
    let principal = line["facts"]["principal_id"].as_str().unwrap();
    assert!(principal.starts_with("AROA"), "{line}");

    let another_key = world.mesh.claimant().key_hash();
    let with_another = move |_: &str, challenge: &str| bound(&another_key, challenge);
    let refused = attest(&world, &keys, with_another, |_| {}).await;
    refused.unwrap_err().is_refused("SignatureDoesNotMatch");
    let another_challenge = |key: &str, _: &str| bound(key, "another");
    let refused = attest(&world, &keys, another_challenge, |_| {}).await;
    refused.unwrap_err().is_refused("SignatureDoesNotMatch");
    let unbound = |_: &str, _: &str| "x".to_owned();
    let refused = attest(&world, &keys, unbound, |_| {}).await;
    refused.unwrap_err().is_refused("SignatureDoesNotMatch");
}

#[tokio::test]
async fn s07_a_proof_that_is_changed_is_no_proof() {
    let world = World::new().await;
    let keys = world.session("svc-orders").await;
    let other = world.session("svc-admin").await;
    type Change = Box<dyn Fn(&mut SignedCall) + Send + Sync>;
    let token = other.session_token.clone();
    let key = other.access_key_id.clone();
    let changes: Vec<(&str, Change)> = vec![
        (
            "SignatureDoesNotMatch",
            Box::new(|it| it.signature = "0".repeat(64)),
        ),
        (
            "STS of",
            Box::new(move |it| it.session_token = Secret::new(token.clone())),
        ),
        (
            "STS of",
            Box::new(move |it| it.access_key_id.clone_from(&key)),
        ),
        (
            "region",
            Box::new(|it| it.region = "us-east-1.evil.example#".into()),
        ),
        (
            "region",
            Box::new(|it| it.region = "us-east-1\r\nhost: evil.example".into()),
        ),
        ("signature", Box::new(|it| it.signature.push('\n'))),
        (
            "compare the clocks",
            Box::new(|it| it.date = "20250101T000000Z".into()),
        ),
    ];
    for (why, change) in changes {
        let refused = attest(&world, &keys, bound, change).await.unwrap_err();
        refused.is_refused(why);
    }
    // Never sent to where it was not signed for: that region's STS is not asked.
    let elsewhere = attest(&world, &keys, bound, |it| it.region = "moon-dark-1".into()).await;
    elsewhere.unwrap_err().is_refused("sts_endpoints");
}

#[tokio::test]
async fn keys_of_a_user_attest_nothing() {
    let world = World::new().await;
    let may = json!([{"Effect": "Allow", "Action": "*", "Resource": "*"}]);
    let user = world
        .ministack
        .create_user("svc-orders", may)
        .await
        .unwrap();
    // A user's keys have no session token; whatever is put there is signed like one.
    let keys = SessionKeys {
        access_key_id: user.access_key_id,
        secret_access_key: user.secret_access_key,
        session_token: "made-up".into(),
    };
    let refused = attest(&world, &keys, bound, |_| {}).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidEvidence, "{refused:?}");
}

#[tokio::test]
async fn a_role_of_an_account_that_is_not_listed_attests_nothing() {
    let world = World::for_accounts("123456789012").await;
    let keys = world.session("svc-orders").await;
    let refused = attest(&world, &keys, bound, |_| {}).await;
    refused
        .unwrap_err()
        .is_refused("account 000000000000 is not among");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_attests_by_it_with_its_base_credentials_and_keeps_them_to_itself() {
    let world = World::new().await;
    let keys = world.session("svc-orders").await;
    let sandbox = Sandbox::new();
    let authority = &world.mesh.authority;
    let agent = sandbox
        .agent_attesting(
            "orders",
            &authority.url(),
            &authority.pins()[0],
            "aws-caller-identity",
            "",
        )
        .env("AWS_REGION", Ministack::REGION)
        .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key)
        .env("AWS_SESSION_TOKEN", &keys.session_token)
        .start();
    let agent = sandbox.listening("orders", agent);
    agent.wait_until_ready();
    let status = agent.admin("/status").text;
    assert!(
        status.contains("spiffe://example.org/svc-orders"),
        "{status}"
    );
    for secret in [&keys.secret_access_key, &keys.session_token] {
        assert!(!agent.running.stderr().contains(secret), "S12");
        assert!(!status.contains(secret), "S12");
        let audit = world.mesh.authority.audit("attest");
        assert!(!format!("{audit:?}").contains(secret), "S12");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_keys_of_a_user_says_so_and_does_not_send_them() {
    let world = World::new().await;
    let sandbox = Sandbox::new();
    let authority = &world.mesh.authority;
    let agent = sandbox
        .agent_attesting(
            "orders",
            &authority.url(),
            &authority.pins()[0],
            "aws-caller-identity",
            "",
        )
        .env("AWS_REGION", Ministack::REGION)
        .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE000000000")
        .env("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
        .start();
    let said = agent.wait_for("no new X.509-SVID").to_string();
    assert!(said.contains("only a role's session is attested"), "{said}");
    assert!(world.mesh.authority.audit("attest").is_empty());
}

//! A role attests with a token that AWS signed for one renewal key: RS256 and ES384, by account, and nothing
//! that a caller can choose (its request tags, another audience, another issuer) makes it somebody else.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use warifu_tests::{
    aws::{AWS_CLAIMS, Principal, REGION, StsMood, WebIdentitySts, web_identity_claims},
    mesh::{Claimant, Mesh},
    oidc::{Algorithm, Issuer, Mood, unix},
    process::{AgentProcess, AuthorityProcess, Sandbox},
};

const ACCOUNT: &str = "123456789012";
const OTHER: &str = "210987654321";

const RULES: &str = r#"
- {attestor: aws, match: {account: "123456789012", namespace: "*", cluster_arn: "arn:aws:eks:eu-west-1:123456789012:cluster/prod"}, id: "/prod/{namespace}/{service_account}"}
- {attestor: aws, match: {account: "123456789012", tag_admin: "true"}, id: /admin}
- {attestor: aws, match: {account: "123456789012", role: "svc-*"}, id: "/{role}"}
- {attestor: aws, match: {account: "210987654321", role: "*"}, id: "/other/{role}"}
"#;

/// Two accounts, and an authority that knows both.
struct World {
    mesh: Mesh,
    sts: WebIdentitySts,
    issuer: Arc<Issuer>,
}

impl World {
    async fn new() -> Self {
        let sts = WebIdentitySts::start().await;
        let issuer = sts.issuer(ACCOUNT).await;
        let attestor = format!(
            "{{kind: aws-web-identity, org: o-abc1234567, issuers: {{\"{ACCOUNT}\": \"{}\", \"{OTHER}\": \"{}\"}}, \
             pod_identity_roles: [\"{ACCOUNT}:role/pod-*\"]}}",
            issuer.url(),
            sts.issuer(OTHER).await.url(),
        );
        let mesh = Mesh::with(|authority| authority.attestor("aws", &attestor).rules(RULES)).await;
        Self { mesh, sts, issuer }
    }

    /// The claims of a role's token for `claimant`, now.
    fn claims(&self, role: &Principal, claimant: &Claimant) -> Value {
        self.claims_with(role, claimant, &[])
    }

    fn claims_with(
        &self,
        role: &Principal,
        claimant: &Claimant,
        request_tags: &[(&str, &str)],
    ) -> Value {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        web_identity_claims(
            &self.issuer.url(),
            role,
            &[claimant.audience()],
            &request_tags.iter().map(own).collect::<BTreeMap<_, _>>(),
            SystemTime::now(),
            Duration::from_secs(300),
        )
    }
}

fn orders() -> Principal {
    Principal::role(ACCOUNT, "/team/", "svc-orders")
}

#[tokio::test]
async fn a_role_becomes_what_the_rules_make_of_it() {
    let world = World::new().await;
    let claimant = world.mesh.claimant();
    for algorithm in [Algorithm::Rs256, Algorithm::Es384] {
        let token = world
            .issuer
            .sign(algorithm, &world.claims(&orders(), &claimant));
        for _ in 0..2 {
            let id = claimant.web_identity(&token).await.unwrap();
            assert_eq!(id, "spiffe://example.org/svc-orders", "{algorithm:?}");
        }
    }
    let line = &world.mesh.authority.audit("attest")[0];
    assert_eq!(line["attestor"], "aws");
    assert_eq!(line["facts"]["account"], ACCOUNT);
    assert_eq!(line["facts"]["role_path"], "/team/");
    assert_eq!(line["facts"]["org"], "o-abc1234567");
}

#[tokio::test]
async fn s08_a_token_for_another_audience_key_account_or_organisation_attests_nothing() {
    let world = World::new().await;
    let claimant = world.mesh.claimant();
    let own = claimant.audience();
    let another = world.mesh.claimant().audience();
    let call = "warifu:example.org:call:payments";
    let other_role = format!("arn:aws:iam::{OTHER}:role/svc-orders");
    let now = unix(SystemTime::now());
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/aud", json!(call), "aud"),
        ("/aud", json!([own, call]), "aud"),
        ("/aud", json!([own, another]), "aud"),
        ("/aud", json!(another), "aud"),
        ("/aud", json!("warifu:example.org:attest"), "aud"),
        ("/sub", json!(other_role), OTHER),
        (
            "/sub",
            json!(format!("arn:aws:iam::{ACCOUNT}:user/svc-orders")),
            "IAM role",
        ),
        (
            "/sub",
            json!(format!("arn:aws:iam::{ACCOUNT}:root")),
            "IAM role",
        ),
        (
            "/sub",
            json!(format!("arn:aws:sts::{ACCOUNT}:assumed-role/svc-orders/x")),
            "IAM role",
        ),
        ("/iat", json!(now - 301), "older than"),
        ("/iat", json!(now + 60), "future"),
        ("/exp", json!(now - 60), "expired"),
        (
            "/https:~1~1sts.amazonaws.com~1/org_id",
            json!("o-attacker00"),
            "organisation",
        ),
        (
            "/https:~1~1sts.amazonaws.com~1/aws_account",
            json!(OTHER),
            "account",
        ),
        (
            "/https:~1~1sts.amazonaws.com~1",
            json!({}),
            "GetWebIdentityToken",
        ),
    ];
    for (pointer, value, why) in cases {
        let mut claims = world.claims(&orders(), &claimant);
        *claims.pointer_mut(pointer).unwrap() = value.clone();
        let token = world.issuer.sign(Algorithm::Rs256, &claims);
        let refusal = claimant.web_identity(&token).await.unwrap_err();
        refusal.is_refused(why);
    }
    // Replayed with another renewal key, and another CSR with it.
    let token = world
        .issuer
        .sign(Algorithm::Es384, &world.claims(&orders(), &claimant));
    let thief = world.mesh.claimant();
    thief
        .web_identity(&token)
        .await
        .unwrap_err()
        .is_refused("aud");
    // The other account's key, over claims of this one: the keys of both are called RSA_0.
    let other = world.sts.issuer(OTHER).await;
    let forged = other.sign(Algorithm::Rs256, &world.claims(&orders(), &claimant));
    claimant
        .web_identity(&forged)
        .await
        .unwrap_err()
        .is_refused("signature");
    let mut claims = world.claims(&orders(), &claimant);
    claims["iss"] = json!(other.url());
    let forged = other.sign(Algorithm::Rs256, &claims);
    claimant
        .web_identity(&forged)
        .await
        .unwrap_err()
        .is_refused(ACCOUNT);
    // As evidence of another kind it is none, either.
    claimant
        .oidc(&token)
        .await
        .unwrap_err()
        .is_refused("no attestor of this kind");
    claimant
        .kubernetes(&token)
        .await
        .unwrap_err()
        .is_refused("no attestor of this kind");
}

#[tokio::test]
async fn s08_request_tags_make_nobody_of_anybody() {
    let world = World::new().await;
    let claimant = world.mesh.claimant();
    let spoofed = [
        ("admin", "true"),
        (
            "eks-cluster-arn",
            "arn:aws:eks:eu-west-1:123456789012:cluster/prod",
        ),
        ("eks-cluster-name", "prod"),
        ("kubernetes-namespace", "kube-system"),
        ("kubernetes-service-account", "root"),
        ("kubernetes-pod-name", "x"),
        ("kubernetes-pod-uid", "x"),
        ("account", OTHER),
        ("role", "admin"),
    ];
    let id = async |role: &Principal, request_tags: &[(&str, &str)]| {
        let claims = world.claims_with(role, &claimant, request_tags);
        let token = world.issuer.sign(Algorithm::Rs256, &claims);
        claimant.web_identity(&token).await.unwrap()
    };
    assert_eq!(
        id(&orders(), &spoofed).await,
        "spiffe://example.org/svc-orders"
    );
    // Real tags are read, from roles that nobody but EKS Pod Identity can assume.
    let pod = Principal::role(ACCOUNT, "/", "pod-shop").of_pod("shop", "orders");
    assert_eq!(
        id(&pod, &spoofed).await,
        "spiffe://example.org/prod/shop/orders"
    );
    // Any role's session could have been given these.
    let tagged = orders().of_pod("kube-system", "root");
    assert_eq!(id(&tagged, &[]).await, "spiffe://example.org/svc-orders");
    let admin = orders().tag("Admin", "true");
    assert_eq!(id(&admin, &[]).await, "spiffe://example.org/admin");
    let facts = &world.mesh.authority.audit("attest")[0]["facts"];
    assert!(facts.get("tag_admin").is_none(), "{facts}");
}

#[tokio::test]
async fn s09_forgeries_of_the_token_itself_are_refused() {
    let world = World::new().await;
    let claimant = world.mesh.claimant();
    let claims = world.claims(&orders(), &claimant);
    let issuer = &world.issuer;
    let refuses = async |token: String, why: &str| {
        claimant
            .web_identity(&token)
            .await
            .unwrap_err()
            .is_refused(why);
    };
    refuses(issuer.unsigned(&claims), "alg").await;
    refuses(issuer.sign_with_public_key(&claims), "alg").await;
    // ES256 is no algorithm of STS, whoever published the key.
    refuses(issuer.sign(Algorithm::Es256, &claims), "alg").await;

    // What verifies is what is read: members that come twice are no token.
    let payload = claims.to_string();
    let header = issuer.header(Algorithm::Rs256).to_string();
    let admin = format!("\"sub\":\"arn:aws:iam::{ACCOUNT}:role/svc-admin\"");
    for twice in [
        payload.replacen('{', &format!("{{{admin},"), 1),
        format!("{},{admin}}}", payload.strip_suffix('}').unwrap()),
        payload.replacen(
            "\"aws_account\"",
            &format!("\"aws_account\":\"{OTHER}\",\"aws_account\""),
            1,
        ),
        payload.replacen('{', &format!("{{\"iss\":\"{}\",", issuer.url()), 1),
    ] {
        let token = issuer.sign_as_is(Algorithm::Rs256, &header, &twice);
        let refusal = claimant.web_identity(&token).await.unwrap_err();
        refusal.is_refused("");
    }
    // A good signature over another payload.
    let good = issuer.sign(Algorithm::Rs256, &claims);
    let other = issuer.sign(
        Algorithm::Rs256,
        &world.claims(&orders().tag("admin", "true"), &claimant),
    );
    let parts: Vec<&str> = good.split('.').collect();
    let others: Vec<&str> = other.split('.').collect();
    refuses([parts[0], others[1], parts[2]].join("."), "signature").await;
}

#[tokio::test]
async fn s10_nothing_a_token_says_is_fetched() {
    let world = World::new().await;
    let claimant = world.mesh.claimant();
    let attacker = Issuer::start().await;
    let mut claims = world.claims(&orders(), &claimant);
    claims["iss"] = json!(attacker.url());
    let token = attacker.sign(Algorithm::Rs256, &claims);
    let refusal = claimant.web_identity(&token).await.unwrap_err();
    refusal.is_refused("no attestor of this kind is for the issuer");

    claims["iss"] = json!(world.issuer.url());
    for (member, value) in [
        ("jku", json!(attacker.jwks_url())),
        ("x5u", json!(attacker.url())),
        ("jwk", json!({"kty": "oct", "k": "AA"})),
        ("kid", json!(attacker.jwks_url())),
    ] {
        let mut header = attacker.header(Algorithm::Rs256);
        header[member] = value;
        let token = attacker.sign_as_is(Algorithm::Rs256, &header.to_string(), &claims.to_string());
        claimant
            .web_identity(&token)
            .await
            .unwrap_err()
            .is_refused("");
    }
    assert_eq!(attacker.asked(), Vec::<String>::new());

    // A flood of keys nobody has: what the authority fetched when it started has to do.
    for number in 0..50 {
        let mut header = world.issuer.header(Algorithm::Rs256);
        header["kid"] = json!(format!("RSA_{number}_x"));
        let token =
            world
                .issuer
                .sign_as_is(Algorithm::Rs256, &header.to_string(), &claims.to_string());
        claimant
            .web_identity(&token)
            .await
            .unwrap_err()
            .is_refused("kid");
    }
    assert_eq!(world.issuer.jwks_fetches(), 1);
}

#[tokio::test]
async fn s10_an_issuer_that_is_away_is_no_verdict_and_keeps_nobody_else() {
    let sts = WebIdentitySts::start().await;
    let attacker = Issuer::start().await;
    let moods = [
        ("000000000001", Mood::Failing),
        ("000000000002", Mood::Garbled),
        ("000000000003", Mood::Huge),
        ("000000000004", Mood::Redirecting(attacker.jwks_url())),
        ("000000000005", Mood::Posing(attacker.url())),
        ("000000000006", Mood::Hanging),
        (ACCOUNT, Mood::Well),
    ];
    let mut issuers = Vec::new();
    for (account, mood) in &moods {
        let issuer = sts.issuer(account).await;
        issuer.is(mood.clone());
        issuers.push(format!("\"{account}\": \"{}\"", issuer.url()));
    }
    let attestor = format!(
        "{{kind: aws-web-identity, issuers: {{{}}}, pod_identity_roles: [\"{ACCOUNT}:role/pod-*\"]}}",
        issuers.join(", ")
    );
    let mesh = Mesh::with(|authority| authority.attestor("aws", &attestor).rules(RULES)).await;
    let claimant = mesh.claimant();
    let token = async |account: &str| {
        let issuer = sts.issuer(account).await;
        let claims = web_identity_claims(
            &issuer.url(),
            &Principal::role(account, "/", "svc-orders"),
            &[claimant.audience()],
            &BTreeMap::new(),
            SystemTime::now(),
            Duration::from_secs(300),
        );
        issuer.sign(Algorithm::Rs256, &claims)
    };
    let well = token(ACCOUNT).await;
    let hanging = token("000000000006").await;
    let waits = claimant.web_identity(&hanging);
    let meanwhile = async {
        // Nobody waits for those who hang.
        let id = claimant.web_identity(&well).await.unwrap();
        assert_eq!(id, "spiffe://example.org/svc-orders");
    };
    let (waited, ()) = tokio::join!(waits, meanwhile);
    waited.unwrap_err().is_no_verdict();
    for (account, mood) in &moods[..5] {
        let refusal = claimant
            .web_identity(&token(account).await)
            .await
            .unwrap_err();
        assert!(
            !refusal.message.contains("127.0.0.1"),
            "{mood:?}: {refusal:?}"
        );
        refusal.is_no_verdict();
    }
    assert_eq!(
        attacker.asked(),
        Vec::<String>::new(),
        "no redirect was followed"
    );
    // Keys that are at hand go on verifying.
    sts.issuer(ACCOUNT).await.is(Mood::Failing);
    assert!(claimant.web_identity(&well).await.is_ok());
}

/// The claim is called what AWS calls it.
#[test]
fn the_stand_in_makes_the_claims_of_real_tokens() {
    let role = orders().of_pod("shop", "orders");
    let claims = web_identity_claims(
        "https://issuer.example",
        &role,
        &["a".to_owned()],
        &BTreeMap::new(),
        SystemTime::now(),
        Duration::from_secs(300),
    );
    assert_eq!(claims["sub"], role.arn);
    assert_eq!(
        claims[AWS_CLAIMS]["principal_tags"]["kubernetes-namespace"],
        "shop"
    );
    assert!(claims[AWS_CLAIMS]["ou_path"].is_array());
}

/// An authority and agents in processes of their own, whose credentials are sessions of the stand-in STS.
struct Processes {
    sandbox: Sandbox,
    authority: AuthorityProcess,
    sts: WebIdentitySts,
}

impl Processes {
    async fn start() -> Self {
        let sts = WebIdentitySts::start().await;
        let issuer = sts.issuer(ACCOUNT).await.url();
        let sandbox = Sandbox::new();
        let dir = sandbox.path("");
        let dir = dir.display();
        let yaml = format!(
            "trust_domain: example.org
listen: 127.0.0.1:0
admin: unix:{dir}/authority.sock
probes: 127.0.0.1:0
audit_file: {dir}/audit.log
ca: {{key: disk, path: {dir}/ca}}
state: sqlite
attestors:
  aws: {{kind: aws-web-identity, issuers: {{\"{ACCOUNT}\": \"{issuer}\"}}}}
rules:
- {{attestor: aws, match: {{role: \"svc-*\"}}, id: \"/{{role}}\"}}
"
        );
        sandbox.write("authority.yaml", yaml);
        let command = sandbox.warifu(&["authority", "--config", "authority.yaml"]);
        Self {
            authority: command.authority(),
            sandbox,
            sts,
        }
    }

    /// An agent with a session of this role, that listens.
    fn agent(&self, name: &str, role: Principal) -> AgentProcess {
        let session = self.sts.session(role);
        let dir = self.sandbox.path("");
        let yaml = format!(
            "trust_domain: example.org
authority: {{url: \"https://{}\", root_spki_sha256: [\"{}\"]}}
attestation: aws-web-identity
aws: {{region: {REGION}, sts_endpoint: \"{}\"}}
admin: {{listen: \"unix:{}/{name}.sock\", probes: 127.0.0.1:0}}
",
            self.authority.address,
            self.authority.pin,
            self.sts.url(),
            dir.display(),
        );
        let file = format!("{name}.yaml");
        self.sandbox.write(&file, yaml);
        let running = self
            .sandbox
            .warifu(&["agent", "--config", &file])
            .env("AWS_ACCESS_KEY_ID", &session.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &session.secret_access_key)
            .env("AWS_SESSION_TOKEN", &session.session_token)
            .start();
        self.sandbox.listening(name, running)
    }
}

/// `/status`.
fn status(agent: &AgentProcess) -> Value {
    let answer = agent.admin("/status");
    let (_, body) = answer.text.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_a_role_needs_no_secret_to_become_what_it_is() {
    let world = Processes::start().await;
    // The policy that operations.md says to put on the role.
    let mut role = orders();
    role.audiences = vec!["warifu:example.org:attest:*".to_owned()];
    let agent = world.agent("orders", role);
    agent.wait_until_ready();
    let status = status(&agent);
    assert_eq!(
        status["identity"]["spiffe_id"],
        "spiffe://example.org/svc-orders"
    );
    // One audience, bound to its key, and nothing that a caller may choose.
    let asked = world.sts.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let audience = &asked[0]["Audience.member.1"];
    assert!(
        audience.starts_with("warifu:example.org:attest:"),
        "{audience}"
    );
    assert!(!asked[0].contains_key("Audience.member.2"));
    assert!(
        !asked[0].keys().any(|name| name.starts_with("Tags")),
        "{asked:?}"
    );
    let log = std::fs::read_to_string(world.sandbox.path("audit.log")).unwrap();
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(line["facts"]["role"], "svc-orders");
    assert_eq!(
        line["remote"]
            .as_str()
            .map(|it| it.starts_with("127.0.0.1")),
        Some(true)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_says_what_is_missing_where_iam_or_the_rules_are_against_it() {
    let world = Processes::start().await;
    let mut no_policy = orders();
    no_policy.audiences = vec!["warifu:example.org:call:*".to_owned()];
    let user = Principal {
        arn: format!("arn:aws:iam::{ACCOUNT}:user/svc-orders"),
        ..orders()
    };
    for (name, principal, says) in [
        ("no-policy", no_policy, "sts:GetWebIdentityToken"),
        ("user", user, "not the ARN of an IAM role"),
        (
            "no-rule",
            Principal::role(ACCOUNT, "/", "batch"),
            "no rule matches",
        ),
    ] {
        let agent = world.agent(name, principal);
        let logged = agent.running.wait_for("no new X.509-SVID");
        let why = logged["why"].as_str().unwrap();
        assert!(why.contains(says), "{name}: {why}");
        assert_eq!(agent.probe("/readyz").status, 503);
    }
    world.sts.is(StsMood::Disabled);
    let agent = world.agent("disabled", orders());
    let logged = agent.running.wait_for("no new X.509-SVID");
    let why = logged["why"].as_str().unwrap();
    assert!(
        why.contains("enable-outbound-web-identity-federation"),
        "{why}"
    );
}

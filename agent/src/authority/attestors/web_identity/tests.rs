//! Claims to facts, with time handed in.

use serde_json::json;
use warifu::jwt::{SigningKey, aws::AWS_CLAIM as AWS};

use super::{
    super::stub::{NOW, Stub, at, presented},
    *,
};
use crate::attest::wire::ErrorCode;

const ACCOUNT: &str = "123456789012";
const URL: &str = "https://11111111.tokens.sts.global.api.aws";
const ROLE: &str = "arn:aws:iam::123456789012:role/team/orders";

fn td() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

/// An attestor for one account, and who signs for it.
struct World {
    signer: Arc<Stub>,
    attestor: WebIdentity,
    renewal: SigningKey,
}

impl World {
    fn new() -> Self {
        let signer = Stub::with(SigningKey::generate_rsa());
        let issuer = signer.issuer(Profile::aws_web_identity("", "").algorithms);
        let account = Account {
            id: ACCOUNT.to_owned(),
            url: URL.to_owned(),
            issuer,
        };
        Self {
            signer,
            attestor: WebIdentity {
                name: "aws".to_owned(),
                accounts: BTreeMap::from([(URL.to_owned(), account)]),
                org: Some("o-abc1234567".to_owned()),
                pod_identity_roles: vec!["123456789012:role/pod-*".parse().unwrap()],
            },
            renewal: SigningKey::generate(),
        }
    }

    /// Claims that prove `ROLE`, for our key, now.
    fn claims(&self) -> Value {
        json!({
            "iss": URL,
            "sub": ROLE,
            "aud": audience(&td(), self.renewal.public()),
            "iat": NOW,
            "exp": NOW + 300,
            "jti": "1",
            AWS: {
                "aws_account": ACCOUNT,
                "source_region": "eu-west-1",
                "principal_id": ROLE,
                "org_id": "o-abc1234567",
                "ou_path": ["o-abc1234567/r-ab12/ou-ab12-11111111/"],
            },
        })
    }

    fn changed(&self, change: impl FnOnce(&mut Value)) -> Value {
        let mut claims = self.claims();
        change(&mut claims);
        claims
    }

    async fn prove_at(&self, now: SystemTime, claims: &Value) -> Result<Proven, Denied> {
        let token = self.signer.sign(claims);
        let issuer = token::unverified_issuer(&token);
        let account = self.attestor.account_of(&issuer.unwrap()).unwrap();
        let presented = presented(self.renewal.public(), now);
        let td = td();
        let proven = self.attestor.prove(account, &token, &td, presented);
        proven.await
    }

    async fn prove(&self, claims: &Value) -> Result<Proven, Denied> {
        self.prove_at(at(NOW), claims).await
    }

    async fn facts(&self, claims: &Value) -> Facts {
        self.prove(claims).await.unwrap().facts
    }

    /// Checks that it is a refusal, and says this.
    async fn refuses(&self, claims: &Value, says: &str) {
        let why = self.prove(claims).await.unwrap_err();
        assert_eq!(why.code, ErrorCode::InvalidEvidence, "{why:?}");
        assert!(why.message.contains(says), "{}", why.message);
    }
}

fn tags(claims: &mut Value, tags: Value) {
    claims[AWS]["principal_tags"] = tags;
}

fn pod_tags() -> Value {
    json!({
        "eks-cluster-arn": "arn:aws:eks:eu-west-1:210987654321:cluster/prod",
        "eks-cluster-name": "prod",
        "kubernetes-namespace": "shop",
        "kubernetes-service-account": "orders",
        "kubernetes-pod-name": "orders-7d9c",
        "kubernetes-pod-uid": "2a1b",
    })
}

fn as_role(claims: &mut Value, name: &str) {
    let arn = format!("arn:aws:iam::{ACCOUNT}:role/{name}");
    claims["sub"] = json!(arn);
    claims[AWS]["principal_id"] = json!(arn);
}

#[tokio::test]
async fn a_role_is_proved_with_what_aws_says_of_it() {
    let world = World::new();
    let proven = world.prove(&world.claims()).await.unwrap();
    assert_eq!(proven.attestor, "aws");
    assert_eq!(proven.single_use, None, "bound to the key");
    let expected = [
        ("account", ACCOUNT),
        ("org", "o-abc1234567"),
        ("ou_path", "o-abc1234567/r-ab12/ou-ab12-11111111/"),
        ("partition", "aws"),
        ("role", "orders"),
        ("role_path", "/team/"),
        ("source_region", "eu-west-1"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(proven.facts, Facts::from(expected));
}

#[tokio::test]
async fn s08_the_audience_is_one_and_that_of_the_renewal_key() {
    let world = World::new();
    let own = audience(&td(), world.renewal.public());
    let of_another = audience(&td(), SigningKey::generate().public());
    for wrong in [
        json!(of_another),
        json!([own, of_another]),
        json!([own, "warifu:example.org:call:payments"]),
        json!("warifu:example.org:call:payments"),
        json!("warifu:example.org:attest"),
        json!(own.replace("example.org", "example.com")),
        json!([]),
        json!([[own]]),
    ] {
        let claims = world.changed(|claims| claims["aud"] = wrong);
        world.refuses(&claims, "aud").await;
    }
    let listed = world.changed(|claims| claims["aud"] = json!([own]));
    assert!(world.prove(&listed).await.is_ok());
}

#[tokio::test]
async fn s08_evidence_is_worth_nothing_with_another_renewal_key() {
    let mut world = World::new();
    let claims = world.claims();
    assert!(world.prove(&claims).await.is_ok());
    world.renewal = SigningKey::generate();
    world.refuses(&claims, "aud").await;
}

#[tokio::test]
async fn s08_the_account_is_the_one_the_issuer_is_configured_for() {
    let world = World::new();
    let other = "arn:aws:iam::210987654321:role/team/orders";
    let claims = world.changed(|claims| {
        claims["sub"] = json!(other);
        claims[AWS]["principal_id"] = json!(other);
        claims[AWS]["aws_account"] = json!("210987654321");
    });
    world.refuses(&claims, "210987654321").await;
    // Each alone, too.
    let claims = world.changed(|claims| claims[AWS]["aws_account"] = json!("210987654321"));
    world.refuses(&claims, "configured for 123456789012").await;
    let claims = world.changed(|claims| {
        claims["sub"] = json!(other);
        claims[AWS]["principal_id"] = json!(other);
    });
    world.refuses(&claims, "210987654321").await;
    let claims = world.changed(|claims| claims[AWS]["principal_id"] = json!(other));
    world.refuses(&claims, "principal_id").await;
    let claims = world.changed(|claims| {
        claims[AWS]["principal_id"] = json!("arn:aws-cn:iam::123456789012:role/team/orders");
    });
    world.refuses(&claims, "principal_id").await;
}

#[tokio::test]
async fn s08_another_organisation_or_none_is_refused_where_one_is_pinned() {
    let mut world = World::new();
    for org in [json!("o-other"), Value::Null, json!(["o-abc1234567"])] {
        let claims = world.changed(|claims| claims[AWS]["org_id"] = org);
        assert!(world.prove(&claims).await.is_err());
    }
    world.attestor.org = None;
    let claims = world.changed(|claims| claims[AWS]["org_id"] = json!("o-other"));
    assert_eq!(world.facts(&claims).await["org"], "o-other");
}

#[tokio::test]
async fn subjects_that_are_no_roles_are_refused() {
    let world = World::new();
    for subject in [
        "arn:aws:iam::123456789012:user/orders",
        "arn:aws:iam::123456789012:root",
        "arn:aws:sts::123456789012:assumed-role/orders/session",
        "arn:aws:sts::123456789012:federated-user/orders",
        "orders",
    ] {
        let claims = world.changed(|claims| {
            claims["sub"] = json!(subject);
            claims[AWS]["principal_id"] = json!(subject);
        });
        world.refuses(&claims, "not the ARN of an IAM role").await;
    }
}

#[tokio::test]
async fn a_token_is_fresh_for_five_minutes_and_not_of_the_future() {
    let world = World::new();
    let claims = world.changed(|claims| claims["exp"] = json!(NOW + 3600));
    assert!(world.prove_at(at(NOW + 300), &claims).await.is_ok());
    let why = world.prove_at(at(NOW + 301), &claims).await.unwrap_err();
    assert!(why.message.contains("older than 300 s"), "{}", why.message);
    // Clocks may differ by the profile's skew, and no more.
    assert!(world.prove_at(at(NOW - 5), &claims).await.is_ok());
    let why = world.prove_at(at(NOW - 6), &claims).await.unwrap_err();
    assert!(
        why.message.contains("iat is in the future"),
        "{}",
        why.message
    );
    let claims = world.changed(|claims| {
        claims.as_object_mut().unwrap().remove("iat");
    });
    world.refuses(&claims, "iat").await;
}

#[tokio::test]
async fn s08_request_tags_give_no_fact_and_shadow_none() {
    let world = World::new();
    let claims = world.changed(|claims| {
        as_role(claims, "pod-orders");
        tags(claims, json!({"team": "shop"}));
        claims[AWS]["request_tags"] = pod_tags();
        claims[AWS]["request_tags"]["team"] = json!("admin");
        claims[AWS]["request_tags"]["admin"] = json!("true");
        claims["request_tags"] = json!({"team": "admin"});
        claims["principal_tags"] = pod_tags();
    });
    let facts = world.facts(&claims).await;
    assert_eq!(facts["tag_team"], "shop");
    assert_eq!(
        facts.keys().filter(|name| name.starts_with("tag_")).count(),
        1
    );
    assert!(!facts.contains_key(fact::NAMESPACE), "{facts:?}");
    assert!(!facts.values().any(|value| value == "admin"));
}

#[tokio::test]
async fn s08_tags_of_pod_identity_are_facts_of_the_roles_it_alone_can_assume() {
    let world = World::new();
    let claims = world.changed(|claims| {
        as_role(claims, "pod-orders");
        tags(claims, pod_tags());
    });
    let facts = world.facts(&claims).await;
    for (name, value) in [
        (fact::NAMESPACE, "shop"),
        (fact::SERVICE_ACCOUNT, "orders"),
        (fact::POD, "orders-7d9c"),
        (fact::POD_UID, "2a1b"),
        (fact::CLUSTER, "prod"),
        (fact::CLUSTER_REGION, "eu-west-1"),
        (fact::CLUSTER_ACCOUNT, "210987654321"),
    ] {
        assert_eq!(facts[name], value, "{name}");
    }
    let of_any_role = world.changed(|claims| tags(claims, pod_tags()));
    let facts = world.facts(&of_any_role).await;
    assert!(!fact::OF_PODS.iter().any(|name| facts.contains_key(*name)));
    assert!(!facts.keys().any(|name| name.starts_with("tag_")));
    // Some of them are not EKS's.
    let some = world.changed(|claims| {
        as_role(claims, "pod-orders");
        tags(claims, json!({"kubernetes-namespace": "kube-system"}));
    });
    assert!(!world.facts(&some).await.contains_key(fact::NAMESPACE));
}

#[tokio::test]
async fn a_tag_is_a_fact_only_if_no_other_could_be_meant() {
    let world = World::new();
    let claims = world.changed(|claims| {
        tags(
            claims,
            json!({
                "Team": "shop", "team": "admin", "CostCenter": "7", "a_b": "1", "a-b": "2",
                "list": ["x"], "": "x", "tag é": "x",
            }),
        );
    });
    let facts = world.facts(&claims).await;
    let of_tags: Vec<_> = facts
        .iter()
        .filter(|(name, _)| name.starts_with("tag_"))
        .collect();
    let expected = [("tag_a_b", "1"), ("tag_costcenter", "7")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(
        of_tags,
        expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn where_it_runs_is_a_fact_if_it_is_of_the_account() {
    let world = World::new();
    let claims = world.changed(|claims| {
        claims[AWS]["ec2_source_instance_arn"] =
            json!("arn:aws:ec2:eu-west-1:123456789012:instance/i-0abc");
        claims[AWS]["lambda_source_function_arn"] =
            json!("arn:aws:lambda:eu-west-2:123456789012:function:orders:7");
    });
    let facts = world.facts(&claims).await;
    assert_eq!(facts["ec2_instance"], "i-0abc");
    assert_eq!(facts["lambda_function"], "orders");
    assert_eq!(facts["lambda_region"], "eu-west-2");
    let claims = world.changed(|claims| {
        claims[AWS]["ec2_source_instance_arn"] =
            json!("arn:aws:ec2:eu-west-1:210987654321:instance/i-0abc");
        claims[AWS]["lambda_source_function_arn"] =
            json!("arn:aws:ec2:eu-west-2:123456789012:function:orders");
        claims[AWS]["ou_path"] = json!(["a/", "b/"]);
    });
    let facts = world.facts(&claims).await;
    for name in [
        "ec2_instance",
        "lambda_function",
        "lambda_region",
        "ou_path",
    ] {
        assert!(!facts.contains_key(name), "{name}");
    }
    let documented = world.changed(|claims| claims[AWS]["ou_path"] = json!("o/r/ou/"));
    assert_eq!(world.facts(&documented).await["ou_path"], "o/r/ou/");
}

#[tokio::test]
async fn a_token_without_what_aws_says_is_refused() {
    let world = World::new();
    for wrong in [
        Value::Null,
        json!([]),
        json!("x"),
        json!({"aws_account": 123_456_789_012_u64}),
    ] {
        let claims = world.changed(|claims| claims[AWS] = wrong);
        world.refuses(&claims, "GetWebIdentityToken").await;
    }
}

#[tokio::test]
async fn s10_keys_that_cannot_be_had_are_no_verdict() {
    let world = World::new();
    world
        .signer
        .away
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let why = world.prove(&world.claims()).await.unwrap_err();
    assert_eq!(why.code, ErrorCode::EvidenceUnavailable);
    assert_eq!(why.code.status(), 503);
    assert!(why.retry_after.is_some());
}

#[tokio::test]
async fn facts_beyond_what_a_record_holds_are_refused_and_control_characters_too() {
    let world = World::new();
    let claims = world.changed(|claims| {
        let many: BTreeMap<String, String> = (0..20)
            .map(|n| (format!("t{n}"), "x".repeat(256)))
            .collect();
        tags(claims, json!(many));
    });
    world.refuses(&claims, "fewer or shorter tags").await;
    let claims = world.changed(|claims| tags(claims, json!({"team": "a\nb"})));
    world.refuses(&claims, "control character").await;
}

#[tokio::test]
async fn an_algorithm_that_sts_does_not_sign_with_is_refused() {
    let mut world = World::new();
    world.signer = Stub::with(SigningKey::generate());
    world.attestor.accounts.get_mut(URL).unwrap().issuer = world
        .signer
        .issuer(Profile::aws_web_identity("", "").algorithms);
    world.refuses(&world.claims(), "alg").await;
}

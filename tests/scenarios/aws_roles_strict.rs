//! Named roles against a stand-in STS that is as strict as AWS documents its own, where emulators are not: it evaluates
//! conditions on source identities and transitive tags, keeps what sessions hand on, and believes a token when the keys
//! that its issuer publishes verify it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use warifu_tests::{
    aws::{Agent, Principal, Session, WebIdentitySts, Workload},
    oidc::{Algorithm, Issuer},
    ports::free_port,
    upstreams::Keyed,
};

const ACCOUNT: &str = "123456789012";
const USER: &str = "arn:aws:iam::123456789012:user/agent";
const ACTIONS: [&str; 3] = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"];

fn arn(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{name}")
}

fn allow(principal: Value, actions: &[&str], condition: Value) -> Value {
    json!([{"Effect": "Allow", "Principal": principal, "Action": actions, "Condition": condition}])
}

/// An agent whose base credentials are `base`, with named roles (their fields beside `arn`), each the role of a route of
/// the same name to an API that takes everything.
struct World {
    sts: WebIdentitySts,
    api: Keyed,
    workload: Workload,
    roles: BTreeMap<&'static str, String>,
}

impl World {
    async fn new(workload: Workload) -> Self {
        Self {
            sts: WebIdentitySts::start().await,
            api: Keyed::start("x-none", 200).await,
            workload,
            roles: BTreeMap::new(),
        }
    }

    /// A role that has `fields` in the agent's file, and at STS this trust policy.
    fn role(&mut self, name: &'static str, fields: &str, trust: Value) {
        self.sts.trust(&arn(name), trust);
        let role = format!("{name}: {{arn: \"{}\", {fields}}}", arn(name));
        self.roles.insert(name, role);
    }

    fn agent(&self, base: &Session) -> Agent {
        let roles: Vec<&str> = self.roles.values().map(String::as_str).collect();
        let roles = format!("roles:\n  {}", roles.join("\n  "));
        let route = |name: &&'static str| {
            format!(
                "- {{host: {name}, upstream: \"{}\", sigv4: {{service: execute-api, role: {name}}}}}\n",
                self.api.url()
            )
        };
        let routes: String = self.roles.keys().map(route).collect();
        self.workload
            .agent_of_session(base, &self.sts.url(), &roles, &routes)
    }
}

async fn accepted(agent: &Agent, role: &str) {
    agent.post(role, "/").await.is_of_the_service(200);
}

async fn refused(agent: &Agent, role: &str, said: &[&str]) {
    let answer = agent.post(role, "/").await;
    let arn = arn(role);
    let said = [said, &[arn.as_str()]].concat();
    answer.is_refused(503, "no-credentials", &said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_a_session_has_the_source_identity_and_transitive_tags_that_its_trust_policy_asks_for()
{
    let mut world = World::new(Workload::new()).await;
    let user = || json!({"AWS": USER});
    let condition = json!({
        "StringEquals": {
            "sts:SourceIdentity": "orders",
            "sts:ExternalId": "tenant-1",
            "aws:RequestTag/team": "shop",
        },
        "StringLike": {"sts:RoleSessionName": "orders.*"},
        "ForAllValues:StringEquals": {"sts:TransitiveTagKeys": ["workload"]},
        "Null": {"sts:TransitiveTagKeys": "false"},
    });
    let right = [
        ("source_identity", "'{name}'"),
        ("external_id", "tenant-1"),
        ("session_name", "'{name}.{trust_domain}'"),
        ("tags", "{team: shop, workload: '{spiffe_id}'}"),
        ("transitive_tags", "[workload]"),
    ];
    let trust = || allow(user(), &ACTIONS, condition.clone());
    for (name, field, value) in [
        ("right", "", ""),
        ("another-source", "source_identity", "payments"),
        ("another-tenant", "external_id", "tenant-2"),
        ("another-name", "session_name", "'{name}'"),
        (
            "another-team",
            "tags",
            "{team: other, workload: '{spiffe_id}'}",
        ),
        ("more-transitive", "transitive_tags", "[workload, team]"),
        ("none-transitive", "transitive_tags", "[]"),
    ] {
        let fields =
            right.map(|(it, as_is)| format!("{it}: {}", if it == field { value } else { as_is }));
        world.role(name, &fields.join(", "), trust());
    }
    let without_source: Vec<String> = right[1..]
        .iter()
        .map(|(it, value)| format!("{it}: {value}"))
        .collect();
    world.role("no-source", &without_source.join(", "), trust());
    // What is passed has to be allowed, beside the role itself.
    let all = right.map(|(it, value)| format!("{it}: {value}")).join(", ");
    world.role(
        "no-tagging",
        &all,
        allow(user(), &[ACTIONS[0], ACTIONS[2]], json!({})),
    );
    world.role("no-setting", &all, allow(user(), &ACTIONS[..2], json!({})));

    let agent = world.agent(&world.sts.user(USER));
    accepted(&agent, "right").await;
    for name in [
        "another-source",
        "another-tenant",
        "another-name",
        "another-team",
        "more-transitive",
        "none-transitive",
        "no-source",
    ] {
        refused(&agent, name, &["AccessDenied"]).await;
    }
    refused(&agent, "no-tagging", &["AccessDenied", "sts:TagSession"]).await;
    refused(
        &agent,
        "no-setting",
        &["AccessDenied", "sts:SetSourceIdentity"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_hands_on_is_seen_down_the_chain_and_cannot_be_set_again() {
    let mut world = World::new(Workload::new()).await;
    let from = |role: &str| json!({"AWS": arn(role)});
    world.role(
        "first",
        "source_identity: '{name}', tags: {workload: '{spiffe_id}'}, transitive_tags: [workload], duration: 12h",
        allow(json!({"AWS": USER}), &ACTIONS, json!({})),
    );
    let condition = json!({"StringEquals": {"aws:SourceIdentity": "orders"}});
    world.role(
        "second",
        "from: first",
        allow(from("first"), &ACTIONS, condition),
    );
    world.role(
        "third",
        "from: second, duration: 1h",
        allow(from("second"), &ACTIONS, json!({})),
    );
    // What comes along has to be allowed, too.
    world.role(
        "untagged",
        "from: first",
        allow(from("first"), &[ACTIONS[0], ACTIONS[2]], json!({})),
    );
    let others = json!({"StringEquals": {"aws:SourceIdentity": "payments"}});
    world.role(
        "others",
        "from: first",
        allow(from("first"), &ACTIONS, others),
    );
    let agent = world.agent(&world.sts.user(USER));
    accepted(&agent, "third").await;
    accepted(&agent, "second").await;
    refused(&agent, "untagged", &["AccessDenied", "sts:TagSession"]).await;
    refused(&agent, "others", &["AccessDenied"]).await;

    // Base credentials of EKS Pod Identity are a role's session, and its tags are transitive.
    let mut world = World::new(Workload::new()).await;
    let pod = Principal::role(ACCOUNT, "/", "pod").of_pod("shop", "orders");
    let trust = || allow(json!({"AWS": pod.arn}), &ACTIONS, json!({}));
    world.role("right", "tags: {team: shop}", trust());
    world.role("again", "tags: {kubernetes-namespace: other}", trust());
    world.role("long", "duration: 2h", trust());
    let agent = world.agent(&world.sts.session(pod.clone()));
    accepted(&agent, "right").await;
    refused(
        &agent,
        "again",
        &["transitive tag key", "kubernetes-namespace"],
    )
    .await;
    refused(&agent, "long", &["role chaining"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_a_role_is_had_for_a_jwt_svid_that_the_authority_s_published_keys_verify() {
    let web = free_port();
    let mut world = World::new(Workload::published_at(web)).await;
    let issuer = format!("http://{web}");
    let provider = world.sts.provider(&issuer, &["sts.amazonaws.com"]);
    let trust = |sub: &str| {
        let condition = json!({"StringEquals": {
            format!("{web}:sub"): format!("spiffe://example.org/{sub}"),
            format!("{web}:aud"): "sts.amazonaws.com",
        }});
        allow(
            json!({"Federated": provider}),
            &["sts:AssumeRoleWithWebIdentity"],
            condition,
        )
    };
    let by =
        |audience: &str| format!("from: {{web_identity: {{audience: {audience}}}}}, duration: 2h");
    world.role("ours", &by("sts.amazonaws.com"), trust("orders"));
    world.role("theirs", &by("sts.amazonaws.com"), trust("payments"));
    world.role("elsewhere", &by("sts.elsewhere"), trust("orders"));
    let file = world.workload.path("tampered");
    let tampered = format!("from: {{web_identity: {{token_file: {}}}}}", file.display());
    world.role("tampered", &tampered, trust("payments"));

    let base = world.sts.user(USER);
    let agent = world.agent(&base);
    accepted(&agent, "ours").await;
    refused(&agent, "theirs", &["AccessDenied"]).await;
    refused(&agent, "elsewhere", &["InvalidIdentityToken", "audience"]).await;
    // Whose token says that it is another's.
    let asked = world.sts.asked();
    let token = &asked[0]["WebIdentityToken"];
    let parts: Vec<&str> = token.split('.').collect();
    let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let claims = String::from_utf8(claims).unwrap();
    let claims = claims.replace("example.org/orders", "example.org/payments");
    let claims = URL_SAFE_NO_PAD.encode(claims);
    let forged = format!("{}.{claims}.{}", parts[0], parts[2]);
    world.workload.write("tampered", &forged);
    refused(
        &agent,
        "tampered",
        &["InvalidIdentityToken", "InvalidSignature"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_is_had_for_a_token_in_a_file_while_it_is_good() {
    let mut world = World::new(Workload::new()).await;
    let (issuer, stranger) = (Issuer::start().await, Issuer::start().await);
    let provider = world.sts.provider(&issuer.url(), &["sts.amazonaws.com"]);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let claims = |aud: &str, iss: &str, lives: Duration| {
        json!({
            "iss": iss,
            "sub": "system:serviceaccount:shop:orders",
            "aud": [aud],
            "iat": now.as_secs() - 600,
            "exp": (now + lives).as_secs() - 300,
        })
    };
    let (long, over) = (Duration::from_secs(3600), Duration::ZERO);
    let aud = "sts.amazonaws.com";
    let good = issuer.sign(Algorithm::Rs256, &claims(aud, &issuer.url(), long));
    let tokens = [
        ("good", good),
        (
            "expired",
            issuer.sign(Algorithm::Rs256, &claims(aud, &issuer.url(), over)),
        ),
        (
            "elsewhere",
            issuer.sign(Algorithm::Es384, &claims("vault", &issuer.url(), long)),
        ),
        (
            "forged",
            stranger.sign(Algorithm::Rs256, &claims(aud, &issuer.url(), long)),
        ),
        (
            "strange",
            stranger.sign(Algorithm::Rs256, &claims(aud, &stranger.url(), long)),
        ),
    ];
    for (name, token) in &tokens {
        world.workload.write(name, token);
        let file = world.workload.path(name);
        let from = format!("from: {{web_identity: {{token_file: {}}}}}", file.display());
        let trust = allow(
            json!({"Federated": provider}),
            &["sts:AssumeRoleWithWebIdentity"],
            json!({"StringLike": {format!("{}:sub", &issuer.url()[7..]): "system:serviceaccount:shop:*"}}),
        );
        world.role(name, &from, trust);
    }
    let agent = world.agent(&world.sts.user(USER));
    accepted(&agent, "good").await;
    refused(&agent, "expired", &["ExpiredToken"]).await;
    refused(&agent, "elsewhere", &["InvalidIdentityToken", "audience"]).await;
    refused(
        &agent,
        "forged",
        &["InvalidIdentityToken", "InvalidSignature"],
    )
    .await;
    refused(
        &agent,
        "strange",
        &["InvalidIdentityToken", "No OpenIDConnect provider"],
    )
    .await;
}

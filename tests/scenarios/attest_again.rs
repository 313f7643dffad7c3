//! A renewal is attestation again: evidence decides, for and against, at each. Where nobody can say what it proves the
//! attestation record bridges, up to `max_attestation_age`; where it is refused nothing does.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use warifu_tests::{
    aws::{Principal, REGION, StsMood, WebIdentitySts},
    mesh::{Mesh, until},
    oidc::{Issuer, Mood},
    process::{AgentProcess, Sandbox},
};

const ACCOUNT: &str = "123456789012";
/// Renewed every second or so.
const TTL: Duration = Duration::from_secs(4);
const RULES: &str = r#"
- {attestor: aws, match: {account: "123456789012", role: "svc-*"}, id: "/{role}", ttl: TTL}
"#;

struct World {
    agent: AgentProcess,
    sts: WebIdentitySts,
    issuer: Arc<Issuer>,
    mesh: Mesh,
    _sandbox: Sandbox,
}

impl World {
    /// An agent of a role, with an identity, and an authority that takes records for `max_age`.
    async fn new(max_age: &str) -> Self {
        let world = Self::of(Principal::role(ACCOUNT, "/team/", "svc-orders"), max_age).await;
        world.agent.wait_until_ready();
        world
    }

    async fn of(role: Principal, max_age: &str) -> Self {
        let sts = WebIdentitySts::start().await;
        let issuer = sts.issuer(ACCOUNT).await;
        let attestor = format!(
            "{{kind: aws-web-identity, issuers: {{\"{ACCOUNT}\": \"{}\"}}}}",
            issuer.url()
        );
        let more = format!("max_attestation_age: {max_age}");
        let mesh = Mesh::with(|authority| {
            authority
                .attestor("aws", &attestor)
                .rules(RULES)
                .ttl(TTL)
                .more(&more)
        })
        .await;
        let session = sts.session(role);
        let sandbox = Sandbox::new();
        let aws = format!("aws: {{region: {REGION}, sts_endpoint: \"{}\"}}", sts.url());
        let (url, pin) = (mesh.authority.url(), &mesh.authority.pins()[0]);
        let agent = sandbox
            .agent_attesting("orders", &url, pin, "aws-web-identity", &aws)
            .env("AWS_ACCESS_KEY_ID", &session.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &session.secret_access_key)
            .env("AWS_SESSION_TOKEN", &session.session_token)
            .start();
        let agent = sandbox.listening("orders", agent);
        Self {
            agent,
            sts,
            issuer,
            mesh,
            _sandbox: sandbox,
        }
    }

    /// Waits for `count` further audit lines of `event`.
    async fn further(&self, event: &str, count: usize) -> Vec<Value> {
        let seen = self.mesh.authority.audit(event).len();
        let what = format!("{count} further of {event}");
        let lines = until(&what, async || {
            let lines = self.mesh.authority.audit(event);
            (lines.len() >= seen + count).then(|| lines[seen..].to_vec())
        });
        lines.await
    }

    fn renewal(&self) -> Value {
        let status = self.agent.admin("/status").text;
        let (_, body) = status.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<Value>(body).unwrap()["renewal"].clone()
    }

    fn probe(&self) -> (u16, String) {
        let answer = self.agent.probe("/readyz");
        (answer.status, answer.text)
    }

    async fn until_not_ready(&self) -> String {
        let ended = until("the identity expires", async || match self.probe() {
            (503, text) => Some(text),
            _ => None,
        });
        ended.await
    }
}

fn lineages(lines: &[Value]) -> Vec<&str> {
    let mut lineages: Vec<&str> = lines
        .iter()
        .map(|it| it["lineage"].as_str().unwrap())
        .collect();
    lineages.dedup();
    lineages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_attests_again_at_each_renewal_and_its_lineage_goes_on() {
    let world = World::new("1h").await;
    world.further("attest", 3).await;
    let lines = world.mesh.authority.audit("attest");
    assert_eq!(lineages(&lines).len(), 1, "{lines:#?}");
    assert!(
        lines.iter().all(|it| it["decision"] == "issued"),
        "{lines:#?}"
    );
    assert!(world.mesh.authority.audit("renew").is_empty());
    // A token of its own each time, as short as there is, for the one algorithm.
    let asked = world.sts.asked();
    assert!(asked.len() >= lines.len(), "{asked:?}");
    for form in asked {
        assert_eq!(form["DurationSeconds"], "60", "{form:?}");
        assert_eq!(form["SigningAlgorithm"], "RS256", "{form:?}");
    }
    let metrics = world.agent.probe("/metrics").text;
    let until = |line: &str| {
        let value = line.strip_prefix("warifu_identity_attested_until_seconds ")?;
        value.parse::<f64>().ok()
    };
    let until = metrics.lines().find_map(until).expect("the gauge");
    assert!(until > 1.7e9, "{until}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_while_sts_gives_no_tokens_the_record_renews_and_says_why_and_then_evidence_is_presented_again()
 {
    let world = World::new("1h").await;
    for mood in [StsMood::Throttling, StsMood::Failing, StsMood::Torn] {
        world.sts.is(mood);
        let bridged = world.further("renew", 2).await;
        assert!(
            bridged.iter().all(|it| it["decision"] == "issued"),
            "{bridged:#?}"
        );
        let why = world.renewal()["bridging"].to_string();
        assert!(why.contains("aws-web-identity"), "{mood:?}: {why}");
        assert_eq!(world.probe().0, 200);
        world.sts.is(StsMood::Well);
        world.further("attest", 2).await;
        assert_eq!(world.renewal()["bridging"], Value::Null);
    }
    let mut all = world.mesh.authority.audit("attest");
    all.extend(world.mesh.authority.audit("renew"));
    assert_eq!(lineages(&all).len(), 1, "{all:#?}");
    let said = world.agent.running.stderr();
    assert_eq!(
        said.matches("renewed with the attestation record").count(),
        3,
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_while_the_issuers_keys_are_away_the_record_renews() {
    let world = World::new("1h").await;
    // New keys that nobody can fetch: what is presented can't be judged.
    world.issuer.is(Mood::Failing);
    world.issuer.rotate();
    world.issuer.retire();
    let bridged = world.further("renew", 2).await;
    assert!(
        bridged.iter().all(|it| it["decision"] == "issued"),
        "{bridged:#?}"
    );
    let why = world.renewal()["bridging"].to_string();
    assert!(why.contains("evidence_unavailable"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_bridges_no_longer_than_max_attestation_age_and_then_the_agent_says_what_is_missing()
 {
    let world = World::new("6s").await;
    world.sts.is(StsMood::Failing);
    let text = world.until_not_ready().await;
    assert!(text.contains("the X.509-SVID expired"), "{text}");
    assert!(text.contains("aws-web-identity"), "{text}");
    world.sts.is(StsMood::Well);
    let ready = async || (world.probe().0 == 200).then_some(());
    until("it attests again", ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_that_is_refused_is_not_bridged() {
    let world = World::new("1h").await;
    // STS decides: the account's administrator has ended it.
    world.sts.is(StsMood::Disabled);
    let refused = until("the agent says why", async || {
        let why = world.renewal()["last_error"].to_string();
        why.contains("Disabled").then_some(why)
    });
    let why = refused.await;
    assert!(
        why.contains("enable-outbound-web-identity-federation"),
        "{why}"
    );
    world.until_not_ready().await;
    assert!(
        world.mesh.authority.audit("renew").is_empty(),
        "no record was used"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_before_the_shortest_token_is_told() {
    let mut role = Principal::role(ACCOUNT, "/", "svc-orders");
    role.session = Duration::from_secs(50);
    let world = World::of(role, "1h").await;
    let said = world
        .agent
        .running
        .wait_for("no new X.509-SVID")
        .to_string();
    assert!(said.contains("SessionDurationEscalation"), "{said}");
    assert!(said.contains("ends within a minute"), "{said}");
}

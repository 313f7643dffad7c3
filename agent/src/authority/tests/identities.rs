//! Workloads with several identities.

use warifu::{
    identity::{X509Svid, spki_sha256},
    jwt::{self, Profile},
};

use super::*;
use crate::{config::authority::Also, revocation::Kind};

const ORDERS: &str = "spiffe://example.org/orders";
const REPORTS: &str = "spiffe://example.org/orders/reports";
const JOBS: &str = "spiffe://example.org/orders/jobs";

fn also(id: &str, hint: Option<&str>, audience: &str) -> Also {
    Also {
        id: id.parse().unwrap(),
        hint: hint.map(str::to_owned),
        dns: vec![format!("{audience}.internal").parse().unwrap()],
        audiences: vec![audience.to_owned()],
        scopes: vec![format!("{audience}.read")],
    }
}

fn several(dir: &Path) -> AuthorityConfig {
    let mut config = config(dir);
    config.rules[0].also = vec![
        also("/{service}/reports", Some("reports"), "ledger"),
        also("/{service}/jobs", None, "queue"),
    ];
    config
}

async fn world() -> (World, AuthorityConfig, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = several(dir.path());
    (World::new(&config).await, config, dir)
}

async fn attested(world: &World) -> (Agent, wire::Issued) {
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    (agent, issued)
}

impl World {
    /// From now on, as after a restart with another file.
    fn rule(&mut self, config: &AuthorityConfig) {
        self.issuing.rules = Rules::compile(&td(), &config.rules, &config.attestors, &[]).unwrap();
    }

    async fn revoke_id(&self, id: &str, undo: bool) {
        let change = Change {
            kind: Kind::SpiffeId,
            value: id.to_owned(),
            reason: (!undo).then(|| "moved".to_owned()),
            seconds: None,
            undo,
        };
        self.issuing.revoke(&change, self.now).await.unwrap();
    }

    async fn jwt_of(
        &self,
        agent: &Agent,
        id: &str,
        record: &str,
        audience: &str,
    ) -> Result<String, Denied> {
        let request = agent.jwt_of(id, &self.challenge(), record, audience);
        let minted = self.issuing.jwt_svid(self.asked(), &request).await?;
        let keys = self.issuing.live.load().bundle.jwt_authorities.clone();
        let profile = Profile::jwt_svid(vec![audience.to_owned()]);
        let claims = jwt::verify(minted.token.expose(), &profile, &keys, self.now).unwrap();
        assert_eq!(claims.scopes, [format!("{audience}.read")]);
        Ok(claims.subject)
    }
}

/// The SPIFFE IDs of the further ones.
fn further(issued: &wire::Issued) -> Vec<&str> {
    issued
        .further
        .iter()
        .map(|it| it.spiffe_id.as_str())
        .collect()
}

fn svid(agent: &Agent, chain: &[Base64]) -> X509Svid {
    let chain = chain.iter().map(|der| der.0.clone().into()).collect();
    X509Svid::new(chain, agent.leaf.serialize_der().into()).unwrap()
}

#[tokio::test]
async fn every_identity_gets_a_certificate_of_its_own_for_the_one_key_and_the_audit_line_names_all()
{
    let (world, _, _dir) = world().await;
    let (agent, issued) = attested(&world).await;
    assert_eq!(further(&issued), [REPORTS, JOBS]);
    let hints: Vec<_> = issued.further.iter().map(|it| it.hint.as_deref()).collect();
    assert_eq!(hints, [Some("reports"), None]);
    let first = svid(&agent, &issued.chain);
    assert_eq!(first.id().to_string(), ORDERS);
    let mut serials = vec![];
    for it in &issued.further {
        // Parsing refuses one without exactly one URI SAN, and one of another key.
        let svid = svid(&agent, &it.chain);
        assert_eq!(svid.id().to_string(), it.spiffe_id);
        assert_eq!(svid.not_after(), first.not_after());
        assert_eq!(
            spki_sha256(&svid.chain()[0]),
            spki_sha256(&first.chain()[0])
        );
        let (_, leaf) = x509_parser::parse_x509_certificate(&svid.chain()[0]).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        let names = format!("{:?}", names.value.general_names);
        let own = it.spiffe_id == REPORTS;
        assert_eq!(names.contains("ledger.internal"), own, "{names}");
        assert!(!names.contains("orders.internal"), "{names}");
        serials.push(leaf.tbs_certificate.raw_serial().to_vec());
    }
    serials.dedup();
    assert_eq!(serials.len(), 2);

    let line = world.lines.all().pop().unwrap();
    assert_eq!(line["spiffe_id"], ORDERS);
    let named = line["further"].as_array().unwrap();
    let named: Vec<_> = named
        .iter()
        .map(|it| it["spiffe_id"].as_str().unwrap())
        .collect();
    assert_eq!(named, [REPORTS, JOBS]);
    assert!(
        line["further"][0]["serial"]
            .as_str()
            .is_some_and(|it| !it.is_empty())
    );
}

#[tokio::test]
async fn an_agent_and_an_authority_of_which_one_does_not_know_of_further_identities_understand_each_other()
 {
    let dir = tempfile::tempdir().unwrap();
    let single = World::new(&config(dir.path())).await;
    let (_, issued) = attested(&single).await;
    let text = serde_json::to_string(&issued).unwrap();
    assert!(!text.contains("further"), "an answer as it ever was");
    assert_eq!(
        serde_json::from_str::<wire::Issued>(&text)
            .unwrap()
            .further
            .len(),
        0
    );
    assert!(single.lines.all().pop().unwrap().get("further").is_none());

    // An older agent reads of the answer what it knows.
    #[derive(serde::Deserialize)]
    struct Older {
        spiffe_id: String,
        chain: Vec<Base64>,
    }
    let (world, _, _dir) = world().await;
    let (agent, issued) = attested(&world).await;
    let older: Older = serde_json::from_str(&serde_json::to_string(&issued).unwrap()).unwrap();
    assert_eq!(older.spiffe_id, svid(&agent, &older.chain).id().to_string());
    // And asks for tokens of the first.
    let minted = world.jwt(&agent, &issued.record, "payments").await;
    minted.unwrap();
}

#[tokio::test]
async fn s05_a_renewal_has_the_identities_that_the_rules_grant_by_then_and_no_others() {
    let (mut world, mut config, _dir) = world().await;
    let (agent, issued) = attested(&world).await;
    config.rules[0].also.remove(0);
    config.rules[0]
        .also
        .push(also("/{service}/audit", Some("audit"), "audit"));
    world.rule(&config);
    let renewed = world.renew(&agent, &issued.record).await.unwrap();
    assert_eq!(
        further(&renewed),
        [JOBS, "spiffe://example.org/orders/audit"]
    );
    config.rules[0].also.clear();
    world.rule(&config);
    let renewed = world.renew(&agent, &renewed.record).await.unwrap();
    assert_eq!(further(&renewed), [""; 0]);
}

#[tokio::test]
async fn s05_a_token_of_a_further_identity_is_minted_only_while_the_rules_grant_it() {
    let (mut world, mut config, _dir) = world().await;
    let (agent, issued) = attested(&world).await;
    let record = &issued.record;
    assert_eq!(
        world
            .jwt_of(&agent, REPORTS, record, "ledger")
            .await
            .unwrap(),
        REPORTS
    );
    assert_eq!(
        world.jwt_of(&agent, JOBS, record, "queue").await.unwrap(),
        JOBS
    );
    // Each has the audiences of its own.
    for (id, audience) in [
        (REPORTS, "payments"),
        (REPORTS, "queue"),
        (ORDERS, "ledger"),
    ] {
        let refused = world
            .jwt_of(&agent, id, record, audience)
            .await
            .unwrap_err();
        assert_eq!(refused.code, ErrorCode::AudienceRefused, "{id} {audience}");
    }
    let refused = world
        .jwt_of(&agent, REPORTS, record, "queue")
        .await
        .unwrap_err();
    assert!(
        refused.message.contains("`audiences` of rules[0].also[0]"),
        "{refused:?}"
    );
    let long = format!("spiffe://example.org/{}", "x".repeat(2000));
    for id in [
        "spiffe://example.org/payments",
        "spiffe://other.example/orders",
        "",
        &long,
    ] {
        let refused = world
            .jwt_of(&agent, id, record, "ledger")
            .await
            .unwrap_err();
        assert_eq!(refused.code, ErrorCode::IdentityRefused, "{id}");
        assert!(refused.message.len() < 600, "{refused:?}");
    }
    // The proof covers the identity: nobody on the way makes it another's.
    let mut turned = agent.jwt_of(REPORTS, &world.challenge(), record, "ledger");
    turned.spiffe_id = Some(JOBS.to_owned());
    let refused = world.issuing.jwt_svid(world.asked(), &turned).await;
    assert_eq!(code(refused), ErrorCode::InvalidProof);
    // An authority that does not know the member refuses, where it would mint for the first.
    turned.spiffe_id = None;
    let refused = world.issuing.jwt_svid(world.asked(), &turned).await;
    assert_eq!(code(refused), ErrorCode::InvalidProof);

    config.rules[0].also.remove(0);
    world.rule(&config);
    let refused = world
        .jwt_of(&agent, REPORTS, record, "ledger")
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::IdentityRefused);
    world.jwt_of(&agent, JOBS, record, "queue").await.unwrap();
}

#[tokio::test]
async fn a_further_identity_that_is_revoked_is_left_out_and_the_first_takes_all_with_it() {
    let (world, _, _dir) = world().await;
    let (agent, issued) = attested(&world).await;
    let record = &issued.record;
    world.revoke_id(REPORTS, false).await;
    let renewed = world.renew(&agent, record).await.unwrap();
    assert_eq!(further(&renewed), [JOBS]);
    let refused = world
        .jwt_of(&agent, REPORTS, record, "ledger")
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::Revoked);
    world.jwt_of(&agent, JOBS, record, "queue").await.unwrap();
    world.revoke_id(REPORTS, true).await;
    let renewed = world.renew(&agent, record).await.unwrap();
    assert_eq!(further(&renewed), [REPORTS, JOBS]);

    world.revoke_id(ORDERS, false).await;
    assert_eq!(code(world.renew(&agent, record).await), ErrorCode::Revoked);
    let refused = world
        .jwt_of(&agent, JOBS, record, "queue")
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::Revoked);
}

use std::time::UNIX_EPOCH;

use rustls_pki_types::CertificateDer;
use warifu::{
    identity::X509Svid,
    jwt::{self, Profile},
};

use super::{attestors::Proven, *};

async fn world() -> (World, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (World::new(&config(dir.path())).await, dir)
}

fn svid(issued: &wire::Issued, agent: &Agent) -> X509Svid {
    let chain = issued
        .chain
        .iter()
        .map(|der| CertificateDer::from(der.0.clone()));
    X509Svid::new(chain.collect(), agent.leaf.serialize_der().into()).unwrap()
}

#[tokio::test]
async fn a_join_token_leads_to_the_identity_its_facts_entitle_to() {
    let (world, _dir) = world().await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    let svid = svid(&issued, &agent);
    assert_eq!(*svid.id(), id("/orders"));
    assert_eq!(svid.chain().len(), 2);
    let life = svid.not_after().duration_since(world.now).unwrap();
    assert!(life >= HOUR && life < HOUR + Duration::from_secs(1));
    // What the CSR asked for is nowhere in it.
    let leaf = &svid.chain()[0];
    let asked = b"wanted.example";
    assert!(!leaf.windows(asked.len()).any(|window| window == asked));

    let renewed = world.renew(&agent, &issued.record).await.unwrap();
    assert_eq!(renewed.spiffe_id, "spiffe://example.org/orders");
    assert_eq!(renewed.record_expires_at, issued.record_expires_at);
}

#[tokio::test]
async fn s15_a_join_token_is_used_by_its_first_key_alone() {
    let (world, _dir) = world().await;
    let (first, second) = (Agent::new(), Agent::new());
    let token = world.token("orders").await;
    world.attest(&first, &token).await.unwrap();
    world
        .attest(&first, &token)
        .await
        .expect("the same key may retry");
    let refused = world.attest(&second, &token).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidEvidence);
    assert!(refused.message.contains("another agent"), "{refused:?}");
}

#[tokio::test]
async fn s15_of_two_agents_at_the_same_instant_one_attests() {
    let (world, _dir) = world().await;
    let agents = [Agent::new(), Agent::new()];
    let token = world.token("orders").await;
    let (one, other) = tokio::join!(
        world.attest(&agents[0], &token),
        world.attest(&agents[1], &token)
    );
    assert!(one.is_ok() != other.is_ok());
}

#[tokio::test]
async fn a_wrong_or_expired_join_token_is_a_clear_refusal() {
    let (mut world, _dir) = world().await;
    let agent = Agent::new();
    let wrong = Secret::new("wjt_wrong".to_owned());
    let refused = world.attest(&agent, &wrong).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidEvidence);
    assert!(
        refused.message.contains("warifu authority join-token"),
        "{refused:?}"
    );
    let token = world.token("orders").await;
    world.now += HOUR;
    let refused = world.attest(&agent, &token).await.unwrap_err();
    assert!(refused.message.contains("expired"), "{refused:?}");
}

#[tokio::test]
async fn a_missing_rule_does_not_cost_the_join_token() {
    let (world, _dir) = world().await;
    let token = world.token("not a segment").await;
    assert_eq!(
        code(world.attest(&Agent::new(), &token).await),
        ErrorCode::NoRule
    );
    let claim = state::Claim {
        id: join_token::hash(&token),
        holder: "k".into(),
        until: world.now + HOUR,
    };
    let other = world.issuing.store.claim(claim, world.now);
    assert_eq!(other.await.unwrap(), state::Claimed::Yours);
}

#[tokio::test]
async fn an_exported_svid_renews_nothing() {
    let (world, _dir) = world().await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    // A thief has the SVID with its key, and even the record; not the renewal key.
    let thief = Agent {
        renewal: SigningKey::from_pkcs8(&agent.leaf.serialize_der()).unwrap(),
        leaf: KeyPair::generate().unwrap(),
    };
    assert_eq!(
        code(world.renew(&thief, &issued.record).await),
        ErrorCode::InvalidProof
    );
    assert_eq!(
        code(world.jwt(&thief, &issued.record, "payments").await),
        ErrorCode::InvalidProof
    );
    // Nor can it put its own key into a record.
    let forged = record::Record {
        lineage: "l".into(),
        attestor: "join".into(),
        facts: facts("orders"),
        attested_at: world.now,
        expires_at: world.now + HOUR,
        renewal_key: thief.renewal.public().clone(),
    };
    let forged = forged.sign(&thief.renewal, &td());
    assert_eq!(
        code(world.renew(&thief, &forged).await),
        ErrorCode::InvalidRecord
    );
}

#[tokio::test]
async fn a_proof_is_good_for_one_request_only() {
    let (world, _dir) = world().await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    let good = agent.renew(&world.challenge(), &issued.record);

    let other_csr = wire::RenewRequest {
        csr: Base64(Agent::new().csr()),
        ..good.clone()
    };
    let other_challenge = wire::RenewRequest {
        challenge: world.challenge(),
        ..good.clone()
    };
    for changed in [other_csr, other_challenge] {
        let refused = world.issuing.renew(world.asked(), &changed).await;
        assert_eq!(code(refused), ErrorCode::InvalidProof);
    }
    let mut jwt = agent.jwt(&world.challenge(), &issued.record, &["payments"]);
    jwt.audiences = vec!["other".into()];
    let refused = world.issuing.jwt_svid(world.asked(), &jwt).await;
    assert_eq!(code(refused), ErrorCode::InvalidProof);
    let mut attest = agent.attest(&world.challenge(), &token);
    attest.renewal_key = Agent::new().renewal.public().to_json("sig");
    let refused = world.issuing.attest(world.asked(), attest).await;
    assert_eq!(code(refused), ErrorCode::InvalidProof);
}

#[tokio::test]
async fn a_challenge_is_good_for_a_minute() {
    let (mut world, _dir) = world().await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let request = agent.attest(&world.challenge(), &token);
    world.now += MINUTE;
    let late = world.issuing.attest(world.asked(), request).await;
    assert_eq!(code(late), ErrorCode::InvalidChallenge);
    let request = agent.attest("made-up", &token);
    let refused = world.issuing.attest(world.asked(), request).await;
    assert_eq!(code(refused), ErrorCode::InvalidChallenge);
}

#[tokio::test]
async fn s18_a_removed_rule_bites_at_the_next_renewal_and_token() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&config(dir.path())).await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    world.issuing.rules = Rules::compile(&td(), &[], &BTreeMap::new(), &[]).unwrap();
    assert_eq!(
        code(world.renew(&agent, &issued.record).await),
        ErrorCode::NoRule
    );
    assert_eq!(
        code(world.jwt(&agent, &issued.record, "payments").await),
        ErrorCode::NoRule
    );
}

#[tokio::test]
async fn a_record_ends_with_the_age_the_configuration_allows_today() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&config(dir.path())).await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    world.later(DAY - MINUTE).await;
    let renewed = world.renew(&agent, &issued.record).await.unwrap();
    world.later(MINUTE + jwt::DEFAULT_SKEW).await;
    for record in [&issued.record, &renewed.record] {
        assert_eq!(
            code(world.renew(&agent, record).await),
            ErrorCode::InvalidRecord
        );
    }
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    world.later(HOUR).await;
    assert!(world.renew(&agent, &issued.record).await.is_ok());
    world.issuing.settings.max_attestation_age = HOUR;
    assert_eq!(
        code(world.renew(&agent, &issued.record).await),
        ErrorCode::InvalidRecord
    );
}

#[tokio::test]
async fn a_record_whose_attestor_is_gone_renews_nothing() {
    let (mut world, _dir) = world().await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    world.issuing.attestors =
        Attestors::new(&td(), &BTreeMap::new(), &world.issuing.metrics).unwrap();
    assert_eq!(
        code(world.renew(&agent, &issued.record).await),
        ErrorCode::InvalidRecord
    );
    assert_eq!(
        code(world.attest(&agent, &token).await),
        ErrorCode::InvalidEvidence
    );
}

#[tokio::test]
async fn a_jwt_svid_verifies_with_the_bundle_and_says_what_the_rule_grants() {
    let (world, _dir) = world().await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    let svid = world.jwt(&agent, &issued.record, "payments").await.unwrap();
    let bundle = world.issuing.live.load().bundle.clone();
    let profile = Profile::jwt_svid(vec!["payments".into()]);
    let claims = jwt::verify(
        svid.token.expose(),
        &profile,
        &bundle.jwt_authorities,
        world.now,
    )
    .unwrap();
    assert_eq!(claims.subject, "spiffe://example.org/orders");
    assert_eq!(claims.audiences, ["payments"]);
    assert_eq!(claims.scopes, ["charges.read", "charges.write"]);
    assert!(claims.issuer.is_none());
    assert_eq!(
        claims.expires_at,
        UNIX_EPOCH + Duration::from_secs(svid.expires_at)
    );
    assert!(claims.expires_at <= world.now + MINUTE * 5);
}

#[tokio::test]
async fn s05_a_token_is_minted_only_for_an_audience_the_rule_names() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let world = World::new(&config).await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    let refused = world.jwt(&agent, &issued.record, "billing").await;
    assert_eq!(code(refused), ErrorCode::AudienceRefused);
    for audiences in [vec![], vec![""], vec!["payments", "payments"], vec!["a\nb"]] {
        let request = agent.jwt(&world.challenge(), &issued.record, &audiences);
        let refused = world.issuing.jwt_svid(world.asked(), &request).await;
        assert_eq!(code(refused), ErrorCode::BadRequest, "{audiences:?}");
    }
    // Even where a rule allows every audience, those which mean something here are not for workloads.
    config.rules[0].audiences = vec!["*".into()];
    let world = World::new(&config).await;
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    for audience in [
        "warifu:example.org:record",
        "warifu:example.org:attest:x",
        "warifu:x",
    ] {
        let refused = world.jwt(&agent, &issued.record, audience).await;
        assert_eq!(code(refused), ErrorCode::AudienceRefused, "{audience}");
    }
    for audience in ["warifu:example.org:call:payments", "anything"] {
        assert!(
            world.jwt(&agent, &issued.record, audience).await.is_ok(),
            "{audience}"
        );
    }
}

#[tokio::test]
async fn a_jwt_svid_is_no_record_and_a_record_no_jwt_svid() {
    let (world, _dir) = world().await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    let svid = world.jwt(&agent, &issued.record, "payments").await.unwrap();
    assert_eq!(
        code(world.renew(&agent, svid.token.expose()).await),
        ErrorCode::InvalidRecord
    );
    let live = world.issuing.live.load();
    let profile = Profile::jwt_svid(vec!["warifu:example.org:record".into()]);
    for keys in [&live.bundle.jwt_authorities, &live.record_keys] {
        assert!(jwt::verify(&issued.record, &profile, keys, world.now).is_err());
    }
    // The record's key is not in the bundle.
    let json = String::from_utf8(live.bundle_page.body.to_vec()).unwrap();
    assert!(live.record_keys.iter().count() > 0);
    for key in live.record_keys.iter() {
        assert!(!json.contains(key.kid()));
    }
}

#[tokio::test]
async fn every_decision_is_in_the_audit_log_and_no_secret_is() {
    let (world, _dir) = world().await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    world.renew(&agent, &issued.record).await.unwrap();
    let svid = world.jwt(&agent, &issued.record, "payments").await.unwrap();
    world
        .jwt(&agent, &issued.record, "billing")
        .await
        .unwrap_err();
    world.attest(&Agent::new(), &token).await.unwrap_err();

    let lines = world.lines.all();
    let decisions: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["event"].as_str().unwrap(),
                line["decision"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        decisions,
        [
            ("attest", "issued"),
            ("renew", "issued"),
            ("jwt-svid", "issued"),
            ("jwt-svid", "refused"),
            ("attest", "refused")
        ]
    );
    let first = &lines[0];
    assert_eq!(first["spiffe_id"], "spiffe://example.org/orders");
    assert_eq!(first["facts"]["service"], "orders");
    assert_eq!(first["rule"], 0);
    assert_eq!(first["remote"], "192.0.2.1:4711");
    assert_eq!(first["serial"].as_str().unwrap().len(), 32);
    assert!(lines.iter().all(|line| line["lineage"] == first["lineage"]));
    assert_eq!(lines[3]["refused"]["code"], "audience_refused");
    let all = serde_json::to_string(&lines).unwrap();
    for secret in [token.expose(), &issued.record, svid.token.expose()] {
        assert!(!all.contains(secret.as_str()), "S12");
    }
}

#[tokio::test]
async fn nothing_is_released_whose_audit_line_was_not_written() {
    let (mut world, dir) = world().await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    // A full disk that every system has.
    world.issuing.audit = Audit::file(Path::new("/dev/full")).unwrap();
    let refused = world.attest(&agent, &token).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable, "{refused:?}");
    assert!(refused.retry_after.is_some());

    let file = dir.path().join("audit.log");
    world.issuing.audit = Audit::file(&file).unwrap();
    let issued = world.attest(&agent, &token).await.unwrap();
    let log = std::fs::read_to_string(file).unwrap();
    let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(line["spiffe_id"], issued.spiffe_id);
}

#[tokio::test]
async fn s14_an_account_that_attests_too_often_is_told_to_wait_and_nothing_is_spent() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.attestations_per_second = 1;
    let mut world = World::new(&config).await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    // The same key may retry its token.
    while world.attest(&agent, &token).await.is_ok() {}
    let stranger = Agent::new();
    let fresh = world.token("payments").await;
    let refused = world.attest(&stranger, &fresh).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooManyRequests, "{refused:?}");
    assert_eq!(refused.code.status(), 429);
    world.now += refused.retry_after.unwrap();
    assert!(world.attest(&stranger, &fresh).await.is_ok());
}

#[tokio::test]
async fn the_renewal_key_is_never_certified() {
    let (world, _dir) = world().await;
    let token = world.token("orders").await;
    let mut agent = Agent::new();
    let pkcs8 = agent.renewal.to_pkcs8();
    agent.leaf = KeyPair::try_from(pkcs8.expose().as_slice()).unwrap();
    assert_eq!(
        code(world.attest(&agent, &token).await),
        ErrorCode::InvalidCsr
    );

    agent.leaf = KeyPair::generate().unwrap();
    let issued = world.attest(&agent, &token).await.unwrap();
    agent.leaf = KeyPair::try_from(pkcs8.expose().as_slice()).unwrap();
    let refused = world.renew(&agent, &issued.record).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidCsr);
    assert!(
        refused.message.contains("the renewal key"),
        "{}",
        refused.message
    );
}

#[tokio::test]
async fn a_lineage_goes_on_where_the_same_key_proves_what_is_the_same_to_the_rules() {
    let (mut world, _dir) = world().await;
    let (agent, token) = (Agent::new(), world.token("orders").await);
    let issued = world.attest(&agent, &token).await.unwrap();
    let record = issued.record.as_str();
    let key = agent.renewal.public().clone();
    let proven = |attestor: &str, facts: &[(&str, &str)]| Proven {
        attestor: attestor.to_owned(),
        facts: facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        lineage: None,
        single_use: None,
    };
    let of = |world: &World, record, proven: &Proven, key| {
        world.issuing.lineage_of(record, proven, key, world.now)
    };
    let same = proven("join", &[("service", "orders")]);
    let lineage = of(&world, Some(record), &same, &key);
    assert!(lineage.is_some());
    // No rule asks for it.
    let moved = proven("join", &[("service", "orders"), ("pod", "orders-2")]);
    assert_eq!(of(&world, Some(record), &moved, &key), lineage);

    let other_key = SigningKey::generate().public().clone();
    let payments = proven("join", &[("service", "payments")]);
    let elsewhere = proven("other", &[("service", "orders")]);
    for (what, record, proven, key) in [
        ("no record", None, &same, &key),
        ("no record of ours", Some("a.b.c"), &same, &key),
        ("another key", Some(record), &same, &other_key),
        ("another identity", Some(record), &payments, &key),
        ("another attestor", Some(record), &elsewhere, &key),
    ] {
        assert_eq!(of(&world, record, proven, key), None, "{what}");
    }
    world.later(DAY).await;
    assert_eq!(
        of(&world, Some(record), &same, &key),
        None,
        "a record that ended"
    );
}

/// Every agent of a cold start has one of these at the same time.
#[tokio::test]
async fn s14_a_decision_that_waits_takes_little_memory() {
    let (world, _dir) = world().await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let request = agent.attest(&world.challenge(), &token);
    let deciding = world.issuing.attest(world.asked(), request);
    let bytes = size_of_val(&deciding);
    assert!(bytes <= 8 * 1024, "{bytes} bytes");
}

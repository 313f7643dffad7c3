//! Access tokens: what they say, who gets which, and that they are nothing else.

use serde_json::Value;
use warifu::jwt::{self, Claims, JwtError, KeySet, Profile};

use super::*;
use crate::{
    attest::{Client, bearer},
    config::authority::{TokenAlgorithm, TokenIssuer},
    revocation::{Kind, Provenance},
};

const ACCESS_ISSUER: &str = "https://tokens.example.org/access";
const SVID_ISSUER: &str = "https://tokens.example.org/svid";

fn minting(config: &mut AuthorityConfig, algorithm: TokenAlgorithm) {
    let issuer = |issuer: &str| {
        Some(TokenIssuer {
            issuer: issuer.into(),
            algorithm,
        })
    };
    config.tokens = Tokens {
        jwt_svid: issuer(SVID_ISSUER),
        access_token: issuer(ACCESS_ISSUER),
    };
}

/// An authority that mints with this algorithm, and an agent with its record.
async fn minter(algorithm: TokenAlgorithm) -> (World, Agent, wire::Issued) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    minting(&mut config, algorithm);
    let world = World::new(&config).await;
    let agent = Agent::new();
    let issued = world.attest(&agent, &world.token("orders").await).await;
    (world, agent, issued.unwrap())
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

impl Agent {
    fn access(
        &self,
        challenge: &str,
        record: &str,
        audience: &str,
        scopes: &[&str],
    ) -> wire::AccessTokenRequest {
        let scopes = strings(scopes);
        let said = proof::access_token(&td(), challenge, record, audience, &scopes);
        wire::AccessTokenRequest {
            challenge: challenge.to_owned(),
            record: record.to_owned(),
            audience: audience.to_owned(),
            scopes,
            proof: Base64(self.renewal.sign_raw(&said)),
        }
    }

    fn exchange(
        &self,
        challenge: &str,
        token: &Secret<String>,
        audience: &str,
        scopes: &[&str],
    ) -> wire::ExchangeRequest {
        let evidence = Evidence::JoinToken {
            token: token.clone(),
        };
        let scopes = strings(scopes);
        let public = self.renewal.public();
        let thumbprint = public.thumbprint();
        let said = proof::exchange(&td(), challenge, &thumbprint, &evidence, audience, &scopes);
        wire::ExchangeRequest {
            challenge: challenge.to_owned(),
            evidence,
            renewal_key: public.to_json("sig"),
            audience: audience.to_owned(),
            scopes,
            proof: Base64(self.renewal.sign_raw(&said)),
        }
    }
}

impl World {
    async fn access(
        &self,
        agent: &Agent,
        record: &str,
        audience: &str,
        scopes: &[&str],
    ) -> Result<wire::AccessToken, Denied> {
        let request = agent.access(&self.challenge(), record, audience, scopes);
        self.issuing.access_token(self.asked(), &request).await
    }

    async fn exchange(
        &self,
        agent: &Agent,
        token: &Secret<String>,
        audience: &str,
        scopes: &[&str],
    ) -> Result<wire::AccessToken, Denied> {
        let request = agent.exchange(&self.challenge(), token, audience, scopes);
        self.issuing.exchange(self.asked(), request).await
    }

    fn access_keys(&self) -> KeySet {
        self.issuing.live.load().access_keys.clone()
    }

    fn bundle_keys(&self) -> KeySet {
        self.issuing.live.load().bundle.jwt_authorities.clone()
    }

    fn verify_access(&self, token: &Secret<String>) -> Result<Claims, JwtError> {
        let profile = Profile::access_token(
            ACCESS_ISSUER,
            vec!["payments".to_owned()],
            jwt::Algorithm::ALL,
        );
        jwt::verify(token.expose(), &profile, &self.access_keys(), self.now)
    }
}

#[tokio::test]
async fn an_access_token_says_what_rfc_9068_asks_for_with_either_algorithm() {
    for algorithm in [TokenAlgorithm::Es256, TokenAlgorithm::Rs256] {
        let (world, agent, issued) = minter(algorithm).await;
        let token = world.access(&agent, &issued.record, "payments", &[]).await;
        let token = token.unwrap();
        let claims = world.verify_access(&token.token).unwrap();
        let orders = "spiffe://example.org/orders";
        assert_eq!(claims.subject, orders);
        assert_eq!(claims.all["client_id"], orders);
        assert_eq!(claims.all["aud"], "payments");
        assert_eq!(claims.scopes, ["charges.read", "charges.write"]);
        assert_eq!(token.scopes, claims.scopes);
        assert_eq!(claims.expires_at, from_unix(token.expires_at));
        let life = claims.expires_at.duration_since(claims.issued_at.unwrap());
        assert_eq!(life.unwrap(), MINUTE * 5);

        let line = world.lines.all().pop().unwrap();
        assert_eq!(line["event"], "access-token");
        assert_eq!(line["jti"], Value::from(claims.id.unwrap()));
        assert_eq!(line["lineage"], claims.all["warifu_lineage"]);
        assert!(!line.to_string().contains(token.token.expose()));
    }
}

#[tokio::test]
async fn a_jwt_svid_names_its_issuer_where_one_is_configured() {
    for algorithm in [TokenAlgorithm::Es256, TokenAlgorithm::Rs256] {
        let (world, agent, issued) = minter(algorithm).await;
        let svid = world.jwt(&agent, &issued.record, "payments").await.unwrap();
        let mut profile = Profile::jwt_svid(strings(&["payments"]));
        profile.issuer = Some(SVID_ISSUER.to_owned());
        let keys = world.bundle_keys();
        jwt::verify(svid.token.expose(), &profile, &keys, world.now).unwrap();
    }
}

#[tokio::test]
async fn s09_neither_kind_of_token_is_accepted_as_the_other() {
    let (world, agent, issued) = minter(TokenAlgorithm::Es256).await;
    let access = world.access(&agent, &issued.record, "payments", &[]).await;
    let access = access.unwrap().token;
    let svid = world.jwt(&agent, &issued.record, "payments").await.unwrap();
    let (access_keys, bundle_keys) = (world.access_keys(), world.bundle_keys());
    for key in access_keys.iter() {
        assert!(bundle_keys.find(key.kid()).is_none(), "in the bundle");
    }

    // By type, whatever the keys; and by key, whatever the type.
    let both = KeySet::new(
        access_keys
            .iter()
            .chain(bundle_keys.iter())
            .cloned()
            .collect(),
    );
    let as_access = Profile::access_token(
        ACCESS_ISSUER,
        vec!["payments".to_owned()],
        jwt::Algorithm::ALL,
    );
    let as_svid = Profile::jwt_svid(strings(&["payments"]));
    let judge = |token: &Secret<String>, profile: &Profile, keys: &KeySet| {
        jwt::verify(token.expose(), profile, keys, world.now).map(drop)
    };
    let typ = Err(JwtError::Header("typ is not of this profile"));
    assert_eq!(judge(&svid.token, &as_access, &both), typ);
    assert_eq!(judge(&access, &as_svid, &both), typ);
    assert_eq!(
        judge(&access, &as_access, &bundle_keys),
        Err(JwtError::UnknownKey)
    );
    assert_eq!(
        judge(&svid.token, &as_svid, &access_keys),
        Err(JwtError::UnknownKey)
    );

    // Nor is either a record.
    for token in [&access, &svid.token] {
        let refused = world.access(&agent, token.expose(), "payments", &[]).await;
        assert_eq!(code(refused), ErrorCode::InvalidRecord);
    }
}

#[tokio::test]
async fn s05_scopes_are_those_asked_for_and_never_more_than_the_rule_grants() {
    let (world, agent, issued) = minter(TokenAlgorithm::Es256).await;
    let scopes = async |asked: &[&str]| {
        let token = world
            .access(&agent, &issued.record, "payments", asked)
            .await?;
        let claims = world.verify_access(&token.token).unwrap();
        assert_eq!(claims.scopes, token.scopes);
        Ok::<_, Denied>(token.scopes)
    };
    let read = ["charges.read"];
    assert_eq!(scopes(&read).await.unwrap(), read);
    assert_eq!(
        scopes(&["charges.read", "charges.read"]).await.unwrap(),
        read
    );
    let both = ["charges.write", "charges.read"];
    assert_eq!(scopes(&both).await.unwrap().len(), 2);
    for more in [
        vec!["charges.read", "admin"],
        vec![""],
        vec!["charges.read charges.write"],
        vec!["CHARGES.READ"],
    ] {
        let refused = scopes(&more).await;
        assert_eq!(code(refused), ErrorCode::ScopeRefused, "{more:?}");
    }
}

#[tokio::test]
async fn s05_an_access_token_is_for_an_audience_of_the_rule_and_no_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    minting(&mut config, TokenAlgorithm::Es256);
    config.rules[0].audiences = strings(&["*"]);
    let world = World::new(&config).await;
    let agent = Agent::new();
    let issued = world.attest(&agent, &world.token("orders").await).await;
    let record = issued.unwrap().record;
    for internal in ["warifu:example.org:attest:x", "warifu:example.org:record"] {
        let refused = world.access(&agent, &record, internal, &[]).await;
        assert_eq!(code(refused), ErrorCode::AudienceRefused, "{internal}");
    }
    for unusable in ["", "a\nb"] {
        let refused = world.access(&agent, &record, unusable, &[]).await;
        assert_eq!(code(refused), ErrorCode::BadRequest);
    }
    let call = "warifu:example.org:call:payments";
    assert!(world.access(&agent, &record, call, &[]).await.is_ok());

    let (world, agent, issued) = minter(TokenAlgorithm::Es256).await;
    let refused = world.access(&agent, &issued.record, "billing", &[]).await;
    assert_eq!(code(refused), ErrorCode::AudienceRefused);
}

#[tokio::test]
async fn evidence_is_exchanged_for_an_access_token_without_a_record() {
    let (world, ..) = minter(TokenAlgorithm::Es256).await;
    let caller = Agent::new();
    let evidence = world.token("billing").await;
    let token = world
        .exchange(&caller, &evidence, "payments", &["charges.read"])
        .await;
    let claims = world.verify_access(&token.unwrap().token).unwrap();
    assert_eq!(claims.subject, "spiffe://example.org/billing");
    assert_eq!(claims.scopes, ["charges.read"]);
    let line = world.lines.all().pop().unwrap();
    assert_eq!(line["event"], "exchange");
    assert_eq!(line["facts"]["service"], "billing");
    assert_eq!(line["lineage"], claims.all["warifu_lineage"]);
}

#[tokio::test]
async fn s15_evidence_that_is_good_once_is_spent_by_an_exchange_and_not_by_a_refused_one() {
    let (world, ..) = minter(TokenAlgorithm::Es256).await;
    let (caller, other) = (Agent::new(), Agent::new());
    let evidence = world.token("billing").await;
    let refused = world
        .exchange(&other, &evidence, "payments", &["admin"])
        .await;
    assert_eq!(code(refused), ErrorCode::ScopeRefused);
    let refused = world.exchange(&other, &evidence, "nowhere", &[]).await;
    assert_eq!(code(refused), ErrorCode::AudienceRefused);

    assert!(
        world
            .exchange(&caller, &evidence, "payments", &[])
            .await
            .is_ok()
    );
    let again = world.exchange(&caller, &evidence, "payments", &[]).await;
    assert!(again.is_ok(), "the same key may retry");
    let refused = world.exchange(&other, &evidence, "payments", &[]).await;
    assert_eq!(code(refused), ErrorCode::InvalidEvidence);
    let refused = world.attest(&other, &evidence).await;
    assert_eq!(code(refused), ErrorCode::InvalidEvidence);
}

#[tokio::test]
async fn a_proof_is_good_for_the_request_it_was_made_for_only() {
    let (world, agent, issued) = minter(TokenAlgorithm::Es256).await;
    let good = agent.access(
        &world.challenge(),
        &issued.record,
        "payments",
        &["charges.read"],
    );
    let mut wider = good.clone();
    wider.scopes = vec![];
    let mut elsewhere = good.clone();
    elsewhere.audience = "billing".into();
    let mut another = good.clone();
    another.challenge = world.challenge();
    let jwt = agent.jwt(&good.challenge, &issued.record, &["payments"]);
    let mut of_a_jwt_svid = good.clone();
    of_a_jwt_svid.proof = jwt.proof;
    for request in [wider, elsewhere, another, of_a_jwt_svid] {
        let refused = world.issuing.access_token(world.asked(), &request).await;
        assert_eq!(code(refused), ErrorCode::InvalidProof);
    }
    let granted = world.issuing.access_token(world.asked(), &good).await;
    assert!(granted.is_ok());

    let evidence = world.token("billing").await;
    let mut wider = agent.exchange(&world.challenge(), &evidence, "payments", &["charges.read"]);
    wider.scopes = vec![];
    let refused = world.issuing.exchange(world.asked(), wider).await;
    assert_eq!(code(refused), ErrorCode::InvalidProof);
}

#[tokio::test]
async fn without_an_issuer_there_are_no_access_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(&config(dir.path())).await;
    let agent = Agent::new();
    let issued = world.attest(&agent, &world.token("orders").await).await;
    let refused = world
        .access(&agent, &issued.unwrap().record, "payments", &[])
        .await;
    assert_eq!(code(refused), ErrorCode::NotFound);
}

#[tokio::test]
async fn the_client_gets_access_tokens_by_record_and_by_evidence() {
    let running = Running::start(|config| minting(config, TokenAlgorithm::Es256)).await;
    let client = Client::new(&td(), &running.as_seen()).unwrap();
    let agent = Agent::new();
    let evidence = async |service: &str| {
        bearer(Evidence::JoinToken {
            token: running.token(service).await,
        })
    };
    let orders = evidence("orders").await;
    let attested = client
        .attest(&*orders, None, &agent.csr(), &agent.renewal)
        .await;
    let record = attested.unwrap().record;
    let read = strings(&["charges.read"]);
    let token = client
        .access_token(&record, "payments", &read, &agent.renewal)
        .await;
    assert_eq!(token.unwrap().scopes, read);

    let billing = evidence("billing").await;
    let token = client
        .exchange_for_token(&*billing, "payments", &[], &agent.renewal)
        .await;
    let token = token.unwrap();
    assert_eq!(token.scopes.len(), 2);
    let live = running.authority.issuing.live.load();
    let profile = Profile::access_token(
        ACCESS_ISSUER,
        vec!["payments".to_owned()],
        jwt::Algorithm::ALL,
    );
    let claims = jwt::verify(
        token.token.expose(),
        &profile,
        &live.access_keys,
        SystemTime::now(),
    );
    assert_eq!(claims.unwrap().subject, "spiffe://example.org/billing");
}

#[tokio::test]
async fn what_is_revoked_gets_no_access_token_by_record_nor_for_evidence() {
    let (world, agent, issued) = minter(TokenAlgorithm::Es256).await;
    let change = |undo| Change {
        kind: Kind::SpiffeId,
        value: "spiffe://example.org/orders".into(),
        reason: None,
        seconds: None,
        undo,
    };
    let revoke = async |undo| {
        let change = change(undo);
        let changed = world.issuing.revoke(&change, world.now);
        changed.await.unwrap();
    };
    let evidence = world.token("orders").await;
    revoke(false).await;
    let refused = world.access(&agent, &issued.record, "payments", &[]).await;
    assert_eq!(code(refused), ErrorCode::Revoked);
    let refused = world.exchange(&agent, &evidence, "payments", &[]).await;
    assert_eq!(code(refused), ErrorCode::Revoked);

    revoke(true).await;
    let by_record = world.access(&agent, &issued.record, "payments", &[]).await;
    let for_evidence = world.exchange(&agent, &evidence, "payments", &[]).await;
    let lineage = |token: wire::AccessToken| {
        let claims = world.verify_access(&token.token).unwrap();
        Provenance::of_token(&claims).lineage.unwrap()
    };
    assert_ne!(lineage(by_record.unwrap()), lineage(for_evidence.unwrap()));
}

fn from_unix(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

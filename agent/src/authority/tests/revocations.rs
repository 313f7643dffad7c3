use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls_pki_types::CertificateDer;
use warifu::{
    identity::{TrustBundle, spki_sha256},
    jwt::{self, Claims, KeySet, Profile},
};

use super::*;
use crate::{
    attest::{Client, ClientError},
    authority::state::{Claim, Claimed, Document, JoinToken, Pending, TokenHash, Versioned},
    config::authority::CallerIdentityAttestor,
    revocation::{Kind, List, Origin, Provenance, Published, hex},
};

fn change(kind: Kind, value: &str) -> Change {
    Change {
        kind,
        value: value.to_owned(),
        reason: Some("stolen".to_owned()),
        seconds: None,
        undo: false,
    }
}

fn undo(kind: Kind, value: &str) -> Change {
    Change {
        undo: true,
        reason: None,
        ..change(kind, value)
    }
}

async fn world() -> (World, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (World::new(&config(dir.path())).await, dir)
}

impl World {
    async fn revoke(&self, change: &Change) -> Result<Changed, RevokeError> {
        self.issuing.revoke(change, self.now).await
    }

    fn lineage(&self) -> String {
        let line = self.lines.all().pop().unwrap();
        line["lineage"].as_str().unwrap().to_owned()
    }

    fn bundle(&self) -> TrustBundle {
        self.issuing.live.load().bundle.clone()
    }

    fn published(&self) -> Published {
        let jws = self.issuing.revoked.load().page.body.clone();
        let jws = std::str::from_utf8(&jws).unwrap();
        let keys = self.bundle().jwt_authorities;
        Published::verify(jws, &keys, &td(), self.now).unwrap().0
    }

    /// The claims of a JWT-SVID for payments.
    fn claims(&self, token: &wire::JwtSvid) -> Claims {
        let profile = Profile::jwt_svid(vec!["payments".into()]);
        let keys = self.bundle().jwt_authorities;
        jwt::verify(token.token.expose(), &profile, &keys, self.now).unwrap()
    }
}

fn chain(issued: &wire::Issued) -> Vec<CertificateDer<'static>> {
    let chain = issued.chain.iter();
    chain.map(|der| der.0.clone().into()).collect()
}

#[tokio::test]
async fn certificates_and_tokens_say_the_lineage_that_the_audit_log_has() {
    let (world, _dir) = world().await;
    let agent = Agent::new();
    let issued = world
        .attest(&agent, &world.token("orders").await)
        .await
        .unwrap();
    let lineage = world.lineage();
    let peer = Provenance::of_chain(&id("/orders"), &chain(&issued));
    assert_eq!(peer.lineage.as_deref(), Some(lineage.as_str()));
    assert_eq!(peer.role, None);
    let intermediate = hex(&spki_sha256(&issued.chain[1].0).unwrap());
    assert_eq!(peer.issuers, [Box::from(intermediate)]);

    let token = world.jwt(&agent, &issued.record, "payments").await.unwrap();
    let token = Provenance::of_token(&world.claims(&token));
    assert_eq!(token.lineage, peer.lineage);
    let line = world.lines.all().pop().unwrap();
    assert_eq!(token.token_id.as_deref(), line["jti"].as_str());

    let renewed = world.renew(&agent, &issued.record).await.unwrap();
    let renewed = Provenance::of_chain(&id("/orders"), &chain(&renewed));
    assert_eq!(renewed.lineage, peer.lineage);
}

#[tokio::test]
async fn what_an_aws_role_attested_says_a_hash_of_the_role_and_is_revoked_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let aws = Attestor::AwsCallerIdentity(CallerIdentityAttestor {
        partitions: vec!["aws".into()],
        accounts: vec!["123456789012".into()],
        sts_endpoints: BTreeMap::new(),
    });
    config.attestors.insert("aws".into(), aws);
    let mut rule = config.rules[0].clone();
    rule.attestor = "aws".into();
    rule.r#match = ["account", "role"]
        .map(|fact| (fact.to_owned(), "*".parse().unwrap()))
        .into();
    rule.id = "/{account}/{role}".parse().unwrap();
    rule.dns = vec![];
    config.rules.push(rule);
    let world = World::new(&config).await;
    let facts = Facts::from([
        ("account".to_owned(), "123456789012".to_owned()),
        ("role".to_owned(), "batch".to_owned()),
    ]);
    let role = "123456789012:role/batch";
    let entitled = |attestor: &str| world.issuing.entitled(attestor, &facts, "l1").map(|_| ());
    assert_eq!(
        world.issuing.attestors.role("aws", &facts).as_deref(),
        Some(role)
    );
    // A join token's facts are the operator's word, and no role was proved.
    assert_eq!(world.issuing.attestors.role("join", &facts), None);

    entitled("aws").unwrap();
    world.revoke(&change(Kind::Role, role)).await.unwrap();
    assert_eq!(code(entitled("aws")), ErrorCode::Revoked);
    let hash = Origin::hash_of_role(role);
    assert_eq!(world.published().entries, [(Kind::Role, hash)]);
    world.revoke(&undo(Kind::Role, role)).await.unwrap();
    entitled("aws").unwrap();
}

#[tokio::test]
async fn what_is_revoked_gets_nothing_more_and_its_return_is_possible() {
    let (world, _dir) = world().await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    let lineage = world.lineage();
    let other = Agent::new();
    let elsewhere = world
        .attest(&other, &world.token("payments").await)
        .await
        .unwrap();
    for (kind, value) in [
        (Kind::Lineage, lineage.as_str()),
        (Kind::SpiffeId, "spiffe://example.org/orders"),
    ] {
        world.revoke(&change(kind, value)).await.unwrap();
        let refused = world.renew(&agent, &issued.record).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Revoked);
        assert!(refused.message.contains(kind.name()), "{refused:?}");
        let refused = world.jwt(&agent, &issued.record, "payments").await;
        assert_eq!(code(refused), ErrorCode::Revoked);
        assert_eq!(code(world.attest(&agent, &token).await), ErrorCode::Revoked);
        let line = world.lines.all().pop().unwrap();
        assert_eq!(
            (&line["decision"], &line["refused"]["code"]),
            (&"refused".into(), &"revoked".into())
        );
        assert_eq!(line["lineage"], lineage);
        world.renew(&other, &elsewhere.record).await.unwrap();

        world.revoke(&undo(kind, value)).await.unwrap();
        world.renew(&agent, &issued.record).await.unwrap();
    }
}

#[tokio::test]
async fn revoked_evidence_is_not_spent() {
    let (world, _dir) = world().await;
    let token = world.token("orders").await;
    let orders = "spiffe://example.org/orders";
    world.revoke(&change(Kind::SpiffeId, orders)).await.unwrap();
    assert_eq!(
        code(world.attest(&Agent::new(), &token).await),
        ErrorCode::Revoked
    );
    world.revoke(&undo(Kind::SpiffeId, orders)).await.unwrap();
    world.attest(&Agent::new(), &token).await.unwrap();
}

#[tokio::test]
async fn every_change_counts_the_list_up_and_is_audited() {
    let (world, _dir) = world().await;
    assert_eq!(world.issuing.revocations().number, 0);
    let first = world.revoke(&change(Kind::Lineage, "l1")).await.unwrap();
    let second = world.revoke(&change(Kind::Lineage, "l1")).await.unwrap();
    assert_eq!(
        world.issuing.revocations().entries.len(),
        1,
        "revoked again, kept once"
    );
    let third = world.revoke(&undo(Kind::Lineage, "l1")).await.unwrap();
    assert!(0 < first.number && first.number < second.number && second.number < third.number);
    assert!(world.issuing.revocations().entries.is_empty());
    let refused = world.revoke(&undo(Kind::Lineage, "l1")).await.unwrap_err();
    assert!(refused.to_string().contains("is not revoked"), "{refused}");
    assert_eq!(world.issuing.revocations().number, third.number);
}

#[tokio::test]
async fn what_is_published_names_no_reason_and_no_role() {
    let (world, _dir) = world().await;
    world
        .revoke(&change(Kind::Role, "123456789012:role/batch"))
        .await
        .unwrap();
    world.revoke(&change(Kind::TokenId, "t1")).await.unwrap();
    let published = world.published();
    assert_eq!(published.number, world.issuing.revocations().number);
    assert_eq!(published.entries.len(), 2);
    let text = format!("{published:?}");
    assert!(
        !text.contains("stolen") && !text.contains("123456789012"),
        "{text}"
    );
}

#[tokio::test]
async fn an_entry_ends_when_nothing_of_what_it_revoked_is_alive() {
    let (mut world, _dir) = world().await;
    let until = async |change: &Change| {
        let made = world.revoke(change).await.unwrap();
        let until = made.entry.until?;
        Some(Duration::from_secs(until - made.entry.revoked_at))
    };
    // The join token of a lineage is good for seven days, and its key may show it again till then.
    let lineage = until(&change(Kind::Lineage, "l1")).await.unwrap();
    assert!(
        lineage > DAY * 7 + HOUR && lineage < DAY * 7 + HOUR * 2,
        "{lineage:?}"
    );
    let token = until(&change(Kind::TokenId, "t1")).await.unwrap();
    assert!(token > MINUTE * 5 && token < MINUTE * 6, "{token:?}");
    for (kind, value) in [
        (Kind::SpiffeId, "spiffe://example.org/orders"),
        (Kind::Role, "123456789012:role/batch"),
        (Kind::IssuerKey, "kid-1"),
    ] {
        assert_eq!(until(&change(kind, value)).await, None, "{kind}");
    }
    let mut for_a_while = change(Kind::SpiffeId, "spiffe://example.org/other");
    for_a_while.seconds = Some(60);
    assert_eq!(until(&for_a_while).await, Some(MINUTE));

    let before = world.published().number;
    world.later(Duration::from_secs(59)).await;
    assert_eq!(world.published().entries.len(), 6);
    assert_eq!(world.published().number, before);
    world.later(Duration::from_secs(1)).await;
    assert_eq!(world.published().entries.len(), 5);
    assert!(
        world.published().number > before,
        "agents must see that it changed"
    );
}

#[tokio::test]
async fn a_value_that_is_none_of_its_kind_is_refused_with_what_was_expected() {
    let (world, _dir) = world().await;
    for (kind, value, expected) in [
        (Kind::Lineage, "", "audit log"),
        (Kind::TokenId, "two words", "audit log"),
        (Kind::SpiffeId, "orders", "spiffe://example.org/orders"),
        (Kind::SpiffeId, "spiffe://example.org", "workload"),
        (Kind::SpiffeId, "spiffe://EXAMPLE.org/orders", "workload"),
        (
            Kind::SpiffeId,
            "spiffe://example.org/warifu/authority",
            "/warifu/",
        ),
        (
            Kind::Role,
            "arn:aws:iam::123456789012:role/batch",
            "ACCOUNT:role/NAME",
        ),
        (
            Kind::Role,
            "123456789012:role/path/batch",
            "without the role's path",
        ),
        (Kind::IssuerKey, "", "64 hex digits"),
    ] {
        let refused = world.revoke(&change(kind, value)).await.unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
        assert_eq!(Denied::from(refused).code, ErrorCode::BadRequest);
    }
    let mut long = change(Kind::Lineage, "l1");
    long.reason = Some("x".repeat(257));
    assert!(
        world
            .revoke(&long)
            .await
            .unwrap_err()
            .to_string()
            .contains("257 bytes")
    );
    let mut never = change(Kind::Lineage, "l1");
    never.seconds = Some(0);
    assert!(world.revoke(&never).await.is_err());
    assert_eq!(world.issuing.revocations().number, 0);

    let upper = change(Kind::IssuerKey, &"AB".repeat(32));
    let made = world.revoke(&upper).await.unwrap();
    assert_eq!(made.entry.value, "ab".repeat(32), "one spelling");
}

#[tokio::test]
async fn s14_a_list_that_is_full_says_so_and_stays_as_it_was() {
    let (world, _dir) = world().await;
    let mut refused = None;
    let long = "x".repeat(200);
    // Filled by hand: thousands of changes would take a while.
    let store = &world.issuing.store;
    world.revoke(&change(Kind::Lineage, "l0")).await.unwrap();
    let kept = store.load(Document::Revocations).await.unwrap().unwrap();
    let mut document: serde_json::Value = serde_json::from_slice(&kept.document).unwrap();
    let entry = document["entries"][0].clone();
    let entries = document["entries"].as_array_mut().unwrap();
    for n in 0..1150 {
        let mut entry = entry.clone();
        entry["value"] = format!("{n}-{long}").into();
        entries.push(entry);
    }
    let bytes = serde_json::to_vec(&document).unwrap();
    assert!(bytes.len() > 300 * 1024);
    let swapped = store.compare_and_swap(Document::Revocations, Some(kept.version), bytes);
    assert!(swapped.await.unwrap());
    for n in 0..1000 {
        let change = change(Kind::Lineage, &format!("more-{n}-{long}"));
        if let Err(why) = world.revoke(&change).await {
            refused = Some(why);
            break;
        }
    }
    let refused = refused.expect("a bound");
    assert!(refused.to_string().contains("full"), "{refused}");
    let before = world.issuing.revocations();
    world.issuing.follow_revocations(world.now).await.unwrap();
    assert_eq!(world.issuing.revocations().entries, before.entries);
    // What agents get of a full list is within what they read.
    assert!(world.issuing.revoked.load().page.body.len() < wire::MAX_RESPONSE);
}

/// A store that two replicas read before either writes, and that can be lost.
#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    both_read: tokio::sync::Barrier,
    racing: AtomicUsize,
    lost: AtomicBool,
}

impl Store for Shared {
    fn load(&self, which: Document) -> Pending<'_, Option<Versioned>> {
        Box::pin(async move {
            if self.lost.load(Ordering::Relaxed) {
                return Err(StoreError::Failed("no answer".into()));
            }
            let found = self.store.load(which).await;
            let races = |left: usize| left.checked_sub(1);
            let order = Ordering::Relaxed;
            if self.racing.fetch_update(order, order, races).is_ok() {
                self.both_read.wait().await;
            }
            found
        })
    }

    fn compare_and_swap(
        &self,
        which: Document,
        expected: Option<i64>,
        bytes: Vec<u8>,
    ) -> Pending<'_, bool> {
        self.store.compare_and_swap(which, expected, bytes)
    }

    fn put_join_token(&self, token: JoinToken, now: SystemTime) -> Pending<'_, ()> {
        self.store.put_join_token(token, now)
    }

    fn join_token(&self, hash: TokenHash) -> Pending<'_, Option<JoinToken>> {
        self.store.join_token(hash)
    }

    fn claim(&self, claim: Claim, now: SystemTime) -> Pending<'_, Claimed> {
        self.store.claim(claim, now)
    }
}

/// Two replicas that share a store.
async fn two_replicas() -> (World, World, Arc<Shared>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let path = dir.path().join("ca");
    config.ca.key = CaKey::Disk { path: path.clone() };
    config.state = State::Sqlite;
    private::ensure_dir(&path).unwrap();
    let store = Arc::new(Sqlite::open(&path.join(STATE_FILE)).unwrap());
    drop(Kek::on_disk(&path, false).unwrap());
    let shared = Arc::new(Shared {
        store,
        both_read: tokio::sync::Barrier::new(2),
        racing: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    });
    let now = SystemTime::now();
    let world = async |kek| {
        let store = Arc::clone(&shared) as Arc<dyn Store>;
        let world = World::sharing(&config, Keyring::held(kek), store, now).await;
        world.unwrap()
    };
    let one = world(Kek::on_disk(&path, true).unwrap()).await;
    let other = world(Kek::on_disk(&path, true).unwrap()).await;
    (one, other, shared, dir)
}

fn values(world: &World) -> Vec<String> {
    let entries = world.issuing.revocations().entries.into_iter();
    let mut values: Vec<_> = entries.map(|entry| entry.value).collect();
    values.sort();
    values
}

#[tokio::test]
async fn of_two_replicas_at_the_same_moment_both_revocations_survive() {
    let (one, other, shared, _dir) = two_replicas().await;
    for round in 0..5 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        shared.racing.store(2, Ordering::Relaxed);
        let (a, b) = (change(Kind::Lineage, &a), change(Kind::Lineage, &b));
        let (first, second) = tokio::join!(one.revoke(&a), other.revoke(&b));
        assert_ne!(first.unwrap().number, second.unwrap().number);
    }
    one.issuing.maintain(one.now).await.unwrap();
    other.issuing.maintain(other.now).await.unwrap();
    assert_eq!(values(&one).len(), 10, "{:?}", values(&one));
    assert_eq!(values(&one), values(&other));
    assert_eq!(one.published().number, other.published().number);
}

#[tokio::test]
async fn every_replica_follows_within_a_round_of_maintenance() {
    let (one, other, _shared, _dir) = two_replicas().await;
    let agent = Agent::new();
    let issued = other
        .attest(&agent, &other.token("orders").await)
        .await
        .unwrap();
    one.revoke(&change(Kind::Lineage, &other.lineage()))
        .await
        .unwrap();
    other
        .renew(&agent, &issued.record)
        .await
        .expect("it has not looked yet");
    other.issuing.maintain(other.now).await.unwrap();
    assert_eq!(
        code(other.renew(&agent, &issued.record).await),
        ErrorCode::Revoked
    );
}

#[tokio::test]
async fn without_the_store_nothing_changes_and_the_last_list_stays_in_force() {
    let (one, mut other, shared, _dir) = two_replicas().await;
    let agent = Agent::new();
    let issued = other
        .attest(&agent, &other.token("orders").await)
        .await
        .unwrap();
    other
        .revoke(&change(Kind::Lineage, &other.lineage()))
        .await
        .unwrap();
    let before = other.published();

    shared.lost.store(true, Ordering::Relaxed);
    let refused = one.revoke(&change(Kind::Lineage, "l2")).await.unwrap_err();
    assert_eq!(Denied::from(refused).code, ErrorCode::Unavailable);
    other.now += MINUTE * 2;
    other.issuing.maintain(other.now).await.unwrap_err();
    assert_eq!(
        code(other.renew(&agent, &issued.record).await),
        ErrorCode::Revoked
    );
    // It does not say that it knows better than then.
    assert_eq!(other.published(), before);
    assert!(!other.issuing.revoked.load().is_confirmed(other.now));

    shared.lost.store(false, Ordering::Relaxed);
    other.issuing.maintain(other.now).await.unwrap();
    assert!(other.published().as_of > before.as_of);
    assert!(other.issuing.revoked.load().is_confirmed(other.now));
}

#[tokio::test]
async fn a_store_restored_from_before_learns_again_what_replicas_know() {
    let (one, other, shared, _dir) = two_replicas().await;
    one.revoke(&change(Kind::Lineage, "l1")).await.unwrap();
    let kept = shared.load(Document::Revocations).await.unwrap().unwrap();
    one.revoke(&change(Kind::Lineage, "l2")).await.unwrap();
    let swapped =
        shared.compare_and_swap(Document::Revocations, Some(kept.version + 1), kept.document);
    assert!(swapped.await.unwrap());
    let before = one.published().number;
    one.issuing.maintain(one.now).await.unwrap();
    other.issuing.maintain(other.now).await.unwrap();
    assert_eq!(values(&one), ["l1", "l2"]);
    assert_eq!(values(&other), ["l1", "l2"]);
    assert!(other.published().number > before);
}

#[tokio::test]
async fn a_replica_whose_own_intermediate_is_revoked_takes_another() {
    let (mut world, _dir) = world().await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issuer = |issued: &wire::Issued| hex(&spki_sha256(&issued.chain[1].0).unwrap());
    let before = issuer(&world.attest(&agent, &token).await.unwrap());
    world
        .revoke(&change(Kind::IssuerKey, &before))
        .await
        .unwrap();
    world.later(Duration::from_secs(1)).await;
    let after = issuer(&world.attest(&agent, &token).await.unwrap());
    assert_ne!(before, after);
    // Once, not every round.
    world.later(Duration::from_secs(1)).await;
    assert_eq!(issuer(&world.attest(&agent, &token).await.unwrap()), after);
}

#[tokio::test]
async fn agents_get_the_list_over_https_and_not_modified_while_it_is_the_one() {
    let running = Running::start(|_| {}).await;
    let client = Client::new(&td(), &running.as_seen()).unwrap();
    let (bundle, _) = client.bundle(None).await.unwrap().unwrap();
    let (published, etag) = client.revocations(None, &bundle).await.unwrap().unwrap();
    assert_eq!((published.number, published.entries.len()), (0, 0));
    let again = client.revocations(etag.as_ref(), &bundle).await.unwrap();
    assert!(again.is_none());

    let l1 = change(Kind::Lineage, "l1");
    running.authority.revoke(&l1).await.unwrap();
    let changed = client.revocations(etag.as_ref(), &bundle).await.unwrap();
    let (published, _) = changed.unwrap();
    assert_eq!(published.entries, [(Kind::Lineage, "l1".to_owned())]);
    let mut other = bundle;
    other.jwt_authorities = KeySet::new(vec![SigningKey::generate().public().clone()]);
    let refused = client.revocations(None, &other).await.unwrap_err();
    assert!(
        refused.to_string().contains("no key with this kid"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_authority_whose_chain_has_a_revoked_key_is_none_on_a_kept_connection_either() {
    let running = Running::start(|_| {}).await;
    let client = Client::new(&td(), &running.as_seen()).unwrap();
    client.bundle(None).await.unwrap();
    let live = running.authority.issuing.live.load_full();
    let stolen = spki_sha256(live.signer.certificate().unwrap()).unwrap();
    client.distrust(List::new(&Published {
        number: 1,
        as_of: SystemTime::now(),
        entries: vec![(Kind::IssuerKey, hex(&stolen))],
    }));
    let refused = client.bundle(None).await.unwrap_err();
    assert!(
        matches!(refused, ClientError::NotTheAuthority { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("is revoked"), "{refused}");
}

#[tokio::test]
async fn revoking_the_key_that_signs_tokens_is_warned_of() {
    let (world, _dir) = world().await;
    let kid = world.issuing.live.load().jwt_key.public().kid().to_owned();
    let made = world.revoke(&change(Kind::IssuerKey, &kid)).await.unwrap();
    assert!(made.warning.unwrap().contains("warifu authority rotate"));
    let undone = world.revoke(&undo(Kind::IssuerKey, &kid)).await.unwrap();
    assert_eq!(undone.warning, None);
}

#[tokio::test]
async fn a_list_of_a_newer_version_or_none_at_all_stops_the_start() {
    let (world, dir) = world().await;
    let store = Arc::clone(&world.issuing.store);
    let newer = br#"{"layout": 2, "what": "ever"}"#.to_vec();
    let swapped = store.compare_and_swap(Document::Revocations, None, newer);
    assert!(swapped.await.unwrap());
    let live = world.issuing.live.load();
    let first = |store| revocation::first(store, &live, &world.issuing.metrics, world.now);
    let refused = first(&*store).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("run the version that wrote it"),
        "{refused}"
    );
    let damaged = store.compare_and_swap(Document::Revocations, Some(1), b"{".to_vec());
    assert!(damaged.await.unwrap());
    let refused = first(&*store).await.unwrap_err();
    assert!(refused.to_string().contains("damaged"), "{refused}");
    drop(dir);
}

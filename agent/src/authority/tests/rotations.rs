use std::fs;

use warifu::identity::TrustBundle;

use super::*;
use crate::authority::{
    rotation::Phase,
    state::{Claim, Claimed, JoinToken, Pending, TokenHash, Versioned},
};

fn disk(dir: &Path) -> AuthorityConfig {
    let mut config = config(dir);
    config.ca.key = CaKey::Disk {
        path: dir.join("ca"),
    };
    config.state = State::Sqlite;
    config
}

/// Keys under which the current leaf verifies: its root, as the bundle has it.
fn current_root(world: &World) -> Vec<u8> {
    let live = world.issuing.live.load();
    let roots = live.state.root_certificates();
    let current = roots.iter().find(|(phase, _)| *phase == Phase::Current);
    current.unwrap().1.to_vec()
}

fn bundle(world: &World) -> TrustBundle {
    world.issuing.live.load().bundle.clone()
}

fn is_signed_by(leaf_chain: &[Base64], root: &[u8]) -> bool {
    let (_, intermediate) = x509_parser::parse_x509_certificate(&leaf_chain[1].0).unwrap();
    let (_, root) = x509_parser::parse_x509_certificate(root).unwrap();
    intermediate.issuer() == root.subject()
}

#[tokio::test]
async fn a_new_root_is_published_before_it_signs_and_the_old_one_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&config(dir.path())).await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let first = current_root(&world);
    let before = bundle(&world);
    assert_eq!(before.x509_authorities.len(), 1);

    world.issuing.rotate(world.now).await.unwrap();
    let published = bundle(&world);
    assert_eq!(published.x509_authorities.len(), 2);
    assert_eq!(published.jwt_authorities.iter().count(), 2);
    assert!(published.sequence > before.sequence);
    assert_eq!(current_root(&world), first, "it signs nothing yet");
    let issued = world.attest(&agent, &token).await.unwrap();
    assert!(is_signed_by(&issued.chain, &first));

    world.later(HOUR - Duration::from_millis(1)).await;
    assert_eq!(current_root(&world), first);
    world.later(Duration::from_millis(1)).await;
    let second = current_root(&world);
    assert_ne!(second, first);
    let issued = world.renew(&agent, &issued.record).await.unwrap();
    assert!(is_signed_by(&issued.chain, &second));
    assert_eq!(
        bundle(&world).x509_authorities.len(),
        2,
        "what the old one signed is alive"
    );

    world.later(HOUR * 2).await;
    assert_eq!(
        bundle(&world).x509_authorities.len(),
        2,
        "replicas and clocks may be behind"
    );
    world.later(MINUTE).await;
    let after = bundle(&world);
    assert_eq!(after.x509_authorities.len(), 1);
    assert_eq!(after.x509_authorities[0].as_ref(), second);
    assert!(after.sequence > published.sequence);
    // A record from before the rotation still renews: its key is kept as long as records live.
    assert!(world.renew(&agent, &issued.record).await.is_ok());
}

#[tokio::test]
async fn roots_rotate_by_themselves_and_never_are_there_more_than_two() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&config(dir.path())).await;
    let mut seen = vec![current_root(&world)];
    for _ in 0..24 * 46 * 2 {
        world.later(HOUR / 2).await;
        assert!(bundle(&world).x509_authorities.len() <= 2);
        let current = current_root(&world);
        if seen.last() != Some(&current) {
            seen.push(current);
        }
    }
    assert_eq!(seen.len(), 4, "one each 15 days, half of 30, in 46 days");
}

#[tokio::test]
async fn a_second_rotation_waits_for_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(&config(dir.path())).await;
    world.issuing.rotate(world.now).await.unwrap();
    let sequence = bundle(&world).sequence;
    let refused = world.issuing.rotate(world.now).await.unwrap_err();
    assert!(
        refused.to_string().contains("will be activated at 20"),
        "{refused}"
    );
    assert_eq!(bundle(&world).sequence, sequence);
}

#[tokio::test]
async fn an_intermediate_is_made_anew_at_half_its_life() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&config(dir.path())).await;
    let made = Arc::clone(&world.issuing.live.load().signer);
    world.later(HOUR - Duration::from_secs(1)).await;
    assert!(Arc::ptr_eq(&made, &world.issuing.live.load().signer));
    world.later(Duration::from_secs(2)).await;
    assert!(!Arc::ptr_eq(&made, &world.issuing.live.load().signer));
}

#[tokio::test]
async fn a_restarted_disk_authority_keeps_its_roots_keys_and_records() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::new();
    let world = World::new(&disk(dir.path())).await;
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    let (root, sequence) = (current_root(&world), bundle(&world).sequence);
    drop(world);

    let world = World::new(&disk(dir.path())).await;
    assert_eq!(current_root(&world), root);
    assert_eq!(bundle(&world).sequence, sequence);
    assert!(world.renew(&agent, &issued.record).await.is_ok());
    let other = world.attest(&Agent::new(), &token).await;
    assert_eq!(
        code(other),
        ErrorCode::InvalidEvidence,
        "S15 across a restart"
    );
}

#[tokio::test]
async fn s12_no_private_key_lies_in_the_clear_in_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(&disk(dir.path())).await;
    let live = world.issuing.live.load();
    let document = live.state.to_document().unwrap();
    let text = String::from_utf8(document).unwrap();
    // PKCS#8 of a P-256 key begins with the same 26 bytes; in base64 that shows at any alignment.
    for prefix in ["MIGHAgEAMBMGByqGSM49", "AgEAMBMGByqGSM49AgEG"] {
        assert!(!text.contains(prefix));
    }
    for entry in fs::read_dir(dir.path().join("ca")).unwrap() {
        let mode = std::os::unix::fs::MetadataExt::mode(&entry.unwrap().metadata().unwrap());
        assert_eq!(mode & 0o077, 0);
    }
}

#[tokio::test]
async fn a_lost_or_foreign_key_file_is_a_clear_error_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let root = current_root(&World::new(&disk(dir.path())).await);
    let key = dir.path().join("ca").join(keys::FILE);
    let good = fs::read(&key).unwrap();

    fs::remove_file(&key).unwrap();
    let refused = World::at(&disk(dir.path()), SystemTime::now())
        .await
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("restore it from backup"),
        "{refused}"
    );

    let tomorrow = SystemTime::now() + DAY * 20;
    private::replace(&key, &[7; 32]).unwrap();
    let refused = World::at(&disk(dir.path()), tomorrow).await.err().unwrap();
    assert!(
        refused.to_string().contains("restore the right one"),
        "{refused}"
    );

    private::replace(&key, &good).unwrap();
    assert_eq!(current_root(&World::new(&disk(dir.path())).await), root);
}

#[tokio::test]
async fn two_replicas_share_challenges_records_tokens_and_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let config = disk(dir.path());
    let one = World::new(&config).await;
    // A second one on this database would be refused; they share it as they would a table.
    let keyring = Keyring::held(Kek::on_disk(&dir.path().join("ca"), true).unwrap());
    let store = Arc::clone(&one.issuing.store);
    let other = World::sharing(&config, keyring, store, one.now).await;
    let other = other.unwrap();
    assert_eq!(current_root(&one), current_root(&other));
    let agent = Agent::new();
    let token = one.token("orders").await;
    let request = agent.attest(&one.challenge(), &token);
    let issued = other.issuing.attest(other.asked(), request).await.unwrap();
    assert!(one.renew(&agent, &issued.record).await.is_ok());

    let (a, b) = tokio::join!(one.issuing.rotate(one.now), other.issuing.rotate(other.now));
    assert!(
        a.is_ok() != b.is_ok(),
        "one started it, the other found it started"
    );
    one.issuing.maintain(one.now).await.unwrap();
    other.issuing.maintain(other.now).await.unwrap();
    assert_eq!(bundle(&one).to_json(), bundle(&other).to_json());
}

#[tokio::test]
async fn a_state_of_another_trust_domain_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(World::new(&disk(dir.path())).await);
    let mut config = disk(dir.path());
    config.trust_domain = TrustDomain::new("example.com").unwrap();
    let refused = World::at(&config, SystemTime::now()).await.err().unwrap();
    assert!(refused.to_string().contains("example.org"), "{refused}");
}

#[tokio::test]
async fn spans_that_do_not_go_together_are_refused_with_the_least_that_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut short = config(dir.path());
    short.ca.publish_ahead = Span(MINUTE);
    let refused = World::at(&short, SystemTime::now()).await.err().unwrap();
    assert!(
        refused.to_string().contains("ca.publish_ahead is 60s"),
        "{refused}"
    );
    let mut short = config(dir.path());
    short.ca.root_ttl = Span(HOUR * 5);
    let refused = World::at(&short, SystemTime::now()).await.err().unwrap();
    assert!(refused.to_string().contains("ca.root_ttl"), "{refused}");
}

/// A store that is away.
#[derive(Debug)]
struct Away;

impl Away {
    fn answer<T: Send + 'static>() -> Pending<'static, T> {
        Box::pin(std::future::ready(Err(StoreError::Failed("away".into()))))
    }
}

impl Store for Away {
    fn load(&self, _: Document) -> Pending<'_, Option<Versioned>> {
        Self::answer()
    }
    fn compare_and_swap(&self, _: Document, _: Option<i64>, _: Vec<u8>) -> Pending<'_, bool> {
        Self::answer()
    }
    fn put_join_token(&self, _: JoinToken, _: SystemTime) -> Pending<'_, ()> {
        Self::answer()
    }
    fn join_token(&self, _: TokenHash) -> Pending<'_, Option<JoinToken>> {
        Self::answer()
    }
    fn claim(&self, _: Claim, _: SystemTime) -> Pending<'_, Claimed> {
        Self::answer()
    }
}

#[tokio::test]
async fn without_the_store_renewals_and_tokens_go_on_and_only_join_tokens_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&config(dir.path())).await;
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    world.issuing.store = Arc::new(Away);

    world.now += HOUR + HOUR / 2;
    assert!(world.issuing.maintain(world.now).await.is_err());
    let renewed = world.renew(&agent, &issued.record).await.unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&renewed.chain[0].0).unwrap();
    let end = u64::try_from(leaf.validity().not_after.timestamp()).unwrap();
    let full = world.now.duration_since(SystemTime::UNIX_EPOCH).unwrap() + HOUR;
    assert!(
        end >= full.as_secs(),
        "a new intermediate was made without the store"
    );
    assert!(world.jwt(&agent, &issued.record, "payments").await.is_ok());
    let refused = world.attest(&agent, &token).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.retry_after.is_some());
}

//! Keys that rotate: what is made, when, and what is accepted meanwhile.

use super::*;
use crate::{
    authority::{
        ca_state::{CaState, Line},
        rotation::Phase,
        state::Document,
    },
    config::authority::{TokenAlgorithm, TokenIssuer},
};

/// A document that version 0.1 wrote, in the middle of a rotation, and what opens it.
const LAYOUT_1: &str = include_str!("fixtures/ca_state-layout1.json");
const LAYOUT_1_KEK: [u8; 32] = [
    0x83, 0xc9, 0x15, 0x7e, 0x2e, 0x4a, 0x08, 0xe1, 0x62, 0xa4, 0x35, 0x33, 0x0f, 0x0a, 0x21, 0x5f,
    0x0e, 0xa8, 0xbf, 0x86, 0xa8, 0x95, 0x04, 0x92, 0x49, 0xb3, 0x6c, 0x18, 0x58, 0x8c, 0x56, 0x64,
];
/// Given by it at that time.
const LAYOUT_1_CHALLENGE: &str =
    "AAABoxiTPoA3Qqn0ejsQVxebgLQxzXoYXylLsC9jseHA2tWXKS-R_6TQwb9-LzjX63ROoPOgatY";
const LAYOUT_1_TIME: Duration = Duration::from_secs(1_800_003_600);

fn with_access_tokens(dir: &Path, algorithm: TokenAlgorithm) -> AuthorityConfig {
    let mut config = config(dir);
    config.tokens.access_token = Some(TokenIssuer {
        issuer: "https://tokens.example.org".into(),
        algorithm,
    });
    config
}

fn phases(world: &World, line: Line) -> Vec<Phase> {
    let live = world.issuing.live.load();
    live.state.phases(line)
}

#[tokio::test]
async fn a_document_of_the_first_layout_is_read_and_written_as_todays() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    private::ensure_dir(&ca).unwrap();
    private::create(&ca.join(keys::FILE), &LAYOUT_1_KEK).unwrap();
    let store = Sqlite::open(&ca.join(STATE_FILE)).unwrap();
    let kept = store
        .compare_and_swap(Document::CaState, None, LAYOUT_1.into())
        .await
        .unwrap();
    assert!(kept);
    drop(store);

    let mut config = config(dir.path());
    config.ca.key = CaKey::Disk { path: ca };
    config.state = State::Sqlite;
    let now = SystemTime::UNIX_EPOCH + LAYOUT_1_TIME;
    let mut world = World::at(&config, now).await.unwrap();
    let was: serde_json::Value = serde_json::from_str(LAYOUT_1).unwrap();
    let live = world.issuing.live.load_full();
    assert_eq!(live.bundle.sequence, was["sequence"]);
    assert_eq!(live.jwt_key.public().kid(), was["jwt_keys"][0]["kid"]);
    assert_eq!(live.record_key.public().kid(), was["record_keys"][0]["kid"]);
    assert_eq!(live.root_pins().len(), 2);
    assert!(challenge::is_good(
        &live.challenge_keys,
        &td(),
        LAYOUT_1_CHALLENGE,
        now
    ));

    // The rotation goes on, and what is written then is of today's layout.
    world.later(HOUR).await;
    let live = world.issuing.live.load_full();
    assert_eq!(live.jwt_key.public().kid(), was["jwt_keys"][1]["kid"]);
    let written = world.issuing.store.load(Document::CaState).await.unwrap();
    let written = written.unwrap().document;
    let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(written["layout"], 2);
    drop(world);
    World::at(&config, now + HOUR).await.unwrap();
}

#[tokio::test]
async fn a_newer_layout_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(&config(dir.path())).await;
    let newer = br#"{"layout": 3}"#;
    let refused = CaState::parse(newer, &world.issuing.settings).unwrap_err();
    assert!(refused.to_string().contains("layout 3"), "{refused}");
    let none = br#"{"layout": 0}"#;
    assert!(CaState::parse(none, &world.issuing.settings).is_err());
}

#[tokio::test]
async fn the_challenge_key_rotates_and_challenges_under_way_stay_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&config(dir.path())).await;
    // Half of a key's life of 28 days.
    world.later(DAY * 14 - MINUTE).await;
    assert_eq!(phases(&world, Line::ChallengeKeys), [Phase::Current]);
    world.later(MINUTE).await;
    assert_eq!(
        phases(&world, Line::ChallengeKeys),
        [Phase::Current, Phase::Next],
        "replicas learn of it before it is used"
    );
    let before = world.challenge();
    world.later(MINUTE / 2).await;
    assert_eq!(
        phases(&world, Line::ChallengeKeys),
        [Phase::Old, Phase::Current]
    );
    let live = world.issuing.live.load_full();
    let good =
        |challenge: &str| challenge::is_good(&live.challenge_keys, &td(), challenge, world.now);
    assert!(good(&before) && good(&world.challenge()));
    world.later(MINUTE * 2).await;
    assert_eq!(phases(&world, Line::ChallengeKeys), [Phase::Current]);
    let token = world.token("orders").await;
    assert!(world.attest(&Agent::new(), &token).await.is_ok());
}

#[tokio::test]
async fn access_tokens_have_keys_of_their_own_that_no_bundle_shows() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(&config(dir.path())).await;
    assert!(
        phases(&world, Line::AccessKeys).is_empty(),
        "not configured"
    );
    let config = with_access_tokens(dir.path(), TokenAlgorithm::Es256);
    let world = World::new(&config).await;
    let live = world.issuing.live.load_full();
    let key = live.access_key.as_ref().unwrap().public();
    assert!(live.access_keys.find(key.kid()).is_some());
    assert!(live.bundle.jwt_authorities.find(key.kid()).is_none());
    assert!(live.access_keys.find(live.jwt_key.public().kid()).is_none());

    let sequence = live.bundle.sequence;
    world.issuing.rotate(world.now).await.unwrap();
    assert_eq!(
        phases(&world, Line::AccessKeys),
        [Phase::Current, Phase::Next]
    );
    let live = world.issuing.live.load_full();
    assert_eq!(live.access_keys.iter().count(), 2);
    assert_eq!(live.bundle.sequence, sequence + 2, "a root and a JWT key");
}

#[tokio::test]
async fn another_algorithm_takes_over_by_a_rotation_and_what_the_old_key_signed_verifies_meanwhile()
{
    let dir = tempfile::tempdir().unwrap();
    let disk = |algorithm| {
        let mut config = with_access_tokens(dir.path(), algorithm);
        config.ca.key = CaKey::Disk {
            path: dir.path().join("ca"),
        };
        config.state = State::Sqlite;
        config
    };
    let world = World::new(&disk(TokenAlgorithm::Es256)).await;
    let now = world.now;
    let algorithms = |world: &World| -> Vec<_> {
        let live = world.issuing.live.load();
        let published = live.access_keys.iter();
        let mut published: Vec<_> = published.map(|key| key.algorithm()).collect();
        published.sort_by_key(|algorithm| algorithm.name());
        let signs = live.access_key.as_ref().unwrap().public().algorithm();
        [vec![signs], published].concat()
    };
    use warifu::jwt::Algorithm::{ES256, RS256};
    assert_eq!(algorithms(&world), [ES256, ES256]);
    drop(world);

    let mut world = World::at(&disk(TokenAlgorithm::Rs256), now).await.unwrap();
    assert_eq!(
        algorithms(&world),
        [ES256, ES256, RS256],
        "published, and signs nothing"
    );
    world.later(HOUR).await;
    assert_eq!(
        algorithms(&world),
        [RS256, ES256, RS256],
        "the old one still verifies"
    );
    world.later(HOUR).await;
    assert_eq!(algorithms(&world), [RS256, RS256]);
    world.later(HOUR).await;
    assert_eq!(algorithms(&world), [RS256, RS256], "once is enough");
}

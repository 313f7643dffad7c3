//! Roots in KMS, and the rest sealed by it, with time handed in.

use self::service::{Mood, Service, WRAP};
use super::*;
use crate::authority::state::Memory;

mod service;

/// A replica whose keys are in KMS.
async fn replica(
    kms: &Service,
    key_id: &str,
    store: &Arc<dyn Store>,
    now: SystemTime,
) -> Result<World, StartError> {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let key = CaKey::AwsKms {
        key_id: key_id.to_owned(),
        wrap_key_id: WRAP.to_owned(),
    };
    let metrics = super::super::metrics::Metrics::default();
    let keyring = Keyring::aws(&key, None, &kms.sdk().await, &td(), &metrics)?;
    config.ca.intermediate_ttl = Span(HOUR * 2);
    World::sharing(&config, keyring, Arc::clone(store), now).await
}

fn store() -> Arc<dyn Store> {
    Arc::new(Memory::default())
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn keys(world: &World) -> Vec<String> {
    let roots = world.issuing.status().roots.into_iter();
    roots
        .map(|root| format!("{} {}", root.phase, root.key))
        .collect()
}

#[tokio::test]
async fn kms_is_asked_at_start_and_for_an_intermediate_and_never_for_a_leaf_or_a_token() {
    let (kms, store) = (Service::start().await, store());
    let mut world = replica(&kms, "one", &store, now()).await.unwrap();
    let asked = |kms: &Service| {
        ["Encrypt", "Decrypt", "GetPublicKey", "Sign"].map(|action| kms.calls(action))
    };
    assert_eq!(asked(&kms), [1, 1, 1, 2], "a root and an intermediate");
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    for _ in 0..20 {
        world.renew(&agent, &issued.record).await.unwrap();
        world.jwt(&agent, &issued.record, "payments").await.unwrap();
        world.issuing.maintain(world.now).await.unwrap();
    }
    assert_eq!(asked(&kms), [1, 1, 1, 2]);
    world.later(HOUR).await;
    assert_eq!(
        asked(&kms),
        [1, 1, 1, 3],
        "half of the intermediate's life is over"
    );

    let other = replica(&kms, "one", &store, world.now).await.unwrap();
    assert_eq!(
        asked(&kms),
        [1, 2, 1, 4],
        "another replica opens, and signs its own"
    );
    assert_eq!(
        other.issuing.live.load().bundle.to_json(),
        world.issuing.live.load().bundle.to_json()
    );
    assert!(other.renew(&agent, &issued.record).await.is_ok());
}

#[tokio::test]
async fn s12_the_state_holds_no_key_that_kms_does_not_hold_or_seal() {
    let (kms, store) = (Service::start().await, store());
    let world = replica(&kms, "one", &store, now()).await.unwrap();
    let document = store.load(Document::CaState).await.unwrap().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&document.document).unwrap();
    let root = &document["roots"][0];
    assert_eq!(
        root["kms_key"],
        "arn:aws:kms:eu-west-1:123456789012:key/one"
    );
    assert!(root.get("key").is_none());
    assert!(document["kek"]["sealed"].is_string());
    assert!(!format!("{:?}", world.issuing).contains("in_kms-secret"));
}

#[tokio::test]
async fn a_key_that_is_configured_anew_signs_after_the_next_rotation_and_not_before() {
    let (kms, store) = (Service::start().await, store());
    let world = replica(&kms, "one", &store, now()).await.unwrap();
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    let one = "arn:aws:kms:eu-west-1:123456789012:key/one";
    let two = "arn:aws:kms:eu-west-1:123456789012:key/two";
    assert_eq!(keys(&world), [format!("current {one}")]);
    let pin = world.issuing.live.load().root_pins()[0].1;
    drop(world);

    let mut world = replica(&kms, "two", &store, now()).await.unwrap();
    assert_eq!(keys(&world), [format!("current {one}")], "in use: it stays");
    let opened = kms.calls("Encrypt");
    world.issuing.rotate(world.now).await.unwrap();
    assert_eq!(
        keys(&world),
        [format!("current {one}"), format!("next {two}")]
    );
    assert_eq!(
        kms.calls("Encrypt"),
        opened + 1,
        "the wrapping key is another"
    );
    world.later(HOUR).await;
    assert_eq!(
        keys(&world),
        [format!("old {one}"), format!("current {two}")]
    );
    let pins = world.issuing.live.load().root_pins();
    assert!(pins[0].1 == pin && pins[1].1 != pin);
    assert!(world.renew(&agent, &issued.record).await.is_ok());
}

#[tokio::test]
async fn a_rotation_under_the_same_key_makes_another_root_with_another_name() {
    let (kms, store) = (Service::start().await, store());
    let mut world = replica(&kms, "one", &store, now()).await.unwrap();
    world.issuing.rotate(world.now).await.unwrap();
    let live = world.issuing.live.load_full();
    let pins = live.root_pins();
    assert_eq!(pins[0].1, pins[1].1, "agents have the pin already");
    let roots = &live.bundle.x509_authorities;
    let names: Vec<_> = roots
        .iter()
        .map(|root| {
            x509_parser::parse_x509_certificate(root)
                .unwrap()
                .1
                .subject()
                .to_string()
        })
        .collect();
    assert_ne!(names[0], names[1]);
    world.later(HOUR).await;
    let token = world.token("orders").await;
    assert!(world.attest(&Agent::new(), &token).await.is_ok());
}

#[tokio::test]
async fn while_kms_is_away_issuing_goes_on_until_the_intermediate_ends() {
    let (kms, store) = (Service::start().await, store());
    let mut world = replica(&kms, "one", &store, now()).await.unwrap();
    let agent = Agent::new();
    let token = world.token("orders").await;
    let issued = world.attest(&agent, &token).await.unwrap();
    kms.set(Mood::Away);

    world.now += HOUR + MINUTE;
    let why = world.issuing.maintain(world.now).await.unwrap_err();
    assert!(why.is_outage());
    assert!(
        why.to_string().contains("kms:Sign on arn:aws:kms:"),
        "{why}"
    );
    assert!(world.renew(&agent, &issued.record).await.is_ok());
    // What other replicas change is followed all the same.
    let version = world.issuing.live.load().version;
    let found = store.load(Document::CaState).await.unwrap().unwrap();
    let swapped = store.compare_and_swap(Document::CaState, Some(found.version), found.document);
    assert!(swapped.await.unwrap());
    assert!(world.issuing.maintain(world.now).await.is_err());
    assert_eq!(world.issuing.live.load().version, version + 1);

    world.now += HOUR;
    assert!(world.issuing.maintain(world.now).await.is_err());
    let refused = world.renew(&agent, &issued.record).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable, "it has ended");

    kms.set(Mood::Fine);
    world.issuing.maintain(world.now).await.unwrap();
    assert!(world.renew(&agent, &issued.record).await.is_ok());
}

#[tokio::test]
async fn a_signature_that_is_not_one_of_the_roots_key_is_not_used() {
    let (kms, store) = (Service::start().await, store());
    let mut world = replica(&kms, "one", &store, now()).await.unwrap();
    let signer = Arc::clone(&world.issuing.live.load().signer);
    kms.set(Mood::Lies);
    world.now += HOUR;
    let why = world.issuing.maintain(world.now).await.unwrap_err();
    assert!(
        why.to_string().contains("nothing was issued with it"),
        "{why}"
    );
    assert!(Arc::ptr_eq(&signer, &world.issuing.live.load().signer));
    let none = replica(&kms, "one", &self::store(), now()).await;
    assert!(none.is_err());
}

#[tokio::test]
async fn an_outage_at_start_is_told_from_a_refusal_and_both_say_what_was_tried() {
    let kms = Service::start().await;
    kms.set(Mood::Away);
    let why = replica(&kms, "one", &store(), now()).await.err().unwrap();
    assert!(why.is_outage());
    assert!(why.to_string().contains("kms:DescribeKey on one"), "{why}");
    for (action, code, said) in [
        ("Sign", "AccessDeniedException", "allow this action"),
        (
            "Encrypt",
            "AccessDeniedException",
            "kms:Encrypt on alias/warifu-wrap",
        ),
        (
            "Decrypt",
            "AccessDeniedException",
            "kms:Decrypt on arn:aws:kms:",
        ),
        ("Sign", "DisabledException", "enable it"),
        ("Sign", "KMSInvalidStateException", "cancel its deletion"),
        ("DescribeKey", "NotFoundException", "the region"),
    ] {
        kms.set(Mood::Refuses(action, code));
        let why = replica(&kms, "one", &store(), now()).await.err().unwrap();
        assert!(!why.is_outage(), "{why}");
        assert!(why.to_string().contains(said), "{why}");
        assert!(why.to_string().contains(&format!("kms:{action}")), "{why}");
    }
    kms.set(Mood::Refuses("Sign", "ThrottlingException"));
    assert!(
        replica(&kms, "one", &store(), now())
            .await
            .err()
            .unwrap()
            .is_outage()
    );
}

#[tokio::test]
async fn a_key_of_the_wrong_kind_is_refused_at_start() {
    let (kms, store) = (Service::start().await, store());
    let why = replica(&kms, WRAP, &store, now()).await.err().unwrap();
    assert!(!why.is_outage());
    for said in [
        "ca.key_id: alias/warifu-wrap",
        "SYMMETRIC_DEFAULT",
        "ECC_NIST_P256",
    ] {
        assert!(why.to_string().contains(said), "{why}");
    }
    assert_eq!(store.load(Document::CaState).await.unwrap(), None);
}

#[tokio::test]
async fn state_that_kms_sealed_is_not_opened_by_a_key_on_disk_and_the_reverse() {
    let (kms, store) = (Service::start().await, store());
    drop(replica(&kms, "one", &store, now()).await.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let held = || Keyring::held(Kek::ephemeral().unwrap());
    let world = World::sharing(&config(dir.path()), held(), store, now()).await;
    let why = world.err().unwrap().to_string();
    assert!(why.contains("is sealed by arn:aws:kms:"), "{why}");

    let store = self::store();
    drop(
        World::sharing(&config(dir.path()), held(), Arc::clone(&store), now())
            .await
            .unwrap(),
    );
    let why = replica(&kms, "one", &store, now())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(why.contains("not sealed by KMS"), "{why}");
}

#[tokio::test]
async fn two_replicas_that_rotate_at_once_publish_one_next_root() {
    let (kms, store) = (Service::start().await, store());
    let one = replica(&kms, "one", &store, now()).await.unwrap();
    let other = replica(&kms, "two", &store, now()).await.unwrap();
    for _ in 0..3 {
        let (a, b) = tokio::join!(one.issuing.rotate(one.now), other.issuing.rotate(other.now));
        assert!(!(a.is_ok() && b.is_ok()), "one at most starts it");
    }
    one.issuing.maintain(one.now).await.unwrap();
    other.issuing.maintain(other.now).await.unwrap();
    let bundle = |world: &World| world.issuing.live.load().bundle.clone();
    assert_eq!(bundle(&one).to_json(), bundle(&other).to_json());
    assert_eq!(bundle(&one).x509_authorities.len(), 2);
    assert_eq!(bundle(&one).sequence, 3, "a root and a JWT key came, once");
}

#[tokio::test]
async fn a_state_that_nobody_with_the_key_wrote_is_refused_and_what_is_in_use_stays() {
    let (kms, store) = (Service::start().await, store());
    let world = replica(&kms, "one", &store, now()).await.unwrap();
    world.issuing.rotate(world.now).await.unwrap();
    let good = store.load(Document::CaState).await.unwrap().unwrap();
    let put = async |document: Vec<u8>| {
        let found = store.load(Document::CaState).await.unwrap().unwrap();
        let swap = store.compare_and_swap(Document::CaState, Some(found.version), document);
        assert!(swap.await.unwrap());
    };
    let (foreign, _, _) = ca::make_root(&td(), now(), DAY).unwrap();
    type Change = fn(&mut serde_json::Value, &[u8]);
    let changes: [Change; 5] = [
        |state, foreign| {
            state["roots"][1]["certificate"] =
                serde_json::to_value(Base64(foreign.to_vec())).unwrap();
        },
        |state, _| state["roots"][1]["phase"] = "current".into(),
        |state, _| state["sequence"] = 9.into(),
        |state, _| {
            state.as_object_mut().unwrap().remove("seal");
        },
        // As if it had never had one.
        |state, _| {
            let slot = state["challenge_keys"][0]["key"].clone();
            state["challenge_key"] = slot;
            state["layout"] = 1.into();
        },
    ];
    for change in changes {
        let mut state: serde_json::Value = serde_json::from_slice(&good.document).unwrap();
        change(&mut state, &foreign);
        put(serde_json::to_vec(&state).unwrap()).await;
        let before = world.issuing.live.load().version;
        assert!(world.issuing.maintain(world.now).await.is_err());
        assert_eq!(world.issuing.live.load().version, before);
        let started = replica(&kms, "one", &store, now()).await;
        assert!(!started.err().unwrap().is_outage());
    }
    put(good.document).await;
    world.issuing.maintain(world.now).await.unwrap();
    replica(&kms, "one", &store, now()).await.unwrap();
}

#[tokio::test]
async fn an_older_state_put_back_is_not_followed_by_who_knows_the_newer_one() {
    let (kms, store) = (Service::start().await, store());
    let world = replica(&kms, "one", &store, now()).await.unwrap();
    let old = store
        .load(Document::CaState)
        .await
        .unwrap()
        .unwrap()
        .document;
    world.issuing.rotate(world.now).await.unwrap();
    let version = world.issuing.live.load().version;
    let swap = store.compare_and_swap(Document::CaState, Some(version), old);
    assert!(swap.await.unwrap());
    let why = world.issuing.maintain(world.now).await.unwrap_err();
    assert!(why.to_string().contains("restart every replica"), "{why}");
    assert_eq!(world.issuing.live.load().bundle.x509_authorities.len(), 2);
    // Which is what one does who restored it from backup.
    replica(&kms, "one", &store, now()).await.unwrap();
}

//! A load balancer's keys: fetched one by one, and not as often as a stranger would like.

use std::{collections::BTreeMap, future::pending, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use serde_json::json;
use tokio::sync::Notify;

use super::*;
use crate::jwt::SigningKey;

const NOW: u64 = 1_795_000_000;
const ISSUER: &str = "https://idp.example";
const CLIENT: &str = "web";
const ALB: &str =
    "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + seconds)
}

/// Where the keys are.
#[derive(Debug, Default)]
struct Region {
    keys: Mutex<BTreeMap<String, Vec<u8>>>,
    mood: Mutex<Mood>,
    asked: Mutex<Vec<String>>,
    /// With [`Mood::Slow`]: go on.
    go: Notify,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Mood {
    #[default]
    Well,
    Away,
    Slow,
    Hangs,
    Panics,
}

impl FetchKey for Region {
    fn fetch(&self, kid: &str) -> FetchingKey<'_> {
        self.asked.lock().unwrap().push(kid.to_owned());
        let key = self.keys.lock().unwrap().get(kid).cloned();
        let mood = *self.mood.lock().unwrap();
        Box::pin(async move {
            match mood {
                Mood::Well => Ok(key),
                Mood::Away => Err(FetchError::new("GET https://keys.example: 502")),
                Mood::Slow => {
                    self.go.notified().await;
                    Ok(key)
                }
                Mood::Hangs => pending().await,
                Mood::Panics => panic!("a bug in a fetcher"),
            }
        })
    }
}

impl Region {
    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn has(&self, kid: &str, pem: impl Into<Vec<u8>>) {
        self.keys.lock().unwrap().insert(kid.to_owned(), pem.into());
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn pem(key: &SigningKey) -> String {
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
        &key.to_pkcs8().expose().as_slice().into(),
        &rcgen::PKCS_ECDSA_P256_SHA256,
    );
    pair.unwrap().public_key_pem()
}

fn world() -> (Arc<Region>, KeysByKid) {
    let region = Arc::new(Region::default());
    let keys = KeysByKid::new(region.clone());
    (region, keys)
}

fn profile() -> Profile {
    Profile::alb(ISSUER, vec![ALB.to_owned()], vec![CLIENT.to_owned()])
}

fn token(key: &SigningKey, kid: &str) -> String {
    let header = json!({
        "alg": "ES256", "client": CLIENT, "exp": NOW + 1_000_000, "iss": ISSUER, "kid": kid,
        "signer": ALB, "typ": "JWT",
    });
    let claims = json!({"sub": "someone", "exp": NOW + 1_000_000, "iss": ISSUER});
    let signed = [header, claims]
        .map(|part| URL_SAFE.encode(part.to_string()))
        .join(".");
    let signature = URL_SAFE.encode(key.sign_raw(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// What a token signed by this key, which it calls `kid`, comes to.
async fn verdict(
    keys: &KeysByKid,
    key: &SigningKey,
    kid: &str,
    now: u64,
) -> Result<(), Unverified> {
    let verdict = keys.verify(&token(key, kid), &profile(), at(now)).await;
    verdict.map(drop)
}

const UNKNOWN: Result<(), Unverified> = Err(Unverified::Refused(JwtError::UnknownKey));

fn is_unavailable(verdict: &Result<(), Unverified>) -> bool {
    matches!(verdict, Err(Unverified::Unavailable(_)))
}

#[tokio::test]
async fn a_key_is_fetched_at_its_first_token_and_kept() {
    let (region, keys) = world();
    let key = SigningKey::generate();
    region.has("a-1", pem(&key));
    for _ in 0..3 {
        assert_eq!(verdict(&keys, &key, "a-1", 0).await, Ok(()));
    }
    assert_eq!(*region.asked.lock().unwrap(), ["a-1"]);
    assert_eq!(keys.status().keys, 1);
    // Another's signature under its name is none.
    let verdict = verdict(&keys, &SigningKey::generate(), "a-1", 1).await;
    assert_eq!(verdict, Err(Unverified::Refused(JwtError::Signature)));
}

#[tokio::test]
async fn s10_a_kid_that_would_change_the_address_is_not_asked_for() {
    let (region, keys) = world();
    let key = SigningKey::generate();
    for kid in [
        "",
        ".",
        "../a-1",
        "a/1",
        "a%2f1",
        "a?1",
        "a#1",
        "a@evil.example",
        "a\0",
        "a\r\nHost: x",
        "é",
        "a 1",
        &"a".repeat(65),
        &"a".repeat(5_000),
    ] {
        region.has(kid, pem(&key));
        assert_eq!(verdict(&keys, &key, kid, 0).await, UNKNOWN, "{kid:?}");
    }
    assert_eq!(region.asked(), 0);
}

#[tokio::test]
async fn s10_a_token_that_is_refused_anyway_fetches_nothing() {
    let (region, keys) = world();
    let key = SigningKey::generate();
    let other = Profile::alb(
        ISSUER,
        vec![ALB.replace("front", "back")],
        vec![CLIENT.to_owned()],
    );
    let verdict = keys.verify(&token(&key, "a"), &other, at(0)).await;
    assert!(matches!(
        verdict,
        Err(Unverified::Refused(JwtError::Header(_)))
    ));
    let late = keys
        .verify(&token(&key, "a"), &profile(), at(2_000_000))
        .await;
    assert_eq!(late.unwrap_err(), Unverified::Refused(JwtError::Expired));
    assert_eq!(region.asked(), 0);
}

#[tokio::test]
async fn s10_made_up_kids_drive_a_bounded_number_of_fetches_a_window() {
    for mood in [Mood::Well, Mood::Away, Mood::Panics] {
        let (region, keys) = world();
        let key = SigningKey::generate();
        region.has("good", pem(&key));
        assert_eq!(verdict(&keys, &key, "good", 0).await, Ok(()));
        region.is(mood);
        let window = COOL_DOWN.as_secs();
        for second in 0..3 * window {
            for n in 0..5 {
                let made_up = format!("made-up-{second}-{n}");
                assert!(verdict(&keys, &key, &made_up, second).await.is_err());
            }
            // Who is known is served all the while.
            assert_eq!(verdict(&keys, &key, "good", second).await, Ok(()));
        }
        assert_eq!(region.asked(), 3 * FETCHES_A_WINDOW, "{mood:?}");
    }
}

#[tokio::test]
async fn s10_a_kid_that_led_to_nothing_is_not_asked_for_again_within_the_window() {
    let (region, keys) = world();
    let key = SigningKey::generate();
    for second in 0..COOL_DOWN.as_secs() {
        assert_eq!(verdict(&keys, &key, "none", second).await, UNKNOWN);
    }
    assert_eq!(region.asked(), 1);
    // Another may be asked for meanwhile, and this one again after it.
    region.has("next", pem(&key));
    region.has("none", pem(&key));
    assert_eq!(verdict(&keys, &key, "next", 9).await, Ok(()));
    assert_eq!(verdict(&keys, &key, "none", 10).await, Ok(()));
}

#[tokio::test]
async fn s10_no_key_is_unavailable_and_not_refused_where_nobody_can_say() {
    let key = SigningKey::generate();
    for mood in [Mood::Away, Mood::Panics] {
        let (region, keys) = world();
        region.is(mood);
        for second in 0..2 {
            let verdict = verdict(&keys, &key, "a", second).await;
            assert!(is_unavailable(&verdict), "{mood:?}: {verdict:?}");
        }
        assert_eq!(region.asked(), 1);
        // It recovers with the next window.
        region.is(Mood::Well);
        region.has("a", pem(&key));
        assert_eq!(verdict(&keys, &key, "a", COOL_DOWN.as_secs()).await, Ok(()));
        assert_eq!(keys.status().failure, None);
    }
    let (region, keys) = world();
    for (kid, pem) in [
        ("a", "<html>".to_owned()),
        ("b", String::new()),
        ("c", pem(&key).replace("PUBLIC KEY", "PRIVATE KEY")),
    ] {
        region.has(kid, pem);
        assert!(is_unavailable(&verdict(&keys, &key, kid, 0).await), "{kid}");
    }
}

#[tokio::test]
async fn s10_while_the_region_is_away_known_keys_verify_for_a_day() {
    let (region, keys) = world();
    let key = SigningKey::generate();
    region.has("a", pem(&key));
    assert_eq!(verdict(&keys, &key, "a", 0).await, Ok(()));
    region.is(Mood::Away);
    for hours in [1, 23] {
        assert_eq!(verdict(&keys, &key, "a", hours * 3_600).await, Ok(()));
        tokio::task::yield_now().await;
    }
    assert!(is_unavailable(
        &verdict(&keys, &key, "a", MAX_AGE.as_secs()).await
    ));
}

#[tokio::test]
async fn a_key_that_was_taken_back_is_gone_with_its_next_fetch() {
    let (region, keys) = world();
    let key = SigningKey::generate();
    region.has("a", pem(&key));
    assert_eq!(verdict(&keys, &key, "a", 0).await, Ok(()));
    region.keys.lock().unwrap().clear();
    let later = REFRESH_AFTER.as_secs();
    // Served at once with the key there is; the refresh runs beside it.
    assert_eq!(verdict(&keys, &key, "a", later).await, Ok(()));
    tokio::task::yield_now().await;
    assert_eq!(verdict(&keys, &key, "a", later + 1).await, UNKNOWN);
}

#[tokio::test]
async fn those_who_wait_share_one_fetch_and_one_who_gives_up_does_not_end_it() {
    let (region, keys) = world();
    let key = SigningKey::generate();
    region.has("a", pem(&key));
    region.is(Mood::Slow);
    let ask = || {
        let (keys, token) = (keys.clone(), token(&key, "a"));
        tokio::spawn(async move { keys.verify(&token, &profile(), at(0)).await.map(drop) })
    };
    let first = ask();
    tokio::task::yield_now().await;
    let others: Vec<_> = (0..10).map(|_| ask()).collect();
    tokio::task::yield_now().await;
    assert_eq!(region.asked(), 1);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    region.go.notify_one();
    for other in others {
        assert_eq!(other.await.unwrap(), Ok(()));
    }
    assert_eq!(region.asked(), 1);
}

#[tokio::test]
async fn s14_no_number_of_kids_makes_it_hold_more_than_so_many() {
    let (region, keys) = world();
    let key = SigningKey::generate();
    let window = COOL_DOWN.as_secs();
    for n in 0..200_u64 {
        let kid = format!("k{n}");
        if n % 2 == 0 {
            region.has(&kid, pem(&key));
        }
        let _ = verdict(&keys, &key, &kid, n * window).await;
    }
    let state = keys.0.lock();
    assert!(state.held.len() <= MAX_KEPT && state.missing.len() <= MAX_MISSING);
    assert!(state.begun.len() <= FETCHES_A_WINDOW);
    assert_eq!(state.keys.iter().count(), state.held.len());
}

#[test]
fn a_key_in_pem_is_p256_and_nothing_else() {
    let key = SigningKey::generate();
    let read = PublicJwk::p256_from_pem("k", pem(&key).as_bytes()).unwrap();
    assert_eq!(
        (read.kid(), read.thumbprint()),
        ("k", key.public().thumbprint())
    );
    let other = |algorithm| {
        rcgen::KeyPair::generate_for(algorithm)
            .unwrap()
            .public_key_pem()
    };
    let block = |der: &[u8]| {
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        )
    };
    let spki = |point: [u8; 64]| {
        let der: Vec<u8> = STANDARD
            .decode(
                pem(&key)
                    .lines()
                    .filter(|it| !it.starts_with('-'))
                    .collect::<String>(),
            )
            .unwrap();
        let (begin, _) = der.split_at(27);
        [begin, &point].concat()
    };
    for bad in [
        other(&rcgen::PKCS_ECDSA_P384_SHA384),
        other(&rcgen::PKCS_ED25519),
        block(b""),
        block(&spki([0; 64])),
        block(&spki([0xff; 64])),
        block(&[&spki([1; 64])[..], &[0]].concat()),
        "-----BEGIN PUBLIC KEY-----\n".to_owned(),
        String::new(),
    ] {
        let error = PublicJwk::p256_from_pem("k", bad.as_bytes()).expect_err(&bad);
        assert!(matches!(error, JwtError::Key(_)), "{error}");
    }
}

#[tokio::test]
async fn a_fetch_that_hangs_keeps_only_those_waiting_who_need_it() {
    let (region, keys) = world();
    let key = SigningKey::generate();
    region.has("a", pem(&key));
    assert_eq!(verdict(&keys, &key, "a", 0).await, Ok(()));
    region.is(Mood::Hangs);
    let waiting = {
        let (keys, token) = (keys.clone(), token(&key, "b"));
        tokio::spawn(async move { keys.verify(&token, &profile(), at(1)).await.map(drop) })
    };
    tokio::task::yield_now().await;
    assert_eq!(verdict(&keys, &key, "a", 1).await, Ok(()));
    waiting.abort();
}

//! The keys of an issuer that changes them, is away, or is asked for nonsense.

use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::json;
use tokio::sync::Notify;

use super::*;
use crate::jwt::{MAX_JWKS_BYTES, SigningKey, sign};

const NOW: u64 = 1_795_000_000;
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "warifu:example.org:attest";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + seconds)
}

/// An issuer whose answer the test chooses, and which counts how often it was asked.
#[derive(Debug, Default)]
struct Issuer {
    answer: Mutex<Answer>,
    asked: AtomicUsize,
    /// With [`Answer::Held`]: go on.
    go: Notify,
}

#[derive(Debug, Clone, Default)]
enum Answer {
    #[default]
    Away,
    Is(Vec<u8>),
    Held(Vec<u8>),
    Hangs,
    Panics,
}

impl Fetch for Issuer {
    fn fetch(&self) -> Fetching<'_> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().unwrap().clone();
        Box::pin(async move {
            match answer {
                Answer::Away => Err(FetchError::new("GET https://issuer.example: 502")),
                Answer::Is(json) => Ok(json),
                Answer::Held(json) => {
                    self.go.notified().await;
                    Ok(json)
                }
                Answer::Hangs => pending().await,
                Answer::Panics => panic!("a bug in a fetcher"),
            }
        })
    }
}

impl Issuer {
    fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn has(&self, keys: &[&SigningKey]) {
        self.says(Answer::Is(jwks(keys)));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn jwks(keys: &[&SigningKey]) -> Vec<u8> {
    let keys: Vec<_> = keys.iter().map(|key| key.public().to_json("sig")).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

fn profile() -> Profile {
    Profile::oidc_evidence(ISSUER, AUDIENCE)
}

fn cache() -> (Arc<Issuer>, Cache) {
    let issuer = Arc::new(Issuer::default());
    let cache = Cache::new(issuer.clone(), profile().algorithms);
    (issuer, cache)
}

fn token(key: &SigningKey) -> String {
    let claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "someone", "iat": NOW, "exp": NOW + 100_000,
    });
    sign(key, "JWT", &claims)
}

/// What a token signed by this key comes to.
async fn verdict(cache: &Cache, key: &SigningKey, now: u64) -> Result<(), Unverified> {
    let verdict = cache.verify(&token(key), &profile(), at(now)).await;
    verdict.map(drop)
}

const UNKNOWN: Result<(), Unverified> = Err(Unverified::Refused(JwtError::UnknownKey));

fn is_unavailable(verdict: &Result<(), Unverified>) -> bool {
    matches!(verdict, Err(Unverified::Unavailable(_)))
}

#[tokio::test]
async fn the_first_token_fetches_the_keys_and_the_next_use_them() {
    let (issuer, cache) = cache();
    let key = SigningKey::generate();
    issuer.has(&[&key]);
    for _ in 0..3 {
        assert_eq!(verdict(&cache, &key, 0).await, Ok(()));
    }
    assert_eq!(issuer.asked(), 1);
    assert_eq!(cache.status().keys, 1);
    assert_eq!(cache.status().fetched_at, Some(at(0)));
}

#[tokio::test]
async fn warm_keys_make_no_token_wait() {
    let (issuer, cache) = cache();
    let key = SigningKey::generate();
    issuer.has(&[&key]);
    assert_eq!(cache.warm(at(0)).await, Ok(()));
    issuer.says(Answer::Hangs);
    assert_eq!(verdict(&cache, &key, 1).await, Ok(()));
    assert_eq!(cache.warm(at(1)).await, Ok(()));
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn s10_unknown_kids_drive_one_fetch_a_window() {
    let (issuer, cache) = cache();
    let key = SigningKey::generate();
    issuer.has(&[&key]);
    cache.warm(at(0)).await.unwrap();
    let window = COOL_DOWN.as_secs();
    for second in 0..3 * window {
        for _ in 0..5 {
            assert_eq!(
                verdict(&cache, &SigningKey::generate(), second).await,
                UNKNOWN
            );
        }
    }
    assert_eq!(issuer.asked(), 3);
    assert_eq!(verdict(&cache, &key, 3 * window).await, Ok(()));
}

#[tokio::test]
async fn s10_the_window_holds_for_an_issuer_without_keys_and_for_one_that_is_away() {
    for answer in [
        Answer::Is(br#"{"keys":[]}"#.to_vec()),
        Answer::Is(b"<html>".to_vec()),
        Answer::Away,
        Answer::Panics,
    ] {
        let (issuer, cache) = cache();
        issuer.says(answer.clone());
        for second in 0..COOL_DOWN.as_secs() {
            verdict(&cache, &SigningKey::generate(), second)
                .await
                .unwrap_err();
        }
        assert_eq!(issuer.asked(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn s10_no_keys_is_unavailable_and_not_refused() {
    let key = SigningKey::generate();
    for answer in [
        Answer::Away,
        Answer::Panics,
        Answer::Is(b"<html>".to_vec()),
        Answer::Is(vec![b' '; MAX_JWKS_BYTES + 1]),
        Answer::Is(jwks(&[&key, &key])),
    ] {
        let (issuer, cache) = cache();
        issuer.says(answer.clone());
        let verdict = verdict(&cache, &key, 0).await;
        assert!(is_unavailable(&verdict), "{answer:?}: {verdict:?}");
    }
    let (_, cache) = cache();
    let error = cache.warm(at(0)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the issuer's keys are unavailable: GET https://issuer.example: 502"
    );
}

#[tokio::test]
async fn s10_while_the_issuer_is_away_known_keys_verify_and_unknown_ones_are_unavailable() {
    let (issuer, cache) = cache();
    let (key, next) = (SigningKey::generate(), SigningKey::generate());
    issuer.has(&[&key]);
    cache.warm(at(0)).await.unwrap();
    issuer.says(Answer::Away);
    for hours in [1, 23] {
        assert_eq!(verdict(&cache, &key, hours * 3_600).await, Ok(()));
        assert!(is_unavailable(&verdict(&cache, &next, hours * 3_600).await));
    }
    let day = MAX_AGE.as_secs();
    assert!(is_unavailable(&verdict(&cache, &key, day).await));
    issuer.has(&[&key, &next]);
    assert_eq!(verdict(&cache, &next, day + 60).await, Ok(()));
    assert_eq!(cache.status().failure, None);
}

#[tokio::test]
async fn s10_a_token_that_is_refused_anyway_fetches_nothing() {
    let (issuer, cache) = cache();
    let key = SigningKey::generate();
    issuer.has(&[&key]);
    let claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "s", "exp": NOW + 300});
    for token in [
        "garbage".to_owned(),
        "a.b.c".to_owned(),
        sign(&key, "at+jwt", &claims),
        "x".repeat(9_000),
    ] {
        let error = cache.verify(&token, &profile(), at(0)).await.unwrap_err();
        assert!(matches!(error, Unverified::Refused(_)), "{error}");
    }
    assert_eq!(issuer.asked(), 0);
}

#[tokio::test]
async fn a_new_key_is_found_at_its_first_token_and_an_old_one_is_gone_with_the_next_fetch() {
    let (issuer, cache) = cache();
    let (old, new) = (SigningKey::generate(), SigningKey::generate());
    issuer.has(&[&old]);
    cache.warm(at(0)).await.unwrap();
    issuer.has(&[&new]);
    assert_eq!(verdict(&cache, &new, 60).await, Ok(()));
    assert_eq!(verdict(&cache, &old, 61).await, UNKNOWN);
}

#[tokio::test]
async fn a_key_that_was_taken_back_is_gone_soon_after_though_nobody_asks_for_another() {
    let (issuer, cache) = cache();
    let (stolen, other) = (SigningKey::generate(), SigningKey::generate());
    issuer.has(&[&stolen]);
    cache.warm(at(0)).await.unwrap();
    issuer.has(&[&other]);
    let later = REFRESH_AFTER.as_secs();
    // Served at once with the keys there are; the refresh runs beside it.
    assert_eq!(verdict(&cache, &stolen, later).await, Ok(()));
    tokio::task::yield_now().await;
    assert_eq!(verdict(&cache, &stolen, later + 1).await, UNKNOWN);
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn those_who_wait_share_one_fetch_and_one_who_gives_up_does_not_end_it() {
    let (issuer, cache) = cache();
    let key = SigningKey::generate();
    issuer.says(Answer::Held(jwks(&[&key])));
    let ask = || {
        let (cache, token) = (cache.clone(), token(&key));
        tokio::spawn(async move { cache.verify(&token, &profile(), at(0)).await.map(drop) })
    };
    let first = ask();
    tokio::task::yield_now().await;
    let others: Vec<_> = (0..10).map(|_| ask()).collect();
    tokio::task::yield_now().await;
    assert_eq!(issuer.asked(), 1);

    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    issuer.go.notify_one();
    for other in others {
        assert_eq!(other.await.unwrap(), Ok(()));
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn a_clock_that_is_set_back_stops_nothing() {
    let (issuer, cache) = cache();
    let (key, next) = (SigningKey::generate(), SigningKey::generate());
    issuer.has(&[&key]);
    cache.warm(at(3_600)).await.unwrap();
    issuer.has(&[&key, &next]);
    assert_eq!(verdict(&cache, &key, 3_590).await, Ok(()));
    assert_eq!(verdict(&cache, &next, 0).await, Ok(()));
}

#[tokio::test]
async fn an_issuer_may_call_its_keys_as_others_do_and_leave_out_their_algorithm() {
    let key = SigningKey::generate_rsa();
    let mut jwk = key.public().to_json("sig");
    let members = jwk.as_object_mut().unwrap();
    members.insert("kid".to_owned(), "RSA_0".into());
    members.remove("alg");
    let other = json!({"kty": "unheard-of", "kid": "X"});
    let issuer = Arc::new(Issuer::default());
    let body = json!({"keys": [jwk, other]}).to_string();
    issuer.says(Answer::Is(body.into_bytes()));
    let profile = Profile::aws_web_identity(ISSUER, AUDIENCE);
    let cache = Cache::new(issuer, profile.algorithms);
    cache.warm(at(0)).await.unwrap();
    assert_eq!(cache.status().keys, 1);
}

#[test]
fn a_reason_is_cut_off_between_characters() {
    let error = FetchError::new("é".repeat(MAX_REASON));
    assert_eq!(error.to_string().len(), MAX_REASON);
    assert_eq!(
        FetchError::new("x".repeat(MAX_REASON - 1) + "é")
            .to_string()
            .len(),
        MAX_REASON - 1
    );
}

//! The library's caches of keys over this fetcher, from issuers that fail in every way they have (S10). The windows
//! of the caches are passed by the time handed in; only an issuer's slowness is real.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::time::sleep;
use warifu::jwt::{
    Algorithm, JwtError, MAX_JWKS_BYTES, Profile, SigningKey,
    jwks::{COOL_DOWN, Cache, FETCHES_A_WINDOW, KeysByKid, Unverified},
    sign,
};

use super::*;

const NOW: u64 = 1_795_000_000;
const ISSUER: &str = "https://issuer.example";

/// What the issuer's server does with a connection.
#[derive(Debug, Clone)]
enum Says {
    /// 200, and this body.
    Body(String),
    /// This head, and no more.
    Head(String),
    /// A byte now and then, for ever.
    Drips,
    /// Nothing, for ever.
    Hangs,
    /// The connection ends.
    Closes,
}

/// An issuer's server, whose mood the test chooses.
struct Issuer {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = Self {
            address,
            says: Arc::new(Mutex::new(says)),
            asked: Arc::default(),
        };
        let (says, asked) = (issuer.says.clone(), issuer.asked.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                asked.fetch_add(1, Ordering::SeqCst);
                let says = says.lock().unwrap().clone();
                tokio::spawn(serve(stream, says));
            }
        });
        issuer
    }

    fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    fn cache(&self) -> Cache {
        let keys = OidcKeys::new(patient(), ISSUER, Some(self.url()));
        Cache::new(Arc::new(keys), Algorithm::ALL)
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, says: Says) {
    let mut request = [0; 2_048];
    let _ = stream.read(&mut request).await;
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    let text = match says {
        Says::Body(body) => head(body.len()) + &body,
        Says::Head(head) => head,
        Says::Closes => String::new(),
        Says::Hangs => return pending().await,
        Says::Drips => {
            let _ = stream.write_all(head(1_000).as_bytes()).await;
            while stream.write_all(b" ").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
            return;
        }
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Waits half a second.
fn patient() -> Fetcher {
    fetcher().limited(Limits {
        connect: Duration::from_millis(500),
        total: Duration::from_millis(500),
        answer: MAX_JWKS_BYTES,
    })
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + seconds)
}

fn jwks(keys: &[&SigningKey]) -> Says {
    let keys: Vec<_> = keys.iter().map(|key| key.public().to_json("sig")).collect();
    Says::Body(json!({ "keys": keys }).to_string())
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "payments", "sub": "s", "iat": NOW, "exp": NOW + 100_000})
}

fn profile() -> Profile {
    Profile::oidc(ISSUER, vec!["payments".to_owned()], Algorithm::ALL)
}

async fn verdict(cache: &Cache, key: &SigningKey, now: u64) -> Result<(), Unverified> {
    let token = sign(key, "JWT", &claims());
    cache.verify(&token, &profile(), at(now)).await.map(drop)
}

const UNKNOWN: Result<(), Unverified> = Err(Unverified::Refused(JwtError::UnknownKey));

#[track_caller]
fn assert_unavailable(verdict: Result<(), Unverified>, why: &str) {
    match verdict {
        Err(Unverified::Unavailable(error)) => {
            let error = error.to_string();
            assert!(error.contains(why), "{error}");
        }
        other => panic!("expected {why:?}: {other:?}"),
    }
}

/// Until the window is over, it is asked no more; then it has recovered.
async fn recovers(issuer: &Issuer, cache: &Cache) {
    let key = SigningKey::generate();
    issuer.says(jwks(&[&key]));
    let (asked, window) = (issuer.asked(), COOL_DOWN.as_secs());
    assert!(verdict(cache, &key, window - 1).await.is_err());
    assert_eq!(issuer.asked(), asked);
    assert_eq!(verdict(cache, &key, window).await, Ok(()));
    assert_eq!(issuer.asked(), asked + 1);
}

#[tokio::test]
async fn s10_an_issuer_that_is_away_is_503_and_works_again_seconds_after_it_is_back() {
    let head = |status: &str| Says::Head(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"));
    for (says, why) in [
        (head("502 Bad Gateway"), "502"),
        (head("404 Not Found"), "404"),
        (head("204 No Content"), "204"),
        (Says::Closes, "broke off"),
        (Says::Body("<html>".to_owned()), "no usable JWK set"),
        (Says::Body("{}".to_owned()), "no usable JWK set"),
    ] {
        let issuer = Issuer::start(says).await;
        let cache = issuer.cache();
        assert_unavailable(verdict(&cache, &SigningKey::generate(), 0).await, why);
        recovers(&issuer, &cache).await;
    }
}

#[tokio::test]
async fn s10_an_issuer_that_drips_or_hangs_is_given_up_at_the_deadline() {
    for says in [Says::Drips, Says::Hangs] {
        let issuer = Issuer::start(says).await;
        let cache = issuer.cache();
        let begun = Instant::now();
        let verdict = verdict(&cache, &SigningKey::generate(), 0).await;
        assert_unavailable(verdict, "no whole answer within 500ms");
        assert!(begun.elapsed() < Duration::from_secs(5));
        recovers(&issuer, &cache).await;
    }
}

#[tokio::test]
async fn s10_a_key_set_beyond_the_limit_is_503_however_its_length_is_told() {
    let length = MAX_JWKS_BYTES + 1;
    let announced = Says::Head(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"
    ));
    let body = " ".repeat(length);
    let unannounced = Says::Head(format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}"
    ));
    for says in [announced, unannounced] {
        let issuer = Issuer::start(says).await;
        let cache = issuer.cache();
        let verdict = verdict(&cache, &SigningKey::generate(), 0).await;
        assert_unavailable(verdict, "longer than 1048576 bytes");
        recovers(&issuer, &cache).await;
    }
}

#[tokio::test]
async fn s10_an_empty_key_set_is_a_refusal_and_one_fetch_a_window() {
    let issuer = Issuer::start(jwks(&[])).await;
    let cache = issuer.cache();
    for second in 0..COOL_DOWN.as_secs() {
        assert_eq!(
            verdict(&cache, &SigningKey::generate(), second).await,
            UNKNOWN
        );
    }
    assert_eq!(issuer.asked(), 1);
    recovers(&issuer, &cache).await;
}

#[tokio::test]
async fn s10_keys_overlap_while_an_issuer_rotates() {
    let (old, new) = (SigningKey::generate(), SigningKey::generate());
    let issuer = Issuer::start(jwks(&[&old])).await;
    let cache = issuer.cache();
    assert_eq!(verdict(&cache, &old, 0).await, Ok(()));
    issuer.says(jwks(&[&old, &new]));
    assert_eq!(verdict(&cache, &new, 60).await, Ok(()));
    assert_eq!(verdict(&cache, &old, 60).await, Ok(()));
    issuer.says(jwks(&[&new]));
    // The old one goes with the next fetch, which another unknown key brings about.
    assert_eq!(verdict(&cache, &SigningKey::generate(), 120).await, UNKNOWN);
    assert_eq!(verdict(&cache, &old, 120).await, UNKNOWN);
    assert_eq!(verdict(&cache, &new, 120).await, Ok(()));
    assert_eq!(issuer.asked(), 3);
}

#[tokio::test]
async fn s10_a_redirect_is_followed_nowhere_and_503() {
    let key = SigningKey::generate();
    let elsewhere = Issuer::start(jwks(&[&key])).await;
    for status in ["301", "302", "303", "307", "308"] {
        let (url, status) = (elsewhere.url(), format!("{status} Elsewhere"));
        let head = format!("HTTP/1.1 {status}\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n");
        let issuer = Issuer::start(Says::Head(head)).await;
        let cache = issuer.cache();
        assert_unavailable(verdict(&cache, &key, 0).await, "redirects are not followed");
        recovers(&issuer, &cache).await;
    }
    assert_eq!(elsewhere.asked(), 0);
}

#[tokio::test]
async fn s10_one_bad_issuer_keeps_no_other_waiting() {
    let key = SigningKey::generate();
    let (bad, good) = (
        Issuer::start(Says::Hangs).await,
        Issuer::start(jwks(&[&key])).await,
    );
    let (of_bad, of_good) = (bad.cache(), good.cache());
    let waiting = tokio::spawn({
        let key = SigningKey::generate();
        async move { verdict(&of_bad, &key, 0).await }
    });
    while bad.asked() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(verdict(&of_good, &key, 0).await, Ok(()));
    assert!(!waiting.is_finished(), "it was to hang meanwhile");
    assert_unavailable(waiting.await.unwrap(), "no whole answer");
}

#[tokio::test]
async fn s10_a_flood_of_unknown_kids_is_one_fetch() {
    let key = SigningKey::generate();
    let issuer = Issuer::start(jwks(&[&key])).await;
    let cache = issuer.cache();
    assert_eq!(cache.warm(at(0)).await, Ok(()));
    let flood: Vec<_> = (0..200)
        .map(|n| {
            let cache = cache.clone();
            let second = COOL_DOWN.as_secs() + n % COOL_DOWN.as_secs();
            tokio::spawn(async move { verdict(&cache, &SigningKey::generate(), second).await })
        })
        .collect();
    for one in flood {
        assert_eq!(one.await.unwrap(), UNKNOWN);
    }
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn s10_a_token_that_says_where_its_key_is_has_nobody_asked() {
    let key = SigningKey::generate();
    let named = Issuer::start(jwks(&[&key])).await;
    let issuer = Issuer::start(jwks(&[])).await;
    let cache = issuer.cache();
    let jwk = key.public().to_json("sig");
    for more in [
        json!({"jku": named.url()}),
        json!({"x5u": named.url()}),
        json!({"jwk": jwk}),
        json!({"x5c": ["AAAA"]}),
        json!({"jku": named.url(), "jwk": jwk}),
        json!({"kid": named.url(), "jku": named.url()}),
    ] {
        let mut header = json!({"alg": "ES256", "kid": key.public().kid(), "typ": "JWT"});
        for (name, value) in more.as_object().unwrap() {
            header[name] = value.clone();
        }
        let signed = [header, claims()]
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()))
            .join(".");
        let signature = URL_SAFE_NO_PAD.encode(key.sign_raw(signed.as_bytes()));
        let verdict = cache
            .verify(&format!("{signed}.{signature}"), &profile(), at(0))
            .await;
        let refused = matches!(verdict, Err(Unverified::Refused(JwtError::Header(_))));
        assert!(refused, "{verdict:?}");
    }
    assert_eq!((named.asked(), issuer.asked()), (0, 0));
}

#[tokio::test]
async fn s10_a_load_balancers_key_is_asked_for_by_its_name_within_limits() {
    const ALB: &str = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/f/1";
    let key = SigningKey::generate();
    let der = key.to_pkcs8().expose().as_slice().into();
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let region = Issuer::start(Says::Body(pair.public_key_pem())).await;
    let base = format!("http://{}", region.address);
    let keys = KeysByKid::new(Arc::new(AlbKeys::new(patient(), &base)));
    let profile = Profile::alb(ISSUER, vec![ALB.to_owned()], vec!["web".to_owned()]);
    let verdict = async |kid: &str, second: u64| {
        let header = json!({
            "alg": "ES256", "client": "web", "exp": NOW + 1_000, "iss": ISSUER, "kid": kid,
            "signer": ALB, "typ": "JWT",
        });
        let padded = base64::engine::general_purpose::URL_SAFE;
        let signed = [header, claims_of_alb()]
            .map(|part| padded.encode(part.to_string()))
            .join(".");
        let signature = padded.encode(key.sign_raw(signed.as_bytes()));
        let token = format!("{signed}.{signature}");
        keys.verify(&token, &profile, at(second)).await.map(drop)
    };
    let uuid = "12345678-1234-1234-1234-123456789012";
    assert_eq!(verdict(uuid, 0).await, Ok(()));
    assert_eq!(verdict(uuid, 1).await, Ok(()));
    assert_eq!(region.asked(), 1);
    assert_eq!(verdict("../../keys", 1).await, UNKNOWN);
    assert_eq!(region.asked(), 1);

    region.says(Says::Head(
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
    ));
    assert_eq!(verdict("none", 1).await, UNKNOWN);
    region.says(Says::Head(
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_owned(),
    ));
    assert_unavailable(verdict("forbidden", 1).await, "403");
    region.says(Says::Body(" ".repeat(5_000)));
    assert_unavailable(verdict("long", 1).await, "longer than 4096 bytes");
    for n in 0..20 {
        assert!(verdict(&format!("flood-{n}"), 2).await.is_err());
    }
    assert_eq!(region.asked(), FETCHES_A_WINDOW);
    assert_eq!(verdict(uuid, 3).await, Ok(()));
}

fn claims_of_alb() -> Value {
    json!({"sub": "someone", "email": "a@example.org", "exp": NOW + 1_000, "iss": ISSUER})
}

#[test]
fn a_regions_keys_are_where_aws_has_them() {
    let keys = AlbKeys::of_signer(
        fetcher(),
        "arn:aws:elasticloadbalancing:ap-northeast-1:123456789012:loadbalancer/app/a/b",
    );
    let base = "https://public-keys.auth.elb.ap-northeast-1.amazonaws.com";
    assert_eq!(keys.base(), base);
}

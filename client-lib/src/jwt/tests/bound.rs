//! Tokens that live too long, and tokens that are bound to a key.

use aws_lc_rs::digest;
use base64::engine::general_purpose::STANDARD;

use super::*;

const ISSUER: &str = "https://issuer.example";

fn access(change: impl FnOnce(&mut Profile), claims: Value) -> Result<Claims, JwtError> {
    let issuer = Issuer::new();
    let ours = vec!["payments".to_owned()];
    let mut profile = Profile::access_token(ISSUER, ours, Algorithm::ALL);
    change(&mut profile);
    let mut all = json!({
        "iss": ISSUER, "sub": "s", "aud": "payments", "iat": NOW, "exp": NOW + 300, "jti": "j",
        "client_id": "c",
    });
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    let token = sign(&issuer.key, "at+jwt", &all);
    verify(&token, &profile, &issuer.keys, at(NOW))
}

fn checking(profile: &mut Profile) {
    profile.confirmation = Confirmation::Certificate;
}

#[test]
fn a_token_bound_to_a_certificate_says_which() {
    // RFC 8705 appendix A.
    let certificate = "MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAxODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwIDSQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOVbUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=";
    let certificate = STANDARD.decode(certificate).unwrap();
    let claims = json!({"cnf": {"x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}});
    let claims = access(checking, claims).unwrap();
    let hash = digest::digest(&digest::SHA256, &certificate);
    assert_eq!(claims.certificate_thumbprint().unwrap(), hash.as_ref());
    let unbound = access(checking, json!({})).unwrap();
    assert_eq!(unbound.certificate_thumbprint(), None);
}

#[test]
fn s09_a_bound_token_is_no_bearer_token_where_nobody_holds_it_against_a_certificate() {
    let bound = json!({"cnf": {"x5t#S256": encode(&[7; 32])}});
    assert_eq!(
        access(|_| {}, bound.clone()).unwrap_err(),
        JwtError::Claim("it is bound to a key (cnf)")
    );
    assert!(access(checking, bound).is_ok());
}

#[test]
fn s09_a_token_bound_to_a_key_we_cannot_check_is_refused_as_a_bearer_token() {
    let thumbprint = encode(&[7; 32]);
    for cnf in [
        // RFC 9449 §6.1, RFC 7800 §3.
        json!({"jkt": thumbprint}),
        json!({"jwk": {"kty": "EC"}}),
        json!({"jwe": "x"}),
        json!({"kid": "k"}),
        json!({"jku": "https://issuer.example/keys"}),
        json!({"x5t": thumbprint}),
        json!({"x5t#S256": thumbprint, "jkt": thumbprint}),
        json!({"x5t#S256": thumbprint, "unheard-of": 1}),
        json!({}),
    ] {
        for change in [checking, |_: &mut Profile| {}] {
            let verdict = access(change, json!({"cnf": cnf}));
            assert!(matches!(verdict, Err(JwtError::Claim(_))), "{cnf}");
        }
    }
}

#[test]
fn s09_an_ill_typed_cnf_is_refused() {
    let good = encode(&[7; 32]);
    for cnf in [
        json!(null),
        json!("x"),
        json!([{"x5t#S256": good}]),
        json!({"x5t#S256": null}),
        json!({"x5t#S256": 7}),
        json!({"x5t#S256": [good]}),
        json!({"x5t#S256": ""}),
        json!({"x5t#S256": format!("{good}=")}),
        json!({"x5t#S256": encode(&[7; 31])}),
        json!({"x5t#S256": encode(&[7; 33])}),
        json!({"x5t#S256": "0".repeat(64)}),
        json!({"x5t#S256": good.replacen('B', "+", 1)}),
        // Left-over bits, as in the example of RFC 8705 §3.1, which is the hash of nothing.
        json!({"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}),
        json!({"x5t#S256": format!("{}d", &good[..42])}),
    ] {
        let verdict = access(checking, json!({"cnf": cnf}));
        assert!(matches!(verdict, Err(JwtError::Claim(_))), "{cnf}");
    }
}

#[test]
fn s09_a_token_that_lives_longer_than_allowed_is_refused() {
    let hour = Duration::from_secs(3_600);
    let within = |profile: &mut Profile| profile.max_lifetime = Some(hour);
    assert!(access(within, json!({"exp": NOW + 3_600})).is_ok());
    let long = JwtError::Claim("it lives longer than we allow");
    assert_eq!(
        access(within, json!({"exp": NOW + 3_601})).unwrap_err(),
        long
    );
    // Neither does one that is nearly over.
    let old = json!({"iat": NOW - 3_600, "exp": NOW + 1});
    assert_eq!(access(within, old).unwrap_err(), long);
    assert!(access(|_| {}, json!({"exp": NOW + 100_000_000})).is_ok());
}

#[test]
fn s09_a_lifetime_that_is_bounded_needs_an_iat() {
    let issuer = Issuer::new();
    let mut profile = svid_profile();
    let token = sign(&issuer.key, "JWT", &claims_with("iat", Value::Null));
    let judge = |profile: &Profile| verify(&token, profile, &issuer.keys, at(NOW)).map(drop);
    assert_eq!(judge(&profile), Ok(()));
    profile.max_lifetime = Some(Duration::from_secs(3_600));
    assert_eq!(judge(&profile), Err(JwtError::Claim("iat is missing")));
}

#[test]
fn the_skew_is_what_the_profile_says() {
    let wide = |profile: &mut Profile| profile.skew = Duration::from_secs(60);
    let none = |profile: &mut Profile| profile.skew = Duration::ZERO;
    let (late, early) = (json!({"exp": NOW - 59}), json!({"nbf": NOW + 60}));
    assert!(access(wide, late.clone()).is_ok());
    assert!(access(wide, early.clone()).is_ok());
    assert_eq!(access(|_| {}, late).unwrap_err(), JwtError::Expired);
    assert!(access(|_| {}, early).is_err());
    assert_eq!(
        access(none, json!({"exp": NOW})).unwrap_err(),
        JwtError::Expired
    );
    assert!(access(none, json!({"exp": NOW + 1, "nbf": NOW})).is_ok());
    assert!(access(none, json!({"nbf": NOW + 1})).is_err());
}

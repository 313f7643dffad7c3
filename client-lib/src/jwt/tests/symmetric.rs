//! HS256, and what would make a secret of a public key.

use aws_lc_rs::hmac;

use super::*;
use crate::Secret;

const ISSUER: &str = "https://issuer.example";

fn key(secret: &[u8]) -> HmacKey {
    HmacKey::new(&Secret::new(secret.to_vec())).unwrap()
}

fn profile() -> Profile {
    Profile::hs256(ISSUER, vec!["payments".to_owned()])
}

fn signed_with(secret: &[u8], header: &str) -> String {
    let claims = json!({"iss": ISSUER, "sub": "s", "aud": "payments", "exp": NOW + 300});
    let signed = [header, &claims.to_string()]
        .map(|part| encode(part.as_bytes()))
        .join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = encode(hmac::sign(&key, signed.as_bytes()).as_ref());
    format!("{signed}.{tag}")
}

fn judge(token: &str, keys: &[HmacKey]) -> Result<Claims, JwtError> {
    verify_hs256(token, &profile(), keys, at(NOW))
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

#[test]
fn either_of_two_live_secrets_verifies_and_no_third() {
    let (old, new, other) = ([1; 32], [2; 40], [3; 32]);
    let live = [key(&new), key(&old)];
    assert!(judge(&signed_with(&old, HEADER), &live).is_ok());
    assert!(judge(&signed_with(&new, HEADER), &live).is_ok());
    let third = judge(&signed_with(&other, HEADER), &live);
    assert_eq!(third.unwrap_err(), JwtError::Signature);
    let none = judge(&signed_with(&old, HEADER), &[]);
    assert_eq!(none.unwrap_err(), JwtError::Signature);
}

#[test]
fn a_kid_may_be_there_and_is_told() {
    let with_kid = r#"{"alg":"HS256","kid":"2026","typ":"JWT"}"#;
    let claims = judge(&signed_with(&[1; 32], with_kid), &[key(&[1; 32])]).unwrap();
    assert_eq!(claims.key_id, "2026");
    let claims = judge(&signed_with(&[1; 32], HEADER), &[key(&[1; 32])]).unwrap();
    assert_eq!(claims.key_id, "");
}

#[test]
fn s09_another_hmac_or_none_is_refused() {
    for alg in ["HS384", "HS512", "none", "ES256", "hs256"] {
        let token = signed_with(&[1; 32], &format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#));
        let error = judge(&token, &[key(&[1; 32])]).unwrap_err();
        assert_eq!(
            error,
            JwtError::Header("alg is not of this profile"),
            "{alg}"
        );
    }
}

#[test]
fn s09_a_cut_tag_is_refused() {
    let token = signed_with(&[1; 32], HEADER);
    let (signed, tag) = token.rsplit_once('.').unwrap();
    let tag = URL_SAFE_NO_PAD.decode(tag).unwrap();
    for cut in [&tag[..0], &tag[..16], &tag[..31]] {
        let token = format!("{signed}.{}", encode(cut));
        assert_eq!(
            judge(&token, &[key(&[1; 32])]).unwrap_err(),
            JwtError::Signature
        );
    }
}

#[test]
fn s09_a_secret_shorter_than_the_hash_is_refused() {
    for length in [0, 1, 16, 31] {
        let secret = Secret::new(vec![7; length]);
        assert!(
            matches!(HmacKey::new(&secret), Err(JwtError::Key(_))),
            "{length}"
        );
    }
    assert!(HmacKey::new(&Secret::new(vec![7; 32])).is_ok());
}

#[test]
fn s09_a_public_key_is_no_secret() {
    let public = SigningKey::generate().public().clone();
    let jwk = public.to_json("sig");
    for text in [
        "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n".to_owned(),
        "\n-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ\n-----END CERTIFICATE-----\n".to_owned(),
        jwk.to_string(),
        json!({"keys": [jwk]}).to_string(),
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8Y2e9b4dV1".to_owned(),
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY".to_owned(),
    ] {
        let error = HmacKey::new(&Secret::new(text.clone().into_bytes())).expect_err(&text);
        assert!(matches!(error, JwtError::Key(_)), "{text}");
    }
}

#[test]
fn s09_no_profile_of_key_pairs_takes_a_shared_secret_and_none_of_secrets_a_key_pair() {
    let issuer = Issuer::new();
    let claims =
        json!({"iss": ISSUER, "sub": ORDERS, "aud": "payments", "exp": NOW + 300, "iat": NOW});
    let by_key = sign(&issuer.key, "JWT", &claims);
    let by_secret = signed_with(&[1; 32], HEADER);
    let wrong = JwtError::Header("alg is not of this profile");
    let error = verify(&by_key, &profile(), &issuer.keys, at(NOW)).unwrap_err();
    assert_eq!(error, wrong);
    // Not even where somebody put algorithms into it.
    let mut widened = profile();
    widened.algorithms = Algorithm::ALL.into();
    let error = verify(&by_key, &widened, &issuer.keys, at(NOW)).unwrap_err();
    assert_eq!(error, wrong);

    let ours = || vec!["payments".to_owned()];
    for profile in [
        svid_profile(),
        Profile::oidc(ISSUER, ours(), Algorithm::ALL),
        Profile::cognito_id(ISSUER, ours()),
        Profile::kubernetes(ISSUER, ours()),
    ] {
        let error = verify_hs256(&by_secret, &profile, &[key(&[1; 32])], at(NOW)).unwrap_err();
        assert_eq!(error, wrong);
        assert!(verify(&by_secret, &profile, &issuer.keys, at(NOW)).is_err());
    }
}

#[test]
fn s09_a_symmetric_key_among_published_ones_is_ignored() {
    let set = json!({"keys": [{"kty": "oct", "kid": "k", "alg": "HS256", "k": encode(&[1; 32])}]});
    let keys = KeySet::of_issuer(set.to_string().as_bytes(), Algorithm::ALL).unwrap();
    assert_eq!(keys.iter().count(), 0);
}

#[test]
fn s12_a_shared_secret_does_not_show_in_debug() {
    assert_eq!(format!("{:?}", key(&[b'x'; 32])), "HmacKey(***)");
}

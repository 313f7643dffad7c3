//! What S9 lists, with tokens whose signature is valid.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::*;

/// A moment all tests agree on: 2026-11-20.
const NOW: u64 = 1_795_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn a_jwt_svid_verifies() {
    let key = SigningKey::generate();
    let token = sign(
        &key,
        "JWT",
        &json!({"sub": "spiffe://example.org/orders", "aud": ["payments"], "exp": NOW + 300,
                "iat": NOW, "scope": "a  b"}),
    );
    let keys = KeySet::new(vec![key.public().clone()]);
    let profile = Profile::jwt_svid(vec!["payments".to_owned()]);
    let claims = verify(&token, &profile, &keys, at(NOW)).unwrap();
    assert_eq!(claims.subject, "spiffe://example.org/orders");
    assert_eq!(claims.audiences, ["payments"]);
    assert_eq!(claims.scopes, ["a", "b"]);
    assert_eq!(claims.expires_at, at(NOW + 300));
    assert_eq!(claims.all.get("iat"), Some(&Value::from(NOW)));
}

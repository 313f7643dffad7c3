//! Tokens of other libraries, and ours at them: PyJWT, joserfc and go-jose, every algorithm, with the key sets each
//! publishes.

use std::{fs, time::SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;
use warifu::jwt::{self, Algorithm, JwtError, KeySet, Profile, PublicJwk, SigningKey};
use warifu_tests::peers;

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "payments";

/// Keys of ours, a token of each, and what the peers are to make, in a directory of their own.
fn ours() -> TempDir {
    let now = now();
    let keys = [SigningKey::generate(), SigningKey::generate_rsa()];
    let claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "signed by us", "iat": now, "exp": now + 600,
    });
    let algorithms: Vec<_> = Algorithm::ALL.iter().map(|it| it.name()).collect();
    let jwks: Vec<_> = keys.iter().map(|key| key.public().to_json("sig")).collect();
    let tokens = keys.map(|key| jwt::sign(&key, "JWT", &claims));
    let ours = json!({
        "issuer": ISSUER, "audience": AUDIENCE, "now": now, "algorithms": algorithms,
        "jwks": {"keys": jwks}, "tokens": tokens,
    });
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ours.json"), ours.to_string()).unwrap();
    dir
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// A library that `said` this reads our keys and believes our tokens, and we its.
fn agrees(library: &str, said: &Value) {
    assert_eq!(said["verified"], json!(["ES256", "RS256"]), "{library}");
    assert_eq!(said["deceived"], json!([]), "{library}");

    let published = said["jwks"].to_string();
    let keys = KeySet::of_issuer(published.as_bytes(), Algorithm::ALL).unwrap();
    let named: Vec<_> = keys.iter().map(PublicJwk::algorithm).collect();
    assert_eq!(named.len(), Algorithm::ALL.len(), "{library}: {published}");

    let tokens = said["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), Algorithm::ALL.len(), "{library}");
    for (algorithm, token) in Algorithm::ALL.iter().zip(tokens) {
        let token = token.as_str().unwrap();
        let name = algorithm.name();
        let pinned = |algorithms: &[Algorithm]| {
            let profile = Profile::oidc(ISSUER, vec![AUDIENCE.to_owned()], algorithms.to_vec());
            let keys = KeySet::of_issuer(published.as_bytes(), algorithms).unwrap();
            jwt::verify(token, &profile, &keys, SystemTime::now())
        };
        let claims = pinned(Algorithm::ALL).unwrap_or_else(|why| panic!("{library} {name}: {why}"));
        assert_eq!(claims.subject, format!("signed with {name}"), "{library}");
        assert_eq!(claims.id.as_deref(), Some(name), "{library}");
        // Its own algorithm alone will do, and all others but it will not.
        assert!(pinned(&[*algorithm]).is_ok(), "{library} {name}");
        let others: Vec<_> = Algorithm::ALL
            .iter()
            .copied()
            .filter(|it| it != algorithm)
            .collect();
        let why = pinned(&others).unwrap_err();
        assert_eq!(
            why,
            JwtError::Header("alg is not of this profile"),
            "{library} {name}"
        );

        // One character of its payload is another.
        let at = token.find('.').unwrap() + 10;
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
        let profile = Profile::oidc(ISSUER, vec![AUDIENCE.to_owned()], Algorithm::ALL);
        let why = jwt::verify(&changed, &profile, &keys, SystemTime::now()).unwrap_err();
        assert_eq!(why, JwtError::Signature, "{library} {name}");
    }
}

#[tokio::test]
async fn s09_tokens_of_pyjwt_and_joserfc_verify_by_every_algorithm_and_ours_at_them() {
    let dir = ours();
    let said = peers::run_python("jose.py", &[dir.path()])
        .await
        .unwrap()
        .json();
    agrees("PyJWT", &said["pyjwt"]);
    agrees("joserfc", &said["joserfc"]);
}

#[cfg(feature = "peers-go")]
#[tokio::test]
async fn s09_tokens_of_go_jose_verify_by_every_algorithm_and_ours_at_it() {
    let dir = ours();
    let said = peers::go("jose", dir.path(), &[]).await.unwrap().json();
    agrees("go-jose", &said);
}

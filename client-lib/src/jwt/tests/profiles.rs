//! Every deviation S9 lists, against every profile. What a profile lets pass is written in [`PASSES`]
//! and nowhere else.

use std::collections::BTreeSet;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};

use super::*;

const ISSUER: &str = "https://issuer.example";

fn profile(name: &str) -> Profile {
    match name {
        "jwt-svid" => svid_profile(),
        "internal" => Profile::internal(RECORD, ISSUER, "payments"),
        "aws-web-identity" => Profile::aws_web_identity(ISSUER, "payments"),
        "oidc" => Profile::oidc(ISSUER, "payments"),
        "access-token" => Profile::access_token(ISSUER, "payments"),
        other => panic!("no profile {other}"),
    }
}

/// Profile by profile, the deviations that pass; all others are refused.
const PASSES: &[(&str, &[&str])] = &[
    (
        "jwt-svid",
        &[
            "no typ",
            "typ JOSE",
            "no iss",
            "another iss",
            "two audiences",
            "no iat",
            "no jti",
            "no client_id",
        ],
    ),
    (
        "internal",
        &["two audiences", "no iat", "no jti", "no client_id"],
    ),
    ("aws-web-identity", &["no typ", "no jti", "no client_id"]),
    (
        "oidc",
        &[
            "no typ",
            "x5t",
            "fractional exp",
            "fractional iat",
            "no jti",
            "no client_id",
        ],
    ),
    ("access-token", &["two audiences", "typ application/at+jwt"]),
];

/// What a token is made of.
struct Parts {
    header: Value,
    claims: Value,
}

impl Parts {
    fn good(profile: &Profile, signer: &Signer) -> Self {
        Self {
            header: json!({"alg": signer.alg, "kid": "k", "typ": profile.typ[0]}),
            claims: json!({
                "iss": ISSUER, "sub": ORDERS, "aud": ["payments"], "iat": NOW, "nbf": NOW,
                "exp": NOW + 300, "jti": "j", "client_id": "c",
            }),
        }
    }

    fn sign(&self, signer: &Signer) -> String {
        signer.sign(&self.header.to_string(), &self.claims.to_string())
    }
}

/// A private key and the one algorithm it is used with, `kid` always `k`.
struct Signer {
    alg: &'static str,
    jwk: Value,
    sign: Box<Sign>,
}

type Sign = dyn Fn(&[u8]) -> Vec<u8>;

impl Signer {
    fn ours(key: SigningKey, alg: &'static str) -> Self {
        Self {
            alg,
            jwk: key.public().to_json("sig"),
            sign: Box::new(move |message| key.sign_raw(message)),
        }
    }

    fn es256() -> Self {
        Self::ours(SigningKey::generate(), "ES256")
    }

    fn rs256() -> Self {
        Self::ours(SigningKey::generate_rsa(), "RS256")
    }

    fn es384() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        Self {
            alg: "ES384",
            jwk: json!({
                "kty": "EC", "crv": "P-384", "x": encode(&point[1..49]), "y": encode(&point[49..]),
            }),
            sign: Box::new(move |message| {
                let signature = pair.sign(&SystemRandom::new(), message).unwrap();
                signature.as_ref().to_vec()
            }),
        }
    }

    fn eddsa() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        Self {
            alg: "EdDSA",
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())}),
            sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
        }
    }

    /// Its key as an issuer publishes it that leaves out `alg`.
    fn keys(&self, profile: &Profile) -> KeySet {
        let mut jwk = self.jwk.clone();
        let members = jwk.as_object_mut().unwrap();
        members.remove("alg");
        members.insert("kid".to_owned(), "k".into());
        let set = json!({"keys": [jwk]}).to_string();
        KeySet::of_issuer(set.as_bytes(), profile.algorithms).unwrap()
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!(
            "{}.{}",
            encode(header.as_bytes()),
            encode(claims.as_bytes())
        );
        let signature = encode(&(self.sign)(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// The signer that every profile takes, or RS256 where it doesn't take ES256.
fn signer(profile: &Profile) -> Signer {
    match profile.algorithms.contains(&Algorithm::ES256) {
        true => Signer::es256(),
        false => Signer::rs256(),
    }
}

/// A name, and the token that deviates so.
fn deviations(profile: &Profile, signer: &Signer) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let good = || Parts::good(profile, signer);
    let mut change = |name, part: &dyn Fn(&mut Parts) -> &mut Value, member: &str, value: Value| {
        let mut parts = good();
        let members = part(&mut parts).as_object_mut().unwrap();
        match value.is_null() {
            true => drop(members.remove(member)),
            false => drop(members.insert(member.to_owned(), value)),
        }
        all.push((name, parts.sign(signer)));
    };

    let header: &dyn Fn(&mut Parts) -> &mut Value = &|parts| &mut parts.header;
    for (name, member, value) in [
        ("crit", "crit", json!(["exp"])),
        ("b64", "b64", json!(true)),
        ("jku", "jku", json!("https://evil.example")),
        ("x5u", "x5u", json!("https://evil.example")),
        ("jwk", "jwk", signer.jwk.clone()),
        ("x5c", "x5c", json!(["AAAA"])),
        ("x5t", "x5t", json!("AAAA")),
        ("no typ", "typ", Value::Null),
        ("typ JOSE", "typ", json!("JOSE")),
        ("typ application/at+jwt", "typ", json!("application/at+jwt")),
        ("typ dpop+jwt", "typ", json!("dpop+jwt")),
        ("typ wit+jwt", "typ", json!("wit+jwt")),
        ("typ in capitals", "typ", json!("AT+JWT")),
        ("typ number", "typ", json!(7)),
        ("alg none", "alg", json!("none")),
        ("alg HS256", "alg", json!("HS256")),
        ("alg of another key", "alg", json!("PS256")),
        ("alg missing", "alg", Value::Null),
        ("kid missing", "kid", Value::Null),
        ("kid unknown", "kid", json!("../k")),
    ] {
        change(name, header, member, value);
    }

    let claims: &dyn Fn(&mut Parts) -> &mut Value = &|parts| &mut parts.claims;
    for (name, member, value) in [
        ("no iss", "iss", Value::Null),
        ("another iss", "iss", json!("https://issuer.example/")),
        ("iss number", "iss", json!(7)),
        ("no aud", "aud", Value::Null),
        ("another aud", "aud", json!("orders")),
        ("no audience", "aud", json!([])),
        ("two audiences", "aud", json!(["payments", "orders"])),
        ("aud number", "aud", json!(7)),
        ("aud with a number", "aud", json!(["payments", 7])),
        ("aud object", "aud", json!({"payments": 1})),
        ("no exp", "exp", Value::Null),
        ("expired", "exp", json!(NOW - 5)),
        ("fractional exp", "exp", json!(NOW as f64 + 300.5)),
        ("exp text", "exp", json!("9999999999")),
        ("exp huge", "exp", json!(1e308)),
        ("exp negative", "exp", json!(-1)),
        ("future nbf", "nbf", json!(NOW + 6)),
        ("nbf text", "nbf", json!("0")),
        ("future iat", "iat", json!(NOW + 6)),
        ("no iat", "iat", Value::Null),
        ("fractional iat", "iat", json!(NOW as f64 - 0.5)),
        ("iat text", "iat", json!("0")),
        ("no sub", "sub", Value::Null),
        ("sub empty", "sub", json!("")),
        ("sub number", "sub", json!(7)),
        ("sub too long", "sub", json!("s".repeat(2_049))),
        ("no jti", "jti", Value::Null),
        ("jti number", "jti", json!(7)),
        ("jti empty", "jti", json!("")),
        ("no client_id", "client_id", Value::Null),
        ("scope list", "scope", json!(["a"])),
        ("longer than 8 KiB", "more", json!("x".repeat(8 * 1024))),
    ] {
        change(name, claims, member, value);
    }

    let text = good();
    let (header, claims) = (text.header.to_string(), text.claims.to_string());
    let twice = |json: &str, member: &str| json.replacen('{', &format!("{{{member},"), 1);
    let signed = good().sign(signer);
    all.extend([
        (
            "header member twice",
            signer.sign(&twice(&header, r#""kid":"k""#), &claims),
        ),
        (
            "claim twice",
            signer.sign(&header, &twice(&claims, r#""exp":9999999999"#)),
        ),
        (
            "other claim twice",
            signer.sign(&header, &twice(&twice(&claims, r#""x":1"#), r#""x":2"#)),
        ),
        (
            "signed by another",
            Parts::good(profile, signer).sign(&self::signer(profile)),
        ),
        ("padded", format!("{signed}=")),
        ("four parts", format!("{signed}.")),
        ("a space", format!("{signed} ")),
        ("zero signature", {
            let (rest, signature) = signed.rsplit_once('.').unwrap();
            let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap().len();
            format!("{rest}.{}", encode(&vec![0; bytes]))
        }),
    ]);
    all
}

#[test]
fn s09_each_profile_lets_pass_what_the_table_says_and_no_more() {
    for (name, passes) in PASSES {
        let profile = profile(name);
        let signer = signer(&profile);
        let keys = signer.keys(&profile);
        let judge = |token: &str| verify(token, &profile, &keys, at(NOW));

        let good = judge(&Parts::good(&profile, &signer).sign(&signer)).expect(name);
        assert_eq!(good.issued_at, Some(at(NOW)));
        assert_eq!(good.id.as_deref(), Some("j"));

        let deviations = deviations(&profile, &signer);
        let passed: BTreeSet<_> = deviations
            .iter()
            .filter(|(_, token)| judge(token).is_ok())
            .map(|(deviation, _)| *deviation)
            .collect();
        assert_eq!(passed, passes.iter().copied().collect(), "{name}");
    }
}

#[test]
fn s09_each_profile_takes_its_own_algorithms_only() {
    for (name, expected) in [
        ("jwt-svid", vec!["ES256", "RS256", "ES384"]),
        ("internal", vec!["ES256"]),
        ("aws-web-identity", vec!["RS256", "ES384"]),
        ("oidc", vec!["ES256", "RS256", "ES384", "EdDSA"]),
        ("access-token", vec!["ES256", "RS256", "ES384"]),
    ] {
        let profile = profile(name);
        let signers = [
            Signer::es256(),
            Signer::rs256(),
            Signer::es384(),
            Signer::eddsa(),
        ];
        let mut taken = Vec::new();
        for signer in &signers {
            let token = Parts::good(&profile, signer).sign(signer);
            // Also where the key is at hand, as it is for a profile that shares its issuer's keys.
            let all = signer.keys(&Profile::oidc(ISSUER, ""));
            if verify(&token, &profile, &all, at(NOW)).is_ok() {
                taken.push(signer.alg);
                let own = signer.keys(&profile);
                assert!(verify(&token, &profile, &own, at(NOW)).is_ok());
            }
        }
        assert_eq!(taken, expected, "{name}");
    }
}

#[test]
fn s09_no_token_of_one_profile_is_one_of_another_but_those_that_go_by_typ_jwt() {
    let names = [
        "jwt-svid",
        "internal",
        "aws-web-identity",
        "oidc",
        "access-token",
    ];
    let signer = Signer::rs256();
    for (a, b) in names.iter().flat_map(|a| names.map(|b| (*a, b))) {
        let token = Parts::good(&profile(a), &signer).sign(&signer);
        let keys = signer.keys(&profile("oidc"));
        let is_taken = verify(&token, &profile(b), &keys, at(NOW)).is_ok();
        let by_typ_jwt = |name| ["jwt-svid", "aws-web-identity", "oidc"].contains(&name);
        // Nothing but ES256 is a document of ours.
        let expected = b != "internal" && (a == b || by_typ_jwt(a) && by_typ_jwt(b));
        assert_eq!(is_taken, expected, "{a} as {b}");
    }
}

#[test]
fn s09_a_key_without_alg_has_the_first_pinned_one_that_fits_it() {
    let rsa = Signer::rs256();
    let mut jwk = rsa.jwk.clone();
    jwk.as_object_mut().unwrap().remove("alg");
    let set = |jwk: &Value| json!({ "keys": [jwk] }).to_string();
    let algorithm = |jwk: &Value, pinned: &[Algorithm]| {
        let keys = KeySet::of_issuer(set(jwk).as_bytes(), pinned).unwrap();
        keys.iter().next().map(PublicJwk::algorithm)
    };
    use Algorithm::{ES256, ES384, PS256, RS256};
    assert_eq!(algorithm(&jwk, &[RS256, ES384]), Some(RS256));
    assert_eq!(algorithm(&jwk, &[ES256, PS256, RS256]), Some(PS256));
    assert_eq!(algorithm(&jwk, &[ES256, ES384]), None);
    // One that names another than those pinned is ignored, too.
    assert_eq!(algorithm(&rsa.jwk, &[PS256]), None);
    assert_eq!(algorithm(&rsa.jwk, &[PS256, RS256]), Some(RS256));
}

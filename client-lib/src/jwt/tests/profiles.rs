//! Every deviation S9 lists, against every profile. What a profile lets pass is written in [`PASSES`]
//! and nowhere else.

use std::collections::BTreeSet;

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};

use base64::engine::general_purpose::URL_SAFE;

use super::*;
use crate::Secret;

const ISSUER: &str = "https://issuer.example";

const CLIENT: &str = "3jcqu9bhtcn5a1cdn2lv2jcr8e";
const ALB: &str =
    "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188";

fn profile(name: &str) -> Profile {
    let ours = || vec!["payments".to_owned()];
    match name {
        "jwt-svid" => svid_profile(),
        "internal" => Profile::internal(RECORD, ISSUER, "payments"),
        "aws-web-identity" => Profile::aws_web_identity(ISSUER, "payments"),
        "oidc-evidence" => Profile::oidc_evidence(ISSUER, "payments"),
        "oidc" => Profile::oidc(ISSUER, ours(), Algorithm::ALL),
        "at+jwt" => Profile::access_token(ISSUER, ours(), JWT_SVID),
        "cognito-access" => Profile::cognito_access(ISSUER, vec![CLIENT.to_owned()]),
        "cognito-id" => Profile::cognito_id(ISSUER, ours()),
        "alb" => Profile::alb(ISSUER, vec![ALB.to_owned()], vec![CLIENT.to_owned()]),
        "kubernetes" => Profile::kubernetes(ISSUER, ours()),
        "hs256" => Profile::hs256(ISSUER, ours()),
        other => panic!("no profile {other}"),
    }
}

/// What an issuer of access tokens may pin.
const JWT_SVID: &[Algorithm] = &[Algorithm::ES256, Algorithm::ES384, Algorithm::RS256];

/// What all let pass that look at nothing but what S9 says: a claim the profile has no use for.
const UNREAD: &[&str] = &[
    "no jti",
    "no client_id",
    "another client_id",
    "client_id number",
    "no token_use",
    "another token_use",
    "sub of another service account",
    "no kubernetes.io",
];

/// Profile by profile, the deviations that pass beside [`UNREAD`], and those of them that don't; all others are
/// refused.
const PASSES: &[(&str, &[&str], &[&str])] = &[
    (
        "jwt-svid",
        &[
            "no typ",
            "typ JOSE",
            "no iss",
            "another iss",
            "two audiences",
            "no iat",
        ],
        // No service account is a SPIFFE ID.
        &["sub of another service account"],
    ),
    (
        "internal",
        &[
            "two audiences",
            "no iat",
            "cnf",
            "cnf.jwk",
            "cnf.jkt",
            "cnf list",
        ],
        &[],
    ),
    ("aws-web-identity", &["no typ"], &[]),
    (
        "oidc-evidence",
        &["no typ", "x5t", "fractional exp", "fractional iat"],
        &[],
    ),
    (
        "oidc",
        &[
            "no typ",
            "x5t",
            "fractional exp",
            "fractional iat",
            "two audiences",
        ],
        &[],
    ),
    (
        "at+jwt",
        &["two audiences", "typ application/at+jwt", "x5t"],
        &["no jti", "no client_id", "client_id number"],
    ),
    (
        "cognito-access",
        &["no typ", "no aud"],
        &[
            "no client_id",
            "another client_id",
            "client_id number",
            "no token_use",
            "another token_use",
        ],
    ),
    (
        "cognito-id",
        &["no typ"],
        &["no token_use", "another token_use"],
    ),
    // Its `exp` and `iss` are in the header, too; where the payload has them, they count.
    ("alb", &["no iat", "no aud", "no iss", "no exp"], &[]),
    (
        "kubernetes",
        &["no typ", "two audiences"],
        &["sub of another service account", "no kubernetes.io"],
    ),
    (
        "hs256",
        &[
            "no typ",
            "two audiences",
            "no iat",
            "kid missing",
            "kid unknown",
        ],
        &[],
    ),
];

/// What a token is made of.
#[derive(PartialEq)]
struct Parts {
    header: Value,
    claims: Value,
    padded: bool,
}

impl Parts {
    fn good(profile: &Profile, signer: &Signer) -> Self {
        let mut header = json!({"alg": signer.alg, "kid": "k", "typ": profile.typ[0]});
        if profile.typ[0].is_empty() {
            header["typ"] = json!("JWT");
        }
        let mut claims = json!({
            "iss": ISSUER, "sub": ORDERS, "aud": ["payments"], "iat": NOW, "nbf": NOW,
            "exp": NOW + 300, "jti": "j", "client_id": CLIENT,
            "token_use": profile.token_use.unwrap_or("access"),
            "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "orders"}},
        });
        match profile.subject {
            SubjectRule::ServiceAccount => {
                claims["sub"] = json!("system:serviceaccount:shop:orders")
            }
            SubjectRule::Text | SubjectRule::SpiffeId => {}
        }
        if profile.audience_rule == AudienceRule::MayBeAbsent {
            claims.as_object_mut().unwrap().remove("aud");
        }
        if profile.load_balancer.is_some() {
            header["iss"] = json!(ISSUER);
            header["client"] = json!(CLIENT);
            header["signer"] = json!(ALB);
            header["exp"] = json!(NOW + 300);
        }
        let padded = profile.load_balancer.is_some();
        Self {
            header,
            claims,
            padded,
        }
    }

    fn sign(&self, signer: &Signer) -> String {
        self.sign_text(signer, &self.header.to_string(), &self.claims.to_string())
    }

    fn sign_text(&self, signer: &Signer, header: &str, claims: &str) -> String {
        let signed = [header, claims]
            .map(|part| self.encode(part.as_bytes()))
            .join(".");
        let signature = self.encode(&(signer.sign)(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn encode(&self, bytes: &[u8]) -> String {
        match self.padded {
            true => URL_SAFE.encode(bytes),
            false => encode(bytes),
        }
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
        KeySet::of_issuer(set.as_bytes(), &profile.algorithms).unwrap()
    }

    /// What its verifier says at [`NOW`].
    fn judge(&self, profile: &Profile, token: &str) -> Result<Claims, JwtError> {
        match profile.symmetric {
            true => verify_hs256(token, profile, &[secret()], at(NOW)),
            false => verify(token, profile, &self.keys(profile), at(NOW)),
        }
    }

    fn hs256() -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &SECRET);
        Self {
            alg: "HS256",
            jwk: json!({"kty": "oct", "k": encode(&SECRET)}),
            sign: Box::new(move |message| hmac::sign(&key, message).as_ref().to_vec()),
        }
    }
}

const SECRET: [u8; 32] = *b"a secret of thirty-two bytes, ok";

fn secret() -> HmacKey {
    HmacKey::new(&Secret::new(SECRET.to_vec())).unwrap()
}

/// The signer that every profile takes, or RS256 where it doesn't take ES256.
fn signer(profile: &Profile) -> Signer {
    match profile.algorithms.contains(&Algorithm::ES256) {
        _ if profile.symmetric => Signer::hs256(),
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
        // What all are like is no deviation.
        if parts != good() {
            all.push((name, parts.sign(signer)));
        }
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
        ("no signer", "signer", Value::Null),
        (
            "another signer",
            "signer",
            json!(ALB.replace("front", "back")),
        ),
        ("signer list", "signer", json!([ALB])),
        ("no client", "client", Value::Null),
        ("another client", "client", json!("c")),
        ("no iss in the header", "iss", Value::Null),
        (
            "another iss in the header",
            "iss",
            json!("https://other.example"),
        ),
        ("no exp in the header", "exp", Value::Null),
        ("exp text in the header", "exp", json!("9999999999")),
        ("expired in the header", "exp", json!(NOW - 5)),
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
        ("another client_id", "client_id", json!("c")),
        ("client_id number", "client_id", json!(7)),
        ("no token_use", "token_use", Value::Null),
        ("another token_use", "token_use", json!("refresh")),
        (
            "sub of another service account",
            "sub",
            json!("system:serviceaccount:shop:payments"),
        ),
        ("no kubernetes.io", "kubernetes.io", Value::Null),
        ("cnf", "cnf", json!({"x5t#S256": encode(&[7; 32])})),
        ("cnf.jkt", "cnf", json!({"jkt": encode(&[7; 32])})),
        ("cnf.jwk", "cnf", json!({"jwk": signer.jwk})),
        ("cnf list", "cnf", json!([])),
        ("scope list", "scope", json!(["a"])),
        ("longer than 8 KiB", "more", json!("x".repeat(8 * 1024))),
    ] {
        change(name, claims, member, value);
    }

    let text = good();
    let (header, claims) = (text.header.to_string(), text.claims.to_string());
    let twice = |json: &str, member: &str| json.replacen('{', &format!("{{{member},"), 1);
    let sign = |header: &str, claims: &str| text.sign_text(signer, header, claims);
    let signed = good().sign(signer);
    let otherwise = Parts {
        padded: !text.padded,
        ..good()
    };
    all.extend([
        (
            "header member twice",
            sign(&twice(&header, r#""kid":"k""#), &claims),
        ),
        (
            "claim twice",
            sign(&header, &twice(&claims, r#""sub":"someone""#)),
        ),
        (
            "other claim twice",
            sign(&header, &twice(&twice(&claims, r#""x":1"#), r#""x":2"#)),
        ),
        ("signed by another", {
            let another = match profile.symmetric {
                true => Signer::es256(),
                false => self::signer(profile),
            };
            good().sign(&another)
        }),
        ("padded", format!("{signed}=")),
        ("padded otherwise", otherwise.sign(signer)),
        ("four parts", format!("{signed}.")),
        ("a space", format!("{signed} ")),
        ("zero signature", {
            let (rest, signature) = signed.rsplit_once('.').unwrap();
            let bytes = URL_SAFE_NO_PAD.decode(signature.trim_end_matches('='));
            format!("{rest}.{}", text.encode(&vec![0; bytes.unwrap().len()]))
        }),
        ("no signature", {
            let (rest, _) = signed.rsplit_once('.').unwrap();
            format!("{rest}.")
        }),
    ]);
    all
}

#[test]
fn s09_each_profile_lets_pass_what_the_table_says_and_no_more() {
    let mut wrong = Vec::new();
    for (name, passes, all_but) in PASSES {
        let profile = profile(name);
        let signer = signer(&profile);

        let good = signer.judge(&profile, &Parts::good(&profile, &signer).sign(&signer));
        let good = good.expect(name);
        assert_eq!(good.issued_at, Some(at(NOW)));
        assert_eq!(good.id.as_deref(), Some("j"));

        let deviations = deviations(&profile, &signer);
        let there: BTreeSet<_> = deviations.iter().map(|(name, _)| *name).collect();
        let passed: BTreeSet<_> = deviations
            .iter()
            .filter(|(_, token)| signer.judge(&profile, token).is_ok())
            .map(|(deviation, _)| *deviation)
            .collect();
        let unread = UNREAD.iter().filter(|it| !all_but.contains(it));
        let expected = passes.iter().chain(unread).copied();
        let expected: BTreeSet<_> = expected.filter(|it| there.contains(it)).collect();
        let otherwise = passed.symmetric_difference(&expected);
        wrong.extend(otherwise.map(|deviation| format!("{name}: {deviation}")));
    }
    assert!(wrong.is_empty(), "other than the table says: {wrong:#?}");
}

#[test]
fn s09_each_profile_takes_its_own_algorithms_only() {
    for (name, expected) in [
        ("jwt-svid", vec!["ES256", "RS256", "ES384"]),
        ("internal", vec!["ES256"]),
        ("aws-web-identity", vec!["RS256", "ES384"]),
        ("oidc-evidence", vec!["ES256", "RS256", "ES384", "EdDSA"]),
        ("oidc", vec!["ES256", "RS256", "ES384", "EdDSA"]),
        ("at+jwt", vec!["ES256", "RS256", "ES384"]),
        ("cognito-access", vec!["RS256"]),
        ("cognito-id", vec!["RS256"]),
        ("alb", vec!["ES256"]),
        ("kubernetes", vec!["ES256", "RS256", "ES384"]),
        ("hs256", vec![]),
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
            let all = signer.keys(&Profile::oidc_evidence(ISSUER, ""));
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
    // All by one issuer with one RSA key, which none of `internal`, `alb` and `hs256` takes.
    let signer = Signer::rs256();
    let with_aud = [
        "jwt-svid",
        "aws-web-identity",
        "oidc-evidence",
        "oidc",
        "cognito-id",
        "hs256",
    ];
    for ((a, ..), (b, ..)) in PASSES
        .iter()
        .flat_map(|a| PASSES.iter().map(move |b| (a, b)))
    {
        let token = Parts::good(&profile(a), &signer).sign(&signer);
        let keys = signer.keys(&profile("oidc"));
        let is_taken = verify(&token, &profile(b), &keys, at(NOW)).is_ok();
        let expected = match *b {
            "internal" | "alb" | "hs256" => false,
            "jwt-svid" => with_aud.contains(a),
            "aws-web-identity" | "oidc-evidence" | "oidc" => {
                with_aud.contains(a) || *a == "kubernetes"
            }
            // What else they pin tells theirs from all others.
            _ => a == b,
        };
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

//! The header: pinned by the profile and by the key, and it fetches nothing.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa,
    signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaEncoding},
};

use super::*;

#[track_caller]
fn assert_header_refused(header: &str) {
    // Its signature is over this very header; only `kid` is put in.
    let issuer = Issuer::new();
    let header = header.replace("KID", issuer.key.public().kid());
    let error = issuer.judge_header(&header).expect_err(&header);
    assert!(matches!(error, JwtError::Header(_)), "{header}: {error}");
}

#[test]
fn a_header_of_alg_and_kid_and_the_typs_of_a_jwt_svid_are_accepted() {
    let issuer = Issuer::new();
    for more in ["", r#""typ":"JWT""#, r#""typ":"JOSE""#] {
        let verdict = issuer.judge_header(&issuer.header(more));
        assert!(verdict.is_ok(), "{more}: {verdict:?}");
    }
}

#[test]
fn s09_crit_is_refused() {
    for more in [
        r#""crit":["x-unknown"],"x-unknown":1"#,
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""crit":null"#,
    ] {
        assert_header_refused(&format!(r#"{{"alg":"ES256","kid":"KID",{more}}}"#));
    }
}

#[test]
fn s09_an_unencoded_payload_is_refused() {
    assert_header_refused(r#"{"alg":"ES256","kid":"KID","b64":false,"crit":["b64"]}"#);
    assert_header_refused(r#"{"alg":"ES256","kid":"KID","b64":false}"#);
    assert_header_refused(r#"{"alg":"ES256","kid":"KID","b64":true,"crit":["b64"]}"#);
}

#[test]
fn s09_the_wrong_typ_is_refused() {
    for typ in [
        r#""dpop+jwt""#,
        r#""wit+jwt""#,
        r#""at+jwt""#,
        r#""warifu-record+jwt""#,
        r#""warifu-context+jwt""#,
        r#""jwt""#,
        r#""application/JWT""#,
        r#""""#,
        r#"" JWT""#,
        "null",
        "7",
        r#"["JWT"]"#,
    ] {
        assert_header_refused(&format!(r#"{{"alg":"ES256","kid":"KID","typ":{typ}}}"#));
    }
}

#[test]
fn s09_a_document_of_ours_without_typ_is_refused() {
    let issuer = Issuer::new();
    let claims = json!({"sub": ORDERS, "iss": AUTHORITY, "aud": AUTHORITY, "exp": NOW + 300});
    let token = issuer.sign_text(&issuer.header(""), claims.to_string().as_bytes());
    let profile = Profile::internal(RECORD, AUTHORITY, AUTHORITY);
    let error = verify(&token, &profile, &issuer.keys, at(NOW)).unwrap_err();
    assert_eq!(error, JwtError::Header("typ is not of this profile"));
}

#[test]
fn s10_a_header_that_brings_or_names_its_own_key_is_refused() {
    for more in [
        r#""jku":"https://attacker.example/keys""#,
        r#""x5u":"https://attacker.example/cert""#,
        r#""jwk":{"kty":"EC"}"#,
        r#""x5c":["MIIB"]"#,
        r#""x5t":"AAAA""#,
        r#""x5t#S256":"AAAA""#,
        r#""cty":"JWT""#,
        r#""zip":"DEF""#,
        r#""x-anything":1"#,
    ] {
        assert_header_refused(&format!(r#"{{"alg":"ES256","kid":"KID",{more}}}"#));
    }
}

#[test]
fn s09_an_algorithm_the_profile_does_not_pin_is_refused() {
    for alg in [
        r#""none""#,
        r#""None""#,
        r#""NONE""#,
        r#""""#,
        r#""HS256""#,
        r#""HS512""#,
        r#""EdDSA""#,
        r#""ES256K""#,
        r#""es256""#,
        r#""ES256 ""#,
        "null",
        "1",
        r#"["ES256"]"#,
    ] {
        assert_header_refused(&format!(r#"{{"alg":{alg},"kid":"KID"}}"#));
    }
    assert_header_refused(r#"{"kid":"KID"}"#);
}

#[test]
fn s09_an_algorithm_that_is_not_that_of_the_key_is_refused() {
    for alg in ["ES384", "ES512", "RS256", "PS256"] {
        assert_header_refused(&format!(r#"{{"alg":"{alg}","kid":"KID"}}"#));
    }
}

#[test]
fn s09_an_unsigned_token_is_refused() {
    let issuer = Issuer::new();
    let header =
        encode(format!(r#"{{"alg":"none","kid":"{}"}}"#, issuer.key.public().kid()).as_bytes());
    let payload = encode(good_claims().to_string().as_bytes());
    for token in [
        format!("{header}.{payload}."),
        format!("{header}.{payload}.AA"),
    ] {
        let error = issuer.judge(&token).unwrap_err();
        assert_eq!(error, JwtError::Header("alg is not of this profile"));
    }
}

#[test]
fn s09_an_hmac_with_the_public_key_as_secret_is_refused() {
    let issuer = Issuer::new();
    let kid = issuer.key.public().kid();
    let jwk = issuer.key.public().to_json("jwt-svid").to_string();
    let header = encode(format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#).as_bytes());
    let signed = format!("{header}.{}", encode(good_claims().to_string().as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, jwk.as_bytes());
    let token = format!(
        "{signed}.{}",
        encode(hmac::sign(&key, signed.as_bytes()).as_ref())
    );
    let error = issuer.judge(&token).unwrap_err();
    assert_eq!(error, JwtError::Header("alg is not of this profile"));
}

#[test]
fn s09_a_kid_that_is_missing_ill_typed_or_strange_is_refused() {
    assert_header_refused(r#"{"alg":"ES256"}"#);
    for kid in ["null", "7", "[]", "{}"] {
        assert_header_refused(&format!(r#"{{"alg":"ES256","kid":{kid}}}"#));
    }
    let issuer = Issuer::new();
    let long = "k".repeat(5_000);
    for kid in [
        "",
        "../../etc/passwd",
        "' OR 1=1 --",
        r"\u0000",
        "https://attacker.example/k",
        &long,
    ] {
        let header = format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#);
        let error = issuer.judge_header(&header).unwrap_err();
        assert_eq!(error, JwtError::UnknownKey, "{kid}");
    }
    let longer = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(10 * 1024));
    let error = issuer.judge_header(&longer).unwrap_err();
    assert_eq!(error, JwtError::Malformed("longer than 8 KiB"));
}

#[test]
fn s09_an_ill_typed_thumbprint_is_refused_though_nobody_looks_at_it() {
    let issuer = Issuer::new();
    let profile = Profile::oidc("i", vec!["payments".to_owned()], Algorithm::ALL);
    let claims = claims_with("iss", json!("i")).to_string();
    let judge = |more: &str| {
        let token = issuer.sign_text(&issuer.header(more), claims.as_bytes());
        verify(&token, &profile, &issuer.keys, at(NOW)).map(drop)
    };
    assert_eq!(judge(r#""x5t":"AAAA","x5t#S256":"AAAA""#), Ok(()));
    for more in [r#""x5t":7"#, r#""x5t":null"#, r#""x5t#S256":["AAAA"]"#] {
        let why = JwtError::Header("a thumbprint is not a string");
        assert_eq!(judge(more), Err(why), "{more}");
    }
}

#[test]
fn s09_an_rsa_key_is_used_with_one_algorithm_only() {
    let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let public = pair.public_key();
    let jwk = |alg: &str| {
        let (n, e) = (public.modulus(), public.exponent());
        json!({
            "kty": "RSA", "kid": "r", "alg": alg,
            "n": encode(n.big_endian_without_leading_zero()),
            "e": encode(e.big_endian_without_leading_zero()),
        })
    };
    let token = |alg: &str, padding: &'static dyn RsaEncoding| {
        let header = encode(format!(r#"{{"alg":"{alg}","kid":"r"}}"#).as_bytes());
        let signed = format!("{header}.{}", encode(good_claims().to_string().as_bytes()));
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(
            padding,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        )
        .unwrap();
        format!("{signed}.{}", encode(&signature))
    };
    let judge = |token: &str, alg: &str| {
        let keys = KeySet::new(vec![PublicJwk::from_json(&jwk(alg)).unwrap()]);
        verify(token, &svid_profile(), &keys, at(NOW)).map(drop)
    };
    let rs256 = token("RS256", &RSA_PKCS1_SHA256);
    let ps256 = token("PS256", &aws_lc_rs::signature::RSA_PSS_SHA256);
    let not_of_the_key = Err(JwtError::Header("alg is not that of the key"));
    assert_eq!(judge(&rs256, "RS256"), Ok(()));
    assert_eq!(judge(&rs256, "PS256"), not_of_the_key);
    assert_eq!(judge(&rs256, "RS512"), not_of_the_key);
    assert_eq!(judge(&ps256, "PS256"), Ok(()));
    assert_eq!(judge(&ps256, "RS256"), not_of_the_key);
    // A lying header over the other padding.
    let lie = token("RS256", &aws_lc_rs::signature::RSA_PSS_SHA256);
    assert_eq!(judge(&lie, "RS256"), Err(JwtError::Signature));
}

#[test]
fn s09_eddsa_is_no_algorithm_of_a_jwt_svid() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let jwk = json!({
        "kty": "OKP", "crv": "Ed25519", "kid": "e", "x": encode(pair.public_key().as_ref()),
    });
    let keys = KeySet::new(vec![PublicJwk::from_json(&jwk).unwrap()]);
    let header = encode(br#"{"alg":"EdDSA","kid":"e"}"#);
    let signed = format!("{header}.{}", encode(good_claims().to_string().as_bytes()));
    let token = format!("{signed}.{}", encode(pair.sign(signed.as_bytes()).as_ref()));
    let error = verify(&token, &svid_profile(), &keys, at(NOW)).unwrap_err();
    assert_eq!(error, JwtError::Header("alg is not of this profile"));
    // It is the profile that refuses it.
    let mut profile = svid_profile();
    profile.algorithms = vec![Algorithm::EdDSA].into();
    assert!(verify(&token, &profile, &keys, at(NOW)).is_ok());
}

//! The compact serialisation: exactly one spelling of it.

use proptest::{prelude::*, sample::Index};

use super::*;

fn good() -> (Issuer, String) {
    let issuer = Issuer::new();
    let token = sign(&issuer.key, "JWT", &good_claims());
    (issuer, token)
}

#[track_caller]
fn assert_malformed(issuer: &Issuer, token: &str) {
    let error = issuer.judge(token).expect_err(token);
    assert!(matches!(error, JwtError::Malformed(_)), "{token}: {error}");
}

/// A valid token of exactly this many bytes, or one more where base64 has none of that length.
fn token_of(issuer: &Issuer, bytes: usize) -> String {
    let empty = sign(&issuer.key, "JWT", &claims_with("pad", json!("")));
    let pad = (bytes - empty.len()) / 4 * 3;
    (pad.saturating_sub(4)..)
        .map(|pad| {
            sign(
                &issuer.key,
                "JWT",
                &claims_with("pad", json!("x".repeat(pad))),
            )
        })
        .find(|token| token.len() >= bytes)
        .unwrap()
}

#[test]
fn s09_a_token_longer_than_8_kib_is_refused() {
    let issuer = Issuer::new();
    let (short, long) = (
        token_of(&issuer, 8_180),
        token_of(&issuer, MAX_TOKEN_BYTES + 1),
    );
    assert!(short.len() <= MAX_TOKEN_BYTES && long.len() < MAX_TOKEN_BYTES + 4);
    assert!(issuer.judge(&short).is_ok());
    assert_malformed(&issuer, &long);
    assert_malformed(&issuer, &token_of(&issuer, 40 * 1024));
}

#[test]
fn s09_a_token_has_exactly_three_parts() {
    let (issuer, token) = good();
    let parts: Vec<_> = token.split('.').collect();
    for bad in [
        String::new(),
        ".".to_owned(),
        parts[0].to_owned(),
        parts[..2].join("."),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{}", parts[2]),
        // A JWE has five.
        format!("{}..{}.{}.{}", parts[0], parts[1], parts[2], parts[2]),
    ] {
        assert_malformed(&issuer, &bad);
    }
}

#[test]
fn s09_the_json_serialisation_is_refused() {
    let (issuer, token) = good();
    let parts: Vec<_> = token.split('.').collect();
    let flattened = json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]});
    assert_malformed(&issuer, &flattened.to_string());
}

#[test]
fn s09_whitespace_padding_and_the_other_alphabet_are_refused() {
    let (issuer, token) = good();
    assert_malformed(&issuer, &format!(" {token}"));
    assert_malformed(&issuer, &format!("{token}\n"));
    assert_malformed(&issuer, &token.replace('.', ". "));
    assert_malformed(&issuer, &format!("{token}=="));
    // The signature's first four characters, spelled in the alphabet of plain base64.
    let (signed, signature) = token.rsplit_once('.').unwrap();
    for foreign in ["+", "/", "%2B", "\u{ff0b}"] {
        assert_malformed(&issuer, &format!("{signed}.{foreign}{}", &signature[1..]));
    }
}

#[test]
fn s09_base64url_with_left_over_bits_is_refused() {
    let (issuer, token) = good();
    // 64 bytes leave 4 unused bits in the last of 86 characters: A, Q, g and w are the canonical ones.
    let (rest, last) = token.split_at(token.len() - 1);
    let twin = match last {
        "A" => "B",
        "Q" => "R",
        "g" => "h",
        "w" => "x",
        other => panic!("{other} is not canonical"),
    };
    assert!(issuer.judge(&token).is_ok());
    assert_malformed(&issuer, &format!("{rest}{twin}"));
}

#[test]
fn s09_a_header_or_payload_that_is_not_one_strict_json_object_is_refused() {
    let issuer = Issuer::new();
    let claims = good_claims().to_string();
    let with = |member: &str| format!("{},{member}}}", claims.trim_end_matches('}'));
    let header = issuer.header("");
    for payload in [
        b"".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        format!("{claims}{claims}").into_bytes(),
        format!("\u{feff}{claims}").into_bytes(),
        [claims.as_bytes(), b"\0"].concat(),
        with(r#""exp":9999999999"#).into_bytes(),
        with(r#""scope":"a","scope":"b""#).into_bytes(),
        with(r#""act":{"sub":"a","sub":"b"}"#).into_bytes(),
        with(r#""sc\u006fpe":"a","scope":"b""#).into_bytes(),
        [
            with(r#""x":"#).trim_end_matches('}').as_bytes(),
            b"\"\xff\"}",
        ]
        .concat(),
        with(&format!(r#""x":{}{}"#, "[".repeat(200), "]".repeat(200))).into_bytes(),
        with(r#""x":1e999"#).into_bytes(),
    ] {
        assert_malformed(&issuer, &issuer.sign_text(&header, &payload));
    }
    for header in [
        issuer.header(r#""alg":"ES256""#),
        issuer.header(r#""alg":"none""#),
        issuer.header(r#""typ":"JWT","typ":"JWT""#),
        format!("\u{feff}{header}"),
        format!("{header} x"),
        "\"ES256\"".to_owned(),
    ] {
        let error = issuer.judge_header(&header).expect_err(&header);
        assert!(matches!(error, JwtError::Malformed(_)), "{header}: {error}");
    }
}

#[test]
fn s09_a_signature_of_the_wrong_form_is_refused() {
    let (issuer, token) = good();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (r, s) = raw.split_at(32);
    let integer = |n: &[u8]| [&[2, 33, 0][..], n].concat();
    let der = [&[0x30, 70][..], &integer(r), &integer(s)].concat();
    for bad in [
        vec![],
        vec![0; 64],
        r.to_vec(),
        [s, r].concat(),
        [&raw[..], &[0]].concat(),
        [&[0], &raw[..]].concat(),
        der,
    ] {
        let token = format!("{signed}.{}", encode(&bad));
        assert_eq!(
            issuer.judge(&token).unwrap_err(),
            JwtError::Signature,
            "{bad:?}"
        );
    }
}

#[test]
fn s09_another_key_does_not_verify() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let token = sign(&other.key, "JWT", &good_claims());
    assert_eq!(issuer.judge(&token).unwrap_err(), JwtError::UnknownKey);
    // Naming our key doesn't help.
    let token = other.sign_text(&issuer.header(""), good_claims().to_string().as_bytes());
    assert_eq!(issuer.judge(&token).unwrap_err(), JwtError::Signature);
}

proptest! {
    #[test]
    fn what_is_signed_verifies(
        path in "(/[a-z0-9._-]{1,8}x){1,3}",
        audience in "[ -~]{1,16}",
        life in 1_u64..100_000,
        extra in any::<String>(),
    ) {
        let issuer = Issuer::new();
        let claims = json!({
            "sub": format!("spiffe://example.org{path}"), "aud": [audience.clone()],
            "exp": NOW + life, "extra": extra.clone(),
        });
        let token = sign(&issuer.key, "JWT", &claims);
        prop_assume!(token.len() <= MAX_TOKEN_BYTES);
        let profile = Profile::jwt_svid(vec![audience]);
        let verified = verify(&token, &profile, &issuer.keys, at(NOW)).unwrap();
        prop_assert_eq!(verified.all.get("extra"), Some(&Value::from(extra)));
        prop_assert_eq!(verified.expires_at, at(NOW + life));
    }

    #[test]
    fn s09_a_token_with_one_byte_changed_is_refused(position in any::<Index>(), byte in 1_u8..128) {
        let (issuer, token) = good();
        let mut changed = token.clone().into_bytes();
        let position = position.index(changed.len());
        changed[position] = (changed[position] ^ byte) & 0x7f;
        let changed = String::from_utf8(changed).unwrap();
        prop_assert_eq!(issuer.judge(&changed).is_ok(), changed == token);
    }

    #[test]
    fn s17_no_text_panics_the_verifier(text in ".{0,200}", parts in proptest::collection::vec(".{0,40}", 3)) {
        let issuer = Issuer::new();
        let _ = issuer.judge(&text);
        let parts: Vec<_> = parts.iter().map(|part| encode(part.as_bytes())).collect();
        let _ = issuer.judge(&parts.join("."));
        let _ = issuer.judge(&issuer.sign_text(&text, text.as_bytes()));
    }
}

//! JWKs and JWK sets: known answers, and the keys that are refused or ignored.

use proptest::prelude::*;

use super::*;

/// The key of RFC 7515 appendix A.3.
fn rfc7515_key() -> Value {
    json!({
        "kty": "EC", "crv": "P-256", "kid": "a3",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    })
}

/// The key of RFC 7638 §3.1.
fn rfc7638_key() -> Value {
    json!({
        "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    })
}

fn with(mut jwk: Value, name: &str, value: Value) -> Value {
    let members = jwk.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), value);
    }
    jwk
}

/// The key is refused alone, and as a member of a set.
#[track_caller]
fn assert_key_refused(jwk: &Value) {
    let error = PublicJwk::from_json(jwk).expect_err(&jwk.to_string());
    assert!(matches!(error, JwtError::Key(_)), "{jwk}: {error}");
    let set = json!({"keys": [jwk]}).to_string();
    assert!(KeySet::from_jwks(set.as_bytes(), "sig").is_err(), "{jwk}");
}

/// The key is refused alone, and left out of a set whose other keys stay.
#[track_caller]
fn assert_key_ignored(jwk: &Value) {
    PublicJwk::from_json(jwk).expect_err(&jwk.to_string());
    let set = json!({"keys": [rfc7515_key(), jwk]}).to_string();
    let keys = KeySet::from_jwks(set.as_bytes(), "sig").unwrap();
    assert_eq!(
        keys.iter().map(PublicJwk::kid).collect::<Vec<_>>(),
        ["a3"],
        "{jwk}"
    );
}

#[test]
fn verifies_the_example_of_rfc7515() {
    let key = PublicJwk::from_json(&rfc7515_key()).unwrap();
    let signed = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert!(key.verify_raw(signed.as_bytes(), &signature));
    assert_eq!(key.algorithm(), Algorithm::ES256);
}

#[test]
fn verifies_the_example_of_rfc8037_and_its_thumbprint() {
    let jwk = json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    let key = PublicJwk::from_json(&jwk).unwrap();
    let signed = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature =
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(key.verify_raw(
        signed.as_bytes(),
        &URL_SAFE_NO_PAD.decode(signature).unwrap()
    ));
    assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn makes_the_thumbprint_of_rfc7638() {
    let key = PublicJwk::from_json(&rfc7638_key()).unwrap();
    assert_eq!(
        key.thumbprint(),
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    );
    assert_eq!(key.kid(), "2011-04-29");
}

#[test]
fn s09_a_pss_salt_has_the_length_of_the_digest() {
    // Made by pyca/cryptography over this message, with salts of 32, 0, 20 and 222 bytes.
    let n = "rPJB2-ODs6HgfL0WsRvsJEZKnDWFUY0ePx808ATDlzdPxY4isnRn9Qt90rgmshLT37Ta6_jTnYEndibBYHSlrjgsHrR5WZXnbLK6bYhcaUb046tCpKAZP5QgtZcGyQ_pV6hcIy5roksvmsET7G2r39xmXsStj0Uz97a8CIY0d6nXYVzzXHXA9O_MNamVSH-XCMBvZPqKb_toIeGRLBvjeI-CjL7sVsV4Nj18tfBXafPk1DgFxP9JXi2Wkv5V5MaqFlMC4Dy-QgVCtY29P_zSJ8jJhsCoCu2SchgCCnvuEhzzqm5sWUECs3z0YZ3QHIVqflnHf5OtRHY_BD8hvNh1Sw";
    let salt_32 = "c8I59-CgSUeqOGErqlhVRa6Sq7K8_1_vkBwI4TzkvzqHugyFhwCOiyQnu0SIzfsEtukPs5gDNYjmH3vbEIT5EvvYCHb_jfp7Ed7ilT3tHe_dLpR22T5EcHyS606ZX4otFkPgyCcr6yLNDB8protIfKs1gUzKDh-LGqKhbSGZJQwsw4pjwnBuRyRwid4N8f7hy1R6y4ZmOVQ8cydjmVM_ajzuslItuT18yQemvEcWJZIokIeJLutHZ85D3aM_IVsv_p3fhU7UDDvTl2YiuPauSe4ZYJAt7lD6peY7gnqfC48CqEl7KSz4MsNP9RURMDwDvIJGhBgShe_oEITKVDSIXg";
    let others = [
        "acsEE5duoY674dd-pHuZ7tkGgpD8whVwKGMwRfox1z6w0urlc9yCIYhbjz4-J54xtglJ1rL5QSXt2YU_jfAGdolF7-qDGzuPldxkArdFJzdrKa-ZGBW8LmyuaYnUgADmibg6vZSB6Bsq2WZfEj8sN-i6_t6if-AyYzOReIpIh4ZOk434qUW8xDZq7YS1ThmUP6moJopaUh_H41A0eNzVNAqsPLh-b3G3bcSuS_wswzFuJZGGS1jaPhy9kjtPqaLkrvzlvyGC5prQr7j7Pf3hjmtk9Nu0dH5kRPpLzacR4imAMepcJfqvbonW6SeqTz9cjZHMpI9ZCIo8igS0F0YUDA",
        "Wy8IcqI98AqAS8l_PiDgYGrn9ykCa4ufGO3o163VM5wXB_buFMd9dxllX9KLtRXn_Y6YjZgM6IfOW2qagIpj568v7AwxpbaT9YSqT2HLu05Mr_TN9KcU6LSS4JSWDUcN7X5xouM4tRdVI9Zs_4Mw1eeKnIMcUDgvR_cCZFup2k0GHwP6VlHfX1V9zpYo2Wczw11VCIlp-crsLsRlZHWfZ-QYxJTrOK0HHMt2wKyYy3vf1wMPqmwBfQCVQvPQ57wSG8T5efFo1_EVu1NMYQttXZV48XWz5owi34HWosecKtEB0_e5CNwe9Dm1MaYrwR7NMrmhJ4bIbGPKoNjEFis2EA",
        "aonKAXYwz9r6zOmRo4KQiJfP6O7e86syDVKHusYK9UQ8QjT0QJD3t9gmDFX4eSNygDPnD0RPHoXmSxrmcIzcDcqraD6Q1eF8SgGX0XvZVnzwbTe4kcHwsYzSUS2TD6KVPbpkMNqurWYO5yd1AyHCYBQB2kK-GlCfFtwSfskVsTa4VWohhxLP5ax_-PfudQBbzEJ3neEwtd_xYx1nyxOHzP3gAX90RA1HqwqZqieNSTGw0QKb9QRDux_ze1b2bfL3m277AXkJxzvPoII31vc9eb2_c1woXNc16D5eZjpURwC_ibX3d076_noqVjZC0SRAPqATcFgMAZEfPNSVk_NrSg",
    ];
    let key =
        PublicJwk::from_json(&json!({"kty": "RSA", "alg": "PS256", "n": n, "e": "AQAB"})).unwrap();
    let verifies = |signature: &str| {
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        key.verify_raw(b"signed by another implementation", &signature)
    };
    assert!(verifies(salt_32));
    assert_eq!(others.map(verifies), [false; 3]);
}

#[test]
fn a_published_key_is_read_back_as_it_was() {
    for jwk in [rfc7515_key(), rfc7638_key()] {
        let key = PublicJwk::from_json(&jwk).unwrap();
        assert_eq!(PublicJwk::from_json(&key.to_json("jwt-svid")), Ok(key));
    }
}

#[test]
fn unknown_members_are_ignored_and_keys_are_found_by_kid() {
    let more = with(rfc7515_key(), "x5t", json!("AAAA"));
    let more = with(more, "issuer", json!({"a": 1}));
    let set = json!({"keys": [rfc7638_key(), more], "else": 1}).to_string();
    let keys = KeySet::from_jwks(set.as_bytes(), "sig").unwrap();
    assert_eq!(
        keys.find("a3").map(PublicJwk::algorithm),
        Some(Algorithm::ES256)
    );
    assert_eq!(
        keys.find("2011-04-29").map(PublicJwk::algorithm),
        Some(Algorithm::RS256)
    );
    assert_eq!(keys.find("a4"), None);
}

#[test]
fn s09_an_rsa_key_without_alg_is_an_rs256_key() {
    let key = PublicJwk::from_json(&with(rfc7638_key(), "alg", Value::Null)).unwrap();
    assert_eq!(key.algorithm(), Algorithm::RS256);
    for alg in ["RS384", "PS256", "PS512"] {
        let key = PublicJwk::from_json(&with(rfc7638_key(), "alg", json!(alg))).unwrap();
        assert_eq!(key.algorithm().name(), alg);
    }
}

#[test]
fn s09_keys_of_another_kind_or_use_are_ignored() {
    let symmetric = json!({"kty": "oct", "kid": "k", "k": "AAAA"});
    for jwk in [
        json!({"kty": "unheard-of", "kid": "k"}),
        symmetric,
        with(rfc7515_key(), "crv", json!("secp256k1")),
        with(rfc7515_key(), "alg", json!("ECDH-ES")),
        with(rfc7638_key(), "alg", json!("RSA-OAEP")),
        with(rfc7638_key(), "alg", json!("HS256")),
        with(rfc7638_key(), "alg", json!("none")),
        with(rfc7638_key(), "use", json!("enc")),
        with(rfc7638_key(), "use", json!("x509-svid")),
        json!({"kty": "OKP", "crv": "X25519", "kid": "k", "x": encode(&[1; 32])}),
    ] {
        assert_key_ignored(&jwk);
    }
}

#[test]
fn s09_the_use_asked_for_or_none_is_kept() {
    let key =
        |kid: &str, key_use: Value| with(with(rfc7515_key(), "kid", json!(kid)), "use", key_use);
    let set = json!({"keys": [
        key("a", Value::Null), key("b", json!("sig")), key("c", json!("jwt-svid")),
        with(rfc7515_key(), "kid", Value::Null),
    ]})
    .to_string();
    let kids = |key_use| {
        let keys = KeySet::from_jwks(set.as_bytes(), key_use).unwrap();
        keys.iter()
            .map(|key| key.kid().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(kids("sig"), ["a", "b"]);
    assert_eq!(kids("jwt-svid"), ["a", "c"]);
}

#[test]
fn s09_a_key_whose_members_contradict_each_other_is_refused() {
    for jwk in [
        with(rfc7515_key(), "crv", json!("P-384")),
        with(rfc7515_key(), "alg", json!("ES384")),
        with(rfc7515_key(), "alg", json!("RS256")),
        with(rfc7638_key(), "alg", json!("ES256")),
        with(rfc7638_key(), "alg", json!(7)),
        with(rfc7515_key(), "key_ops", json!(["sign"])),
        with(rfc7515_key(), "key_ops", json!([])),
        with(rfc7515_key(), "key_ops", json!("verify")),
        with(rfc7515_key(), "use", json!(["sig"])),
        with(rfc7515_key(), "kty", Value::Null),
        with(rfc7515_key(), "kty", json!(["EC"])),
        with(rfc7515_key(), "kid", json!(7)),
        with(rfc7515_key(), "kid", json!("")),
        with(rfc7515_key(), "kid", json!("k".repeat(257))),
    ] {
        assert_key_refused(&jwk);
    }
    assert!(PublicJwk::from_json(&with(rfc7515_key(), "key_ops", json!(["verify"]))).is_ok());
}

#[test]
fn s09_a_private_key_is_refused() {
    for (jwk, name) in [
        (rfc7515_key(), "d"),
        (rfc7638_key(), "d"),
        (rfc7638_key(), "p"),
        (rfc7638_key(), "qi"),
        (rfc7638_key(), "oth"),
        (rfc7515_key(), "k"),
    ] {
        assert_key_refused(&with(jwk, name, json!("AAAA")));
    }
}

#[test]
fn s09_a_weak_or_malformed_rsa_key_is_refused() {
    let modulus = |bytes: usize, first: u8, last: u8| {
        let mut n = vec![0xa5; bytes];
        n[0] = first;
        n[bytes - 1] = last;
        json!(encode(&n))
    };
    for n in [
        modulus(128, 0x80, 1),
        modulus(255, 0xff, 1),
        modulus(256, 0x7f, 1),
        modulus(256, 0x80, 2),
        modulus(257, 0, 1),
        modulus(1_025, 1, 1),
        json!(""),
        json!(7),
        json!("AQAB="),
        Value::Null,
    ] {
        assert_key_refused(&with(rfc7638_key(), "n", n));
    }
    for e in [
        json!(encode(&[1])),
        json!(encode(&[2])),
        json!(encode(&[1, 0, 0])),
        json!(encode(&[0])),
        json!(encode(&[0, 1, 0, 1])),
        json!(encode(&[1, 0, 0, 0, 1])),
        json!(""),
        json!(65537),
        Value::Null,
    ] {
        assert_key_refused(&with(rfc7638_key(), "e", e));
    }
}

#[test]
fn s09_a_point_that_is_off_its_curve_or_of_the_wrong_length_is_refused() {
    let x = URL_SAFE_NO_PAD
        .decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU")
        .unwrap();
    for bad in [
        encode(&[0; 32]),
        encode(&[0xff; 32]),
        encode(&x[..31]),
        encode(&[&[0], &x[..]].concat()),
        // The last character has left-over bits set.
        "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEV".to_owned(),
        String::new(),
    ] {
        assert_key_refused(&with(rfc7515_key(), "x", json!(bad)));
    }
    assert_key_refused(&with(rfc7515_key(), "y", Value::Null));
    // Both coordinates in range and the point still not on the curve.
    assert_key_refused(&with(rfc7515_key(), "y", rfc7515_key()["x"].clone()));
}

#[test]
fn s09_two_keys_with_one_kid_are_refused() {
    let twin = with(rfc7638_key(), "kid", json!("a3"));
    let set = json!({"keys": [rfc7515_key(), twin]}).to_string();
    let error = KeySet::from_jwks(set.as_bytes(), "sig").unwrap_err();
    assert_eq!(error, JwtError::Key("two keys have the same kid"));
}

#[test]
fn s09_what_is_no_strict_jwk_set_is_refused() {
    let many: Vec<_> = (0..=MAX_KEYS)
        .map(|kid| with(rfc7515_key(), "kid", json!(kid.to_string())))
        .collect();
    for set in [
        "{}".to_owned(),
        "[]".to_owned(),
        r#"{"keys":{}}"#.to_owned(),
        r#"{"keys":[7]}"#.to_owned(),
        r#"{"keys":[],"keys":[]}"#.to_owned(),
        r#"{"keys":[{"kty":"x","kty":"x"}]}"#.to_owned(),
        json!({"keys": many}).to_string(),
        format!("{{\"keys\":[]{}}}", " ".repeat(MAX_JWKS_BYTES)),
    ] {
        assert!(KeySet::from_jwks(set.as_bytes(), "sig").is_err());
    }
    assert_eq!(
        KeySet::from_jwks(br#"{"keys":[]}"#, "sig"),
        Ok(KeySet::default())
    );
}

proptest! {
    #[test]
    fn s17_no_bytes_panic_the_key_parser(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        name in proptest::sample::select(vec!["kty", "crv", "x", "y", "n", "e", "kid", "use", "alg", "key_ops"]),
        text in prop_oneof![any::<String>(), proptest::collection::vec(any::<u8>(), 0..70).prop_map(|it| encode(&it))],
    ) {
        let _ = KeySet::from_jwks(&bytes, "sig");
        for jwk in [rfc7515_key(), rfc7638_key()] {
            let _ = PublicJwk::from_json(&with(jwk, name, json!(text)));
        }
    }
}

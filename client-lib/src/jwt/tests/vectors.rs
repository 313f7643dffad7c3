//! The examples that the RFCs print, made by others: RFC 7515 appendices A and E, RFC 7517 appendix A, RFC 7519
//! §6.1 and appendix A, RFC 7520 §4, RFC 7797 §4. (RFC 7515 A.3, RFC 7638 and RFC 8037 are in `keys`.) They carry no
//! claims a verifier could check, or ask for what we refuse; so a signature is held against its key, and the whole
//! token is refused for the reason there is.

use super::*;
use crate::Secret;

/// RFC 7515 §3.1, RFC 7519 §3.1: what all its examples sign.
const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
/// RFC 7515 A.1.
const HMAC_KEY: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
/// RFC 7520 §4: what its examples sign, the keys of §3.2 and §3.4.
const FRODO: &str = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4";
const BILBO_RSA: &str = "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw";

fn key(jwk: Value) -> PublicJwk {
    PublicJwk::from_json(&jwk).unwrap()
}

fn hmac_key(base64url: &str) -> HmacKey {
    HmacKey::new(&Secret::new(URL_SAFE_NO_PAD.decode(base64url).unwrap())).unwrap()
}

/// Its signature is this key's, that of a changed text is not, and the verifier has another reason to refuse it.
#[track_caller]
fn assert_verifies(key: &PublicJwk, token: &str) {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert!(key.verify_raw(signed.as_bytes(), &signature));
    assert!(!key.verify_raw(format!("{signed}A").as_bytes(), &signature));
    let keys = KeySet::new(vec![key.clone()]);
    let profile = Profile::oidc("joe", vec!["payments".to_owned()], Algorithm::ALL);
    let why = verify(token, &profile, &keys, at(NOW)).unwrap_err();
    assert_ne!(why, JwtError::Signature);
}

#[track_caller]
fn refusal(token: &str) -> JwtError {
    let keys = KeySet::default();
    let ours = || vec!["payments".to_owned()];
    let secret = [hmac_key(HMAC_KEY)];
    let hs256 = Profile::hs256("joe", ours());
    verify_hs256(token, &hs256, &secret, at(1_300_819_379)).unwrap_err();
    let oidc = Profile::oidc("joe", ours(), Algorithm::ALL);
    verify(token, &oidc, &keys, at(1_300_819_379)).unwrap_err()
}

#[test]
fn verifies_hs256_of_rfc7515_a1_and_asks_for_an_audience() {
    let token = format!(
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    );
    let profile = Profile::hs256("joe", vec!["payments".to_owned()]);
    let judge = |key: &str, now| verify_hs256(&token, &profile, &[hmac_key(key)], at(now));
    // Everything about it is good, but that it is for nobody.
    let last = 1_300_819_379;
    assert_eq!(
        judge(HMAC_KEY, last).unwrap_err(),
        JwtError::Claim("aud is missing")
    );
    assert_eq!(judge(HMAC_KEY, last + 6).unwrap_err(), JwtError::Expired);
    let other =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAoA";
    assert_eq!(judge(other, last).unwrap_err(), JwtError::Signature);
}

#[test]
fn verifies_rs256_of_rfc7515_a2() {
    let key = key(json!({
        "kty": "RSA", "e": "AQAB",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    }));
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    assert_verifies(&key, &format!("eyJhbGciOiJSUzI1NiJ9.{JOE}.{signature}"));
}

#[test]
fn verifies_es512_of_rfc7515_a4() {
    let key = key(json!({
        "kty": "EC", "crv": "P-521",
        "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
    }));
    assert_verifies(
        &key,
        "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
    );
}

#[test]
fn verifies_rs256_of_rfc7520_4_1() {
    let jwk = json!({
        "kty": "RSA", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "n": BILBO_RSA, "e": "AQAB",
    });
    let signature = "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg";
    let header = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9";
    assert_verifies(&key(jwk), &format!("{header}.{FRODO}.{signature}"));
}

#[test]
fn verifies_ps384_of_rfc7520_4_2() {
    let jwk = json!({
        "kty": "RSA", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "alg": "PS384",
        "n": BILBO_RSA, "e": "AQAB",
    });
    let signature = "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw";
    let header = "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9";
    assert_verifies(&key(jwk), &format!("{header}.{FRODO}.{signature}"));
}

#[test]
fn verifies_es512_of_rfc7520_4_3() {
    let jwk = json!({
        "kty": "EC", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "crv": "P-521",
        "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
        "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
    });
    let signature = "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2";
    let header = "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9";
    assert_verifies(&key(jwk), &format!("{header}.{FRODO}.{signature}"));
}

#[test]
fn verifies_hs256_of_rfc7520_4_4_and_refuses_what_it_signs() {
    let header = "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9";
    let signed = format!("{header}.{FRODO}");
    let tag = "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0";
    let key = hmac_key("hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg");
    assert!(key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).unwrap()));
    let profile = Profile {
        typ: vec![""],
        ..Profile::hs256("joe", Vec::new())
    };
    let verdict = verify_hs256(&format!("{signed}.{tag}"), &profile, &[key], at(NOW));
    assert!(matches!(verdict, Err(JwtError::Malformed(_))));
}

#[test]
fn s09_the_unsecured_examples_of_rfc7515_a5_and_rfc7519_6_1_are_refused() {
    let why = refusal(&format!("eyJhbGciOiJub25lIn0.{JOE}."));
    assert_eq!(why, JwtError::Header("alg is not of this profile"));
}

#[test]
fn s09_the_json_serialisations_of_rfc7515_a6_and_a7_are_refused() {
    let signature =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let one = json!({"protected": "eyJhbGciOiJFUzI1NiJ9", "header": {"kid": "e9bc097a"}, "signature": signature});
    let flattened = json!({
        "payload": JOE, "protected": "eyJhbGciOiJFUzI1NiJ9", "header": {"kid": "e9bc097a"},
        "signature": signature,
    });
    for token in [json!({"payload": JOE, "signatures": [one]}), flattened] {
        assert!(matches!(
            refusal(&token.to_string()),
            JwtError::Malformed(_)
        ));
    }
}

#[test]
fn s09_the_undefined_extension_of_rfc7515_appendix_e_is_refused() {
    let why = refusal(
        "eyJhbGciOiJub25lIiwNCiAiY3JpdCI6WyJodHRwOi8vZXhhbXBsZS5jb20vVU5ERUZJTkVEIl0sDQogImh0dHA6Ly9leGFtcGxlLmNvbS9VTkRFRklORUQiOnRydWUNCn0.RkFJTA.",
    );
    assert_eq!(
        why,
        JwtError::Header("it asks for an extension (crit, b64)")
    );
}

#[test]
fn s09_the_encrypted_token_of_rfc7519_a1_is_refused() {
    let why = refusal(
        "eyJhbGciOiJSU0ExXzUiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0.QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8qDcjiHnSJflSdv1iNqhWXaKH4MqAkQtMoNfABIPJaZm0HaA415sv3aeuBWnD8J-Ui7Ah6cWafs3ZwwFKDFUUsWHSK-IPKxLGTkND09XyjORj_CHAgOPJ-Sd8ONQRnJvWn_hXV1BNMHzUjPyYwEsRhDhzjAD26imasOTsgruobpYGoQcXUwFDn7moXPRfDE8-NoQX7N7ZYMmpUDkR-Cx9obNGwJQ3nM52YCitxoQVPzjbl7WBuB7AohdBoZOdZ24WlN1lVIeh8v1K4krB8xgKvRU8kgFrEn_a1rZgN5TiysnmzTROF869lQ.AxY8DCtDaGlsbGljb3RoZQ.MKOle7UQrG6nSxTLX6Mqwt0orbHvAKeWnDYvpIAeZ72deHxz3roJDXQyhxx0wKaMHDjUEOKIwrtkHthpqEanSBNYHZgmNOV7sln1Eu9g3J8.fiK51VwhsxJ-siBMR-YFiA",
    );
    assert_eq!(why, JwtError::Malformed("not three parts"));
}

#[test]
fn s09_the_unencoded_payload_of_rfc7797_4_2_is_refused_though_its_tag_is_good() {
    let header = "eyJhbGciOiJIUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19";
    let tag = "A5dxf2s96_n5FLueVuW1Z_vh161FwXZC4YLPff6dmDY";
    let key = hmac_key(HMAC_KEY);
    assert!(key.verify(
        format!("{header}.$.02").as_bytes(),
        &URL_SAFE_NO_PAD.decode(tag).unwrap()
    ));
    let extension = JwtError::Header("it asks for an extension (crit, b64)");
    assert_eq!(refusal(&format!("{header}..{tag}")), extension);
    // With its dot it is four parts, whatever it says.
    let why = refusal(&format!("{header}.$.02.{tag}"));
    assert_eq!(why, JwtError::Malformed("not three parts"));
}

#[test]
fn s09_of_the_keys_of_rfc7517_appendix_a_those_to_verify_with_are_read() {
    let ec = json!({
        "kty": "EC", "crv": "P-256", "use": "enc", "kid": "1",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    });
    let rsa = json!({
        "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    });
    let set = |keys: Value| {
        KeySet::of_issuer(
            json!({ "keys": keys }).to_string().as_bytes(),
            Algorithm::ALL,
        )
    };
    let kids = |set: KeySet| {
        set.iter()
            .map(|key| key.kid().to_owned())
            .collect::<Vec<_>>()
    };
    // A.1: that for encryption is not for us.
    assert_eq!(kids(set(json!([ec, rsa])).unwrap()), ["2011-04-29"]);
    // A.2: private keys that somebody published.
    let mut private = ec.clone();
    private["use"] = json!("sig");
    private["d"] = json!("870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE");
    assert_eq!(
        set(json!([private])),
        Err(JwtError::Key("it has private members"))
    );
    // A.3: shared secrets.
    let wrap = json!({"kty": "oct", "alg": "A128KW", "k": "GawgguFyGrWKav7AX4VKUg"});
    let hmac = json!({"kty": "oct", "kid": "HMAC key used in JWS spec Appendix A.1 example", "k": HMAC_KEY});
    assert_eq!(kids(set(json!([wrap, hmac])).unwrap()), [""; 0]);
}

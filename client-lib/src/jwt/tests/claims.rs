//! The claims, under a valid signature.

use super::*;

#[track_caller]
fn assert_claim_refused(name: &str, value: Value) {
    let claims = claims_with(name, value);
    let error = Issuer::new()
        .judge_claims(&claims)
        .expect_err(&claims.to_string());
    assert!(matches!(error, JwtError::Claim(_)), "{claims}: {error}");
}

fn judge_at(claims: &Value, now: SystemTime) -> Result<(), JwtError> {
    let issuer = Issuer::new();
    let token = sign(&issuer.key, "JWT", claims);
    verify(&token, &svid_profile(), &issuer.keys, now).map(drop)
}

#[test]
fn s09_a_missing_or_ill_typed_exp_is_refused() {
    for exp in [
        Value::Null,
        json!("1795000300"),
        json!(1_795_000_300.0),
        json!(1_795_000_300.5),
        json!(-1),
        json!(1e308),
        json!(253_402_300_800_u64),
        json!(u64::MAX),
        json!([NOW + 300]),
        json!(true),
        json!({}),
    ] {
        assert_claim_refused("exp", exp);
    }
    // JSON's own null is not "absent".
    let issuer = Issuer::new();
    let token = issuer.sign_text(
        &issuer.header(""),
        br#"{"sub":"spiffe://example.org/orders","aud":"payments","exp":null}"#,
    );
    assert_eq!(
        issuer.judge(&token).unwrap_err(),
        JwtError::Claim("exp is not a date")
    );
}

#[test]
fn s09_ill_typed_nbf_and_iat_are_refused() {
    for name in ["nbf", "iat"] {
        for date in [
            json!("0"),
            json!(0.5),
            json!(-1),
            json!(1e308),
            json!([0]),
            json!(false),
        ] {
            assert_claim_refused(name, date);
        }
    }
}

#[test]
fn s09_a_token_expires_at_exp_and_the_skew() {
    let skew = DEFAULT_SKEW.as_secs();
    let claims = claims_with("exp", json!(NOW + 300));
    let end = NOW + 300 + skew;
    assert_eq!(judge_at(&claims, at(end - 1)), Ok(()));
    assert_eq!(judge_at(&claims, at(end) - Duration::from_nanos(1)), Ok(()));
    assert_eq!(judge_at(&claims, at(end)), Err(JwtError::Expired));
    assert_eq!(judge_at(&claims, at(end + 1)), Err(JwtError::Expired));
    for late in [25, 30, 54, 59] {
        assert_eq!(judge_at(&claims, at(end + late)), Err(JwtError::Expired));
    }
}

#[test]
fn s09_a_future_nbf_or_iat_is_refused_beyond_the_skew() {
    let skew = DEFAULT_SKEW.as_secs();
    for (name, why) in [
        ("nbf", "nbf is in the future"),
        ("iat", "iat is in the future"),
    ] {
        let claims = |ahead: u64| {
            let mut claims = claims_with(name, json!(NOW + ahead));
            claims["exp"] = json!(NOW + 100_000_000);
            claims
        };
        assert_eq!(judge_at(&claims(skew), at(NOW)), Ok(()));
        assert_eq!(
            judge_at(&claims(skew + 1), at(NOW)),
            Err(JwtError::Claim(why))
        );
        assert_eq!(
            judge_at(&claims(31_536_000), at(NOW)),
            Err(JwtError::Claim(why))
        );
    }
}

#[test]
fn a_clock_before_1970_verifies_nothing() {
    let before = UNIX_EPOCH - Duration::from_secs(1);
    assert!(matches!(
        judge_at(&good_claims(), before),
        Err(JwtError::Claim(_))
    ));
}

#[test]
fn a_profile_may_allow_fractional_dates() {
    let issuer = Issuer::new();
    let mut profile = svid_profile();
    profile.fractional_dates = true;
    let judge = |exp: Value| {
        let token = sign(&issuer.key, "JWT", &claims_with("exp", exp));
        verify(&token, &profile, &issuer.keys, at(NOW)).map(|claims| claims.expires_at)
    };
    assert_eq!(
        judge(json!(1_795_000_300.5)),
        Ok(at(NOW + 300) + Duration::from_millis(500))
    );
    assert_eq!(judge(json!(NOW + 300)), Ok(at(NOW + 300)));
    for exp in [
        json!(-0.5),
        json!(1e308),
        json!(253_402_300_800.0),
        json!("1"),
    ] {
        assert_eq!(judge(exp), Err(JwtError::Claim("exp is not a date")));
    }
}

#[test]
fn s09_a_missing_or_ill_typed_aud_is_refused() {
    let crowd: Vec<_> = (0..=MAX_AUDIENCES).map(|_| "payments").collect();
    for aud in [
        Value::Null,
        json!(7),
        json!({"payments": true}),
        json!([]),
        json!(["payments", 7]),
        json!(["payments", null]),
        json!([["payments"]]),
        json!(crowd),
        json!(true),
    ] {
        assert_claim_refused("aud", aud);
    }
}

#[test]
fn s09_thousands_of_audiences_are_refused() {
    // As many as 8 KiB hold, and as many as it takes to be longer.
    for (count, why) in [
        (
            1_900,
            JwtError::Claim("aud is not a string or a short list of strings"),
        ),
        (10_000, JwtError::Malformed("longer than 8 KiB")),
    ] {
        let mut crowd = vec![""; count];
        crowd.push("payments");
        let verdict = Issuer::new().judge_claims(&claims_with("aud", json!(crowd)));
        assert_eq!(verdict.unwrap_err(), why, "{count}");
    }
}

#[test]
fn s09_an_aud_that_does_not_name_us_is_refused() {
    for aud in [
        json!("orders"),
        json!("payments "),
        json!("Payments"),
        json!("pay"),
        json!(""),
        json!(["a", "b"]),
    ] {
        assert_claim_refused("aud", aud);
    }
    let verdict = Issuer::new().judge_claims(&claims_with("aud", json!(["a", "payments"])));
    assert_eq!(verdict.unwrap().audiences, ["a", "payments"]);
}

#[test]
fn s09_a_verifier_without_an_audience_accepts_nothing() {
    let issuer = Issuer::new();
    let token = sign(&issuer.key, "JWT", &good_claims());
    let error = verify(
        &token,
        &Profile::jwt_svid(Vec::new()),
        &issuer.keys,
        at(NOW),
    )
    .unwrap_err();
    assert_eq!(error, JwtError::Claim("aud does not name us"));
}

#[test]
fn s09_a_missing_or_ill_typed_iss_is_refused() {
    let issuer = Issuer::new();
    let profile = Profile::internal(RECORD, AUTHORITY, "payments");
    for iss in [
        Value::Null,
        json!(7),
        json!([AUTHORITY]),
        json!({}),
        json!(""),
        json!("spiffe://example.org/warifu/authority/"),
    ] {
        let token = sign(&issuer.key, RECORD, &claims_with("iss", iss));
        let error = verify(&token, &profile, &issuer.keys, at(NOW)).unwrap_err();
        assert!(matches!(error, JwtError::Claim(_)), "{error}");
    }
    // A JWT-SVID needs none; where there is one, it is a string.
    for iss in [json!(7), json!([AUTHORITY]), json!("x".repeat(2_049))] {
        assert_claim_refused("iss", iss);
    }
}

#[test]
fn s09_a_sub_that_is_no_spiffe_id_of_a_workload_is_refused() {
    for sub in [
        Value::Null,
        json!(7),
        json!(""),
        json!("orders"),
        json!("https://example.org/orders"),
        json!("spiffe://example.org"),
        json!("spiffe://example.org/"),
        json!("spiffe://example.org/a/../b"),
        json!("spiffe://example.org/a//b"),
        json!("spiffe://example.org/a%2fb"),
        json!("SPIFFE://example.org/orders"),
        json!("spiffe://EXAMPLE.org/orders"),
        json!(" spiffe://example.org/orders"),
        json!([ORDERS]),
        json!(format!("spiffe://example.org/{}", "a".repeat(2_048))),
    ] {
        assert_claim_refused("sub", sub);
    }
}

#[test]
fn s09_an_ill_typed_scope_is_refused() {
    for scope in [json!(7), json!(["a"]), json!({})] {
        assert_claim_refused("scope", scope);
    }
}

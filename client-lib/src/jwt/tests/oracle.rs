//! A second opinion: what we accept, `jsonwebtoken` set as strictly as it goes accepts too.

use jsonwebtoken::{Algorithm as Alg, DecodingKey, Validation};
use proptest::{option, prelude::*, sample::select};

use super::*;

fn oracle_accepts(token: &str, key: &PublicJwk) -> bool {
    let jwk = serde_json::from_value(key.to_json("sig")).unwrap();
    let mut validation = Validation::new(Alg::ES256);
    validation.set_audience(&["payments"]);
    validation.set_required_spec_claims(&["exp", "aud", "sub"]);
    validation.validate_nbf = true;
    validation.leeway = DEFAULT_SKEW.as_secs();
    let key = DecodingKey::from_jwk(&jwk).unwrap();
    jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation).is_ok()
}

/// JSON text of a member's value: mostly good, at times broken. `None`: the member is absent.
fn member(good: String, broken: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        8 => Just(Some(good)),
        1 => Just(None),
        1 => select(broken).prop_map(|text| Some(text.to_owned())),
    ]
}

fn object(members: Vec<(&str, Option<String>)>) -> String {
    let members: Vec<_> = members
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!(r#""{name}":{value}"#)))
        .collect();
    format!("{{{}}}", members.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn no_token_we_accept_is_refused_by_jsonwebtoken(
        alg in member(r#""ES256""#.to_owned(), &["\"ES384\"", "\"none\"", "\"HS256\"", "7"]),
        typ in member(r#""JWT""#.to_owned(), &["\"JOSE\"", "\"at+jwt\"", "\"\"", "7", "null"]),
        crit in option::weighted(0.03, Just("[\"exp\"]".to_owned())),
        sub in member(format!(r#""{ORDERS}""#), &["\"\"", "7", "null", "\"orders\""]),
        aud in member(r#""payments""#.to_owned(), &["[\"payments\"]", "[\"a\",\"payments\"]", "[]", "\"a\"", "7", "{}"]),
        // Seconds from now; never near an edge, since the oracle looks at the clock itself.
        exp in prop_oneof![8 => 60_i64..600, 1 => -600_i64..-60],
        nbf in prop_oneof![8 => -600_i64..-60, 1 => 60_i64..600],
        exp_text in member("exp".to_owned(), &["\"9999999999\"", "9999999999.5", "1e10", "1e308", "-1", "null"]),
        nbf_text in member("nbf".to_owned(), &["0", "\"0\"", "0.5", "null"]),
        iss in member(r#""someone""#.to_owned(), &["7", "null", "[]"]),
        repeated in option::weighted(0.03, Just("9999999999".to_owned())),
        cut in option::weighted(0.05, any::<proptest::sample::Index>()),
    ) {
        let issuer = Issuer::new();
        let now = SystemTime::now();
        let seconds = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let header = object(vec![
            ("alg", alg), ("typ", typ), ("crit", crit),
            ("kid", Some(format!(r#""{}""#, issuer.key.public().kid()))),
        ]);
        let payload = object(vec![
            ("sub", sub), ("aud", aud), ("iss", iss),
            ("exp", exp_text.map(|text| text.replace("exp", &(seconds + exp).to_string()))),
            ("nbf", nbf_text.map(|text| text.replace("nbf", &(seconds + nbf).to_string()))),
            ("exp", repeated),
        ]);
        let mut token = issuer.sign_text(&header, payload.as_bytes());
        if let Some(at) = cut {
            token.truncate(at.index(token.len()));
        }
        let ours = verify(&token, &svid_profile(), &issuer.keys, now);
        if ours.is_ok() {
            prop_assert!(oracle_accepts(&token, issuer.key.public()), "{header} {payload}");
        }
    }
}

#[test]
fn the_oracle_and_we_agree_on_a_good_token() {
    let issuer = Issuer::new();
    let now = SystemTime::now();
    let exp = now.duration_since(UNIX_EPOCH).unwrap().as_secs() + 300;
    let claims = json!({"sub": ORDERS, "aud": "payments", "exp": exp});
    let token = sign(&issuer.key, "JWT", &claims);
    assert!(oracle_accepts(&token, issuer.key.public()));
    assert!(verify(&token, &svid_profile(), &issuer.keys, now).is_ok());
}

use super::*;
use crate::caller::tests::orders;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn now() -> SystemTime {
    UNIX_EPOCH + NOW
}

fn check(token: &str, keys: &[&SigningKey], now: SystemTime) -> Result<Caller, ContextError> {
    let keys = KeySet::new(keys.iter().map(|key| key.public().clone()).collect());
    verify(token, &keys, &Method::POST, "/charges?a=b%20c", now)
}

fn good_claims() -> Value {
    json!({
        "iss": CONTEXT_ISSUER, "aud": CONTEXT_AUDIENCE, "sub": "spiffe://example.org/orders",
        "iat": NOW.as_secs(), "exp": NOW.as_secs() + 30,
        "htm": "POST", "htp": target_digest("/charges?a=b%20c"), "caller": orders(),
    })
}

#[test]
fn what_the_agent_signs_the_app_verifies() {
    let key = SigningKey::generate();
    let token = sign(&key, &orders(), &Method::POST, "/charges?a=b%20c", now()).unwrap();
    assert_eq!(check(token.to_str().unwrap(), &[&key], now()), Ok(orders()));
    let token = jwt::sign(&key, CONTEXT_TYP, &good_claims());
    assert_eq!(check(&token, &[&key], now()), Ok(orders()));
}

#[test]
fn s03_a_context_signed_with_another_key_is_refused() {
    let (key, forger) = (SigningKey::generate(), SigningKey::generate());
    let token = jwt::sign(&forger, CONTEXT_TYP, &good_claims());
    assert_eq!(
        check(&token, &[&key], now()),
        Err(JwtError::UnknownKey.into())
    );
}

#[test]
fn s09_a_context_that_differs_in_any_claim_is_refused() {
    let key = SigningKey::generate();
    for (name, value) in [
        ("iss", json!("https://issuer.example")),
        ("iss", Value::Null),
        ("aud", json!("payments")),
        ("aud", Value::Null),
        ("exp", Value::Null),
        ("exp", json!("soon")),
        ("exp", json!(NOW.as_secs() + 3600)),
        ("exp", json!(NOW.as_secs() - 60)),
        ("iat", Value::Null),
        ("iat", json!(NOW.as_secs() + 60)),
        ("iat", json!(NOW.as_secs() - 3600)),
        ("iat", json!(-1)),
        ("htm", json!("GET")),
        ("htm", json!("post")),
        ("htm", Value::Null),
        ("htp", json!("/charges?a=b%20c")),
        ("htp", json!(target_digest("/charges?a=b c"))),
        ("htp", Value::Null),
        ("caller", Value::Null),
        ("caller", json!({})),
        ("caller", json!("spiffe://example.org/orders")),
    ] {
        let mut claims = good_claims();
        let members = claims.as_object_mut().unwrap();
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.to_owned(), value.clone());
        }
        let token = jwt::sign(&key, CONTEXT_TYP, &claims);
        let result = check(&token, &[&key], now());
        assert!(result.is_err(), "{name} = {value} was accepted");
    }
}

#[test]
fn s09_another_kind_of_token_of_the_agent_is_not_a_context() {
    let key = SigningKey::generate();
    let token = jwt::sign(&key, "JWT", &good_claims());
    assert!(matches!(
        check(&token, &[&key], now()),
        Err(ContextError::Token(JwtError::Header(_)))
    ));
}

#[test]
fn a_context_ends_after_its_lifetime() {
    let key = SigningKey::generate();
    let token = jwt::sign(&key, CONTEXT_TYP, &good_claims());
    let late = now() + CONTEXT_LIFETIME + jwt::DEFAULT_SKEW + Duration::from_secs(1);
    assert_eq!(check(&token, &[&key], late), Err(JwtError::Expired.into()));
}

#[test]
fn the_largest_caller_and_any_target_fit_into_a_context() {
    let key = SigningKey::generate();
    let mut caller = orders();
    let claims = &mut caller.subject.as_mut().unwrap().claims;
    claims.insert("groups".to_owned(), String::new());
    let spare = crate::caller::MAX_CALLER_JSON - to_json(&caller).unwrap().len();
    let claims = &mut caller.subject.as_mut().unwrap().claims;
    claims.insert("groups".to_owned(), "x".repeat(spare));
    let target = format!("/charges?{}", "x".repeat(16 * 1024));
    let token = sign(&key, &caller, &Method::GET, &target, now()).unwrap();
    let keys = KeySet::new(vec![key.public().clone()]);
    let verified = verify(token.to_str().unwrap(), &keys, &Method::GET, &target, now());
    assert_eq!(verified, Ok(caller.clone()));

    caller.subject.as_mut().unwrap().subject.push('x');
    assert_eq!(
        sign(&key, &caller, &Method::GET, "/", now()),
        Err(CallerError::TooLarge)
    );
}

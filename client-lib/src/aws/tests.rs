//! What a program may ask for; what STS and the authority make of it is in the scenarios.

use super::*;

/// Nobody.
#[derive(Debug)]
struct NoKeys;

impl Credentials for NoKeys {
    fn keys(&self) -> Obtaining<'_> {
        Box::pin(async { Err(CredentialsError::new("the vault is shut; open it")) })
    }
}

fn domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn role() -> Role {
    Role::new("eu-west-1", NoKeys).unwrap()
}

#[tokio::test]
async fn s19_a_token_goes_over_tls_or_to_this_machine_alone() {
    let payments = role().web_identity(&domain(), "payments").unwrap();
    let ask = async |uri: &str| {
        let mut request = Request::get(uri).body(()).unwrap();
        payments.authorize(&mut request).await.unwrap_err()
    };
    for plain in ["http://payments.example.com/", "http://10.0.0.1:8080/a"] {
        let why = ask(plain).await.to_string();
        assert!(why.contains("over plain text"), "{why}");
    }
    let why = ask("/charges").await.to_string();
    assert!(why.contains("not absolute"), "{why}");
    // Those get as far as asking for keys.
    for good in [
        "https://payments.example.com/",
        "http://127.0.0.1:8080/",
        "http://[::1]:8080/",
        "http://localhost/",
    ] {
        let why = ask(good).await.to_string();
        assert!(why.contains("the vault is shut; open it"), "{why}");
    }
}

#[tokio::test]
async fn a_request_with_a_credential_keeps_it_and_gets_no_second() {
    let payments = role().web_identity(&domain(), "payments").unwrap();
    let request = Request::get("https://payments.example.com/").header(AUTHORIZATION, "Basic x");
    let mut request = request.body(()).unwrap();
    let why = payments.authorize(&mut request).await.unwrap_err();
    assert!(why.to_string().contains("authorization header already"));
    assert_eq!(request.headers()[AUTHORIZATION], "Basic x");
}

#[test]
fn what_no_audience_scope_or_region_can_be_is_refused_at_once() {
    assert_eq!(
        call_audience(&domain(), "payments"),
        "warifu:example.org:call:payments"
    );
    for bad in ["", "a b", "a\"b", "a\\b", "é", "a\n", &"a".repeat(513)] {
        assert!(role().web_identity(&domain(), bad).is_err(), "{bad:?}");
    }
    let pin = "a7".repeat(32);
    let authority = Authority::pinned("https://authority.internal", &domain(), &[&pin]).unwrap();
    assert!(role().exchange(&authority, "payments", &["a"]).is_ok());
    assert!(role().exchange(&authority, "pay ments", &[]).is_err());
    assert!(role().exchange(&authority, "payments", &["a b"]).is_err());
    for region in ["", "eu-west-1.evil.example", "EU", "eu-west-1\r\n"] {
        assert!(Role::new(region, NoKeys).is_err(), "{region:?}");
    }
    assert!(role().sts_endpoint("http://sts.example.com").is_err());
}

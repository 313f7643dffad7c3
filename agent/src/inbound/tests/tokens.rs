//! Bearer tokens.

use super::*;

fn with_tokens(config: &mut crate::config::inbound::Inbound) {
    accept_tokens(config);
    config.allow = vec![
        allow(Some(ORDERS), None, "GET /plain"),
        allow(Some(ORDERS), Some("charges.read"), "GET /charges"),
    ];
    config
        .forward_claims
        .insert("sub".into(), HeaderName::from_static("x-user-id"));
    config
        .forward_claims
        .insert("groups".into(), HeaderName::from_static("x-user-groups"));
    config
        .forward_claims
        .insert("absent".into(), HeaderName::from_static("x-user-absent"));
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn a_token_joins_the_caller_and_goes_no_further() {
    let mut fixture = Fixture::with(OK, with_tokens).await;
    let mut orders = fixture.caller(ORDERS).await;
    let web = "spiffe://example.org/web";
    let claims = json!({"scope": "charges.read charges.list", "groups": ["a", "b"]});
    let token = fixture.ca.token(web, "payments", claims);
    for scheme in ["Bearer", "bearer", "BEARER "] {
        let line = format!("authorization: {scheme} {token}\r\nx-user-absent: forged\r\n");
        assert_eq!(orders.get_with("/charges", &line).await.status(), 200);
        let seen = fixture.seen().await;
        assert!(seen.all("authorization").is_empty());
        assert_eq!(seen.all("x-user-id"), [web]);
        assert_eq!(seen.all("x-user-groups"), ["a b"]);
        assert!(seen.all("x-user-absent").is_empty());
        let told = seen.all("x-warifu-caller")[0].parse().unwrap();
        let told = warifu::caller::decode(&told).unwrap();
        assert_eq!(told.peer_id().unwrap().to_string(), ORDERS);
        assert!(told.has_scope("charges.read"));
        let subject = told.subject.unwrap();
        assert_eq!(
            (subject.proof.as_str(), subject.subject.as_str()),
            ("jwt-svid", web)
        );
        assert_eq!(subject.claims["sub"], web);
    }
    let line = fixture.audited();
    assert_eq!(
        json!([line["peer"], line["subject"], line["proof"], line["rule"]]),
        json!([ORDERS, web, "jwt-svid", "allow[1]"])
    );
    assert_eq!(line["token_sha256"].as_str().unwrap().len(), 64);
    let signature = token.rsplit('.').next().unwrap();
    assert!(!line.to_string().contains(signature));

    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &fixture.registry).unwrap();
    assert!(
        text.contains(r#"inbound_tokens_total{outcome="verified"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"inbound_tokens_total{outcome="remembered"} 2"#),
        "{text}"
    );
    assert!(
        text.contains(r#"inbound_answered_total{class="2xx"} 3"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_remembered_token_is_not_another_callers() {
    let mut fixture = Fixture::with(OK, |config| {
        with_tokens(config);
        config.allow = vec![allow(None, Some("read"), "GET /a")];
    })
    .await;
    let token = fixture
        .ca
        .token(ORDERS, "payments", json!({"scope": "read"}));
    let web = "spiffe://example.org/web";
    for peer in [ORDERS, web, ORDERS] {
        let mut caller = fixture.caller(peer).await;
        assert_eq!(caller.get_with("/a", &bearer(&token)).await.status(), 200);
        let seen = fixture.seen().await;
        let told =
            warifu::caller::decode(&seen.all("x-warifu-caller")[0].parse().unwrap()).unwrap();
        assert_eq!(told.peer_id().unwrap().to_string(), peer);
        assert_eq!(fixture.audited()["peer"], peer);
    }
}

#[tokio::test]
async fn a_bad_token_is_401_even_beside_a_good_certificate() {
    let mut fixture = Fixture::with(OK, with_tokens).await;
    let mut orders = fixture.caller(ORDERS).await;
    let good = fixture.ca.token(ORDERS, "payments", json!({}));
    let other = fixture::Ca::new().token(ORDERS, "payments", json!({}));
    let bad = [
        fixture.ca.token(ORDERS, "orders", json!({})),
        fixture.ca.token(ORDERS, "payments", json!({"exp": 1})),
        fixture
            .ca
            .token("spiffe://partner.example/x", "payments", json!({})),
        fixture
            .ca
            .token("spiffe://example.organic/x", "payments", json!({})),
        fixture.ca.token("someone", "payments", json!({})),
        other,
        good[..good.len() - 2].to_owned(),
        "nonsense".to_owned(),
        String::new(),
    ];
    let lines = bad.iter().map(|token| bearer(token)).chain([
        "authorization: Basic dTpw\r\n".to_owned(),
        "authorization: Bearer\r\n".to_owned(),
        "authorization:\r\n".to_owned(),
    ]);
    for line in lines {
        let answer = orders.get_with("/plain", &line).await;
        assert_eq!(answer.status(), 401, "{line}");
        assert_eq!(
            answer.all("www-authenticate"),
            ["Bearer error=\"invalid_token\""]
        );
        assert_eq!(answer.all("x-warifu-reason"), ["invalid-token"]);
        let audited = fixture.audited();
        assert_eq!(
            (audited["result"].as_str(), audited["peer"].as_str()),
            (Some("unauthenticated"), Some(ORDERS))
        );
        assert!(audited["detail"].is_string());
    }
    let answer = orders
        .get_with("/plain", &[bearer(&good), bearer(&good)].concat())
        .await;
    assert_eq!(
        (answer.status(), answer.all("www-authenticate")),
        (400, vec!["Bearer error=\"invalid_request\""])
    );
    assert!(fixture.nothing_seen());

    // Without one, the certificate is enough where the rule says so.
    assert_eq!(orders.get("/plain").await.status(), 200);
    assert_eq!(orders.get("/charges").await.status(), 403);
    assert_eq!(
        orders.get_with("/charges", &bearer(&good)).await.status(),
        403
    );
}

#[tokio::test]
async fn s09_a_token_of_a_key_that_is_gone_is_refused_at_once() {
    let mut fixture = Fixture::with(OK, with_tokens).await;
    let mut orders = fixture.caller(ORDERS).await;
    let line = bearer(&fixture.ca.token(ORDERS, "payments", json!({})));
    assert_eq!(orders.get_with("/plain", &line).await.status(), 200);
    fixture.ca.jwt = warifu::jwt::SigningKey::generate();
    fixture
        .identity
        .send(Some(Arc::new(fixture.ca.identity(PAYMENTS, 2))))
        .unwrap();
    assert_eq!(orders.get_with("/plain", &line).await.status(), 401);
    let line = bearer(&fixture.ca.token(ORDERS, "payments", json!({})));
    assert_eq!(orders.get_with("/plain", &line).await.status(), 200);
    fixture.identity.send(None).unwrap();
    let answer = orders.get_with("/plain", &line).await;
    assert_eq!(
        (answer.status(), answer.all("retry-after")),
        (503, vec!["1"])
    );
}

#[tokio::test]
async fn a_listener_for_tokens_alone_asks_for_one() {
    let mut fixture = Fixture::with(OK, |config| {
        with_tokens(config);
        config.accept.remove(0);
        config.allow = vec![allow(None, Some("read"), "GET /a")];
    })
    .await;
    let mut nobody = fixture.nobody().await;
    let answer = nobody.get("/a").await;
    assert_eq!(
        (answer.status(), answer.all("www-authenticate")),
        (401, vec!["Bearer"])
    );
    assert!(fixture.nothing_seen());
    let token = fixture
        .ca
        .token(ORDERS, "payments", json!({"scope": "read"}));
    let forged = format!("{}x-forwarded-client-cert: URI=forged\r\n", bearer(&token));
    assert_eq!(nobody.get_with("/a", &forged).await.status(), 200);
    let seen = fixture.seen().await;
    assert!(
        seen.all("x-forwarded-client-cert").is_empty(),
        "no one has a certificate here"
    );
    assert_eq!(seen.all("x-warifu-caller").len(), 1);
}

#[tokio::test]
async fn where_no_tokens_are_accepted_authorization_is_the_apps_own() {
    let mut fixture = Fixture::new().await;
    let mut orders = fixture.caller(ORDERS).await;
    assert_eq!(
        orders
            .get_with("/a", "authorization: Basic dTpw\r\n")
            .await
            .status(),
        200
    );
    assert_eq!(fixture.seen().await.all("authorization"), ["Basic dTpw"]);
}

#[tokio::test]
async fn claims_too_large_to_pass_on_are_refused() {
    let mut fixture = Fixture::with(OK, with_tokens).await;
    let mut orders = fixture.caller(ORDERS).await;
    let token = fixture
        .ca
        .token(ORDERS, "payments", json!({"groups": ["x".repeat(4500)]}));
    let answer = orders.get_with("/plain", &bearer(&token)).await;
    assert_eq!(
        (answer.status(), answer.all("x-warifu-reason")),
        (431, vec!["caller-too-large"])
    );
    assert!(fixture.nothing_seen());
}

//! Ways to prove oneself beside tokens and certificates, and what they come to together.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use warifu::{identity::Identity, tls};

use super::*;
use crate::config::{
    inbound::{Accept, BoundCertificate, SecretHeaderAccept},
    value::{SecretFile, SecretRef},
};

const SECRET: &str = "a-secret-of-32-characters-exactly";
const NEXT: &str = "the-next-one-of-them";

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

pub(super) fn accept_secret(config: &mut crate::config::inbound::Inbound, file: &Path) {
    config.accept.push(Accept::SecretHeader(SecretHeaderAccept {
        name: "legacy".to_owned(),
        header: HeaderName::from_static("x-custom-auth"),
        secret: SecretRef::File(SecretFile(file.to_owned())),
        subject: "legacy-batch".to_owned(),
    }));
    let claim = HeaderName::from_static("x-user-id");
    config.forward_claims.insert("sub".into(), claim);
}

#[tokio::test]
async fn s12_either_live_value_of_a_secret_header_proves_its_subject_and_goes_no_further() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, format!("{SECRET}\n{NEXT}\nno-longer\n")).unwrap();
    let mut fixture = Fixture::with(OK, |config| accept_secret(config, &file)).await;
    let mut orders = fixture.caller(ORDERS).await;
    for secret in [SECRET, NEXT] {
        let lines = format!("x-custom-auth: {secret}\r\nx_custom_auth: {secret}\r\n");
        assert_eq!(orders.get_with("/a", &lines).await.status(), 200);
        let seen = fixture.seen().await;
        assert!(!format!("{seen:?}").contains(secret));
        assert_eq!(seen.all("x-user-id"), ["legacy-batch"]);
        let told = seen.all("x-warifu-caller")[0].parse().unwrap();
        let subject = warifu::caller::decode(&told).unwrap().subject.unwrap();
        assert_eq!(
            (subject.proof.as_str(), subject.subject.as_str()),
            ("secret-header", "legacy-batch")
        );
    }
    let line = fixture.audited();
    assert_eq!(line["proof"], "secret-header");
    // A hash of a short secret would be as good as the secret.
    assert!(line.get("token_sha256").is_none(), "{line}");
    for wrong in ["", "no-longer", &SECRET[1..], &format!("{SECRET}\t{NEXT}")] {
        let line = format!("x-custom-auth: {wrong}\r\n");
        let answer = orders.get_with("/a", &line).await;
        assert_eq!(answer.status(), 401, "{wrong}");
        assert_eq!(answer.all("x-warifu-reason"), ["invalid-secret"]);
    }
    let log = format!("{:?}", fixture.audit.all());
    assert!(!log.contains(SECRET) && !log.contains("no-longer"), "{log}");
    assert!(fixture.nothing_seen());
}

#[tokio::test]
async fn a_request_proves_one_subject_and_no_second_one_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, SECRET).unwrap();
    let mut fixture = Fixture::with(OK, |config| {
        accept_tokens(config);
        accept_secret(config, &file);
    })
    .await;
    let mut orders = fixture.caller(ORDERS).await;
    let token = bearer(&fixture.ca.token(ORDERS, "payments", json!({})));
    let secret = format!("x-custom-auth: {SECRET}\r\n");
    for lines in [[&*token, &*secret].concat(), [&*secret, &*secret].concat()] {
        let answer = orders.get_with("/a", &lines).await;
        assert_eq!(answer.status(), 400, "{lines}");
        assert_eq!(answer.all("x-warifu-reason"), ["two-proofs"]);
    }
    assert!(fixture.nothing_seen());
    for lines in [token, secret] {
        assert_eq!(orders.get_with("/a", &lines).await.status(), 200);
    }
}

#[tokio::test]
async fn a_secret_that_cant_be_had_is_503_and_no_verdict() {
    let missing = Path::new("/nonexistent/secret");
    let fixture = Fixture::with(OK, |config| accept_secret(config, missing)).await;
    let mut orders = fixture.caller(ORDERS).await;
    let line = format!("x-custom-auth: {SECRET}\r\n");
    let answer = orders.get_with("/a", &line).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.all("x-warifu-reason"), ["no-keys"]);
    assert_eq!(orders.get("/a").await.status(), 200, "the certificate is");
}

fn thumbprint(identity: &Identity) -> String {
    let leaf = &identity.svid.chain()[0];
    URL_SAFE_NO_PAD.encode(certificate::sha256(leaf))
}

async fn caller_as(fixture: &Fixture, identity: &Identity) -> fixture::Caller1 {
    let expected = tls::ExpectedPeer::Id(PAYMENTS.parse().unwrap());
    let client = tls::client_config(identity, &identity.bundle, expected).unwrap();
    fixture::Caller1::new(fixture.connect(client, b"http/1.1").await)
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_certificate_is_worth_something_with_that_one_alone() {
    let fixture = Fixture::with(OK, accept_tokens).await;
    let (own, other) = (
        fixture.ca.identity(ORDERS, 1),
        fixture.ca.identity(ORDERS, 1),
    );
    let mut orders = caller_as(&fixture, &own).await;
    let mut ask = async |confirmation: serde_json::Value| {
        let claims = json!({ "cnf": confirmation });
        let token = fixture.ca.token(ORDERS, "payments", claims);
        // Twice: what is remembered is remembered with its certificate.
        let first = orders.get_with("/a", &bearer(&token)).await.status();
        let again = orders.get_with("/a", &bearer(&token)).await.status();
        assert_eq!(first, again);
        (first, token)
    };
    let (status, bound) = ask(json!({"x5t#S256": thumbprint(&own)})).await;
    assert_eq!(status, 200);
    assert_eq!(ask(json!({"x5t#S256": thumbprint(&other)})).await.0, 401);
    // What we can't hold against anything (DPoP's, say) is worth nothing either.
    assert_eq!(ask(json!({"jkt": thumbprint(&own)})).await.0, 401);
    assert_eq!(ask(json!({})).await.0, 401);
    // Stolen: the same workload, with another certificate.
    let mut thief = caller_as(&fixture, &other).await;
    let answer = thief.get_with("/a", &bearer(&bound)).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(
        answer.all("www-authenticate"),
        ["Bearer error=\"invalid_token\""]
    );
    let why = fixture.audited()["detail"].as_str().unwrap().to_owned();
    assert!(why.contains("bound to another certificate"), "{why}");
}

#[tokio::test]
async fn where_it_is_required_a_token_that_is_bound_to_nothing_is_refused() {
    let fixture = Fixture::with(OK, |config| {
        accept_tokens(config);
        if let Some(Accept::Jwt(jwt)) = config.accept.last_mut() {
            jwt.bound_certificate = BoundCertificate::Required;
        }
    })
    .await;
    let own = fixture.ca.identity(ORDERS, 1);
    let mut orders = caller_as(&fixture, &own).await;
    let mut ask = async |claims| {
        let token = fixture.ca.token(ORDERS, "payments", claims);
        orders.get_with("/a", &bearer(&token)).await.status()
    };
    let bound = json!({"cnf": {"x5t#S256": thumbprint(&own)}});
    assert_eq!(ask(bound).await, 200);
    assert_eq!(ask(json!({})).await, 401);
}

//! Callers that have an IAM role and no agent, certificate or secret: AWS signs who they are.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use warifu_tests::{
    aws::{AWS_CLAIMS, Principal, WebIdentitySts, web_identity_claims},
    mesh::{Direct, Mesh, ORDERS, RawAnswer},
    oidc::{Algorithm, Issuer},
};

const ACCOUNT: &str = "123456789012";
const CALL: &str = "warifu:example.org:call:payments";
const ROLE: &str = "arn:aws:iam::123456789012:role/team/svc-orders";

/// What AWS would sign for `principal`, with `change` made to it.
fn token(
    issuer: &Issuer,
    algorithm: Algorithm,
    principal: &Principal,
    change: impl FnOnce(&mut Value),
) -> String {
    let tags = BTreeMap::from([("team".to_owned(), "chosen-by-the-caller".to_owned())]);
    let now = SystemTime::now();
    let audiences = [CALL.to_owned()];
    let life = Duration::from_secs(300);
    let mut claims = web_identity_claims(&issuer.url(), principal, &audiences, &tags, now, life);
    change(&mut claims);
    issuer.sign(algorithm, &claims)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s08_a_role_calls_with_a_token_of_the_pinned_issuer_account_and_organisation_alone() {
    let sts = WebIdentitySts::start().await;
    let (issuer, stranger) = (sts.issuer(ACCOUNT).await, sts.issuer("999999999999").await);
    let mesh = Mesh::start().await;
    let app = mesh.app("payments").await;
    let accept = format!(
        "[{{mtls: {{trust_domains: [example.org]}}}}, {{aws-web-identity: {{audience: \"{CALL}\", \
         issuers: {{\"{ACCOUNT}\": \"{}\"}}, org: o-abc1234567}}}}]",
        issuer.url()
    );
    let agent = mesh.agent("payments").app(&app).accept(&accept);
    let agent = agent.allow(ORDERS).inbound_also(&format!(
        "forward_claims: {{sub: x-role-arn, \"{AWS_CLAIMS}\": x-aws}}"
    ));
    let agent = agent.start().await;
    let orders = mesh.workload("orders").await;
    let ask = async |token: &str| -> RawAnswer {
        let mut direct = Direct::connect(&agent, Some(&orders.identity()))
            .await
            .unwrap();
        let line = format!("GET /a HTTP/1.1\nhost: a\nauthorization: Bearer {token}\n\n");
        direct.exchange(&line).await.unwrap()
    };
    let batch = Principal::role(ACCOUNT, "/team/", "svc-orders").tag("env", "prod");
    for algorithm in [Algorithm::Rs256, Algorithm::Es384] {
        let answer = ask(&token(&issuer, algorithm, &batch, |_| {})).await;
        assert_eq!(answer.status, 200, "{algorithm:?}");
        let seen = app.last();
        let subject = seen.caller.unwrap().subject.unwrap();
        assert_eq!(
            (subject.proof.as_str(), subject.subject.as_str()),
            ("aws-web-identity", "123456789012:role/svc-orders")
        );
        assert_eq!(seen.headers["x-role-arn"], ROLE);
        let aws = seen.headers["x-aws"].to_str().unwrap();
        assert!(aws.contains("\"env\":\"prod\""), "{aws}");
        assert!(
            !aws.contains("chosen-by-the-caller"),
            "what the caller says of itself: {aws}"
        );
    }
    let rs256 = Algorithm::Rs256;
    let user = Principal {
        arn: format!("arn:aws:iam::{ACCOUNT}:user/alice"),
        ..batch.clone()
    };
    let elsewhere = Principal::role("999999999999", "/", "svc-orders");
    for (what, bad) in [
        (
            "another audience",
            token(&issuer, rs256, &batch, |it| it["aud"] = "payments".into()),
        ),
        (
            "two audiences",
            token(&issuer, rs256, &batch, |it| it["aud"] = json!([CALL, "x"])),
        ),
        (
            "another organisation",
            token(&issuer, rs256, &batch, |it| {
                it[AWS_CLAIMS]["org_id"] = "o-other".into();
            }),
        ),
        (
            "no organisation",
            token(&issuer, rs256, &batch, |it| {
                it[AWS_CLAIMS].as_object_mut().unwrap().remove("org_id");
            }),
        ),
        ("no role", token(&issuer, rs256, &user, |_| {})),
        (
            "another account's role",
            token(&issuer, rs256, &elsewhere, |_| {}),
        ),
        (
            "another account's issuer",
            token(&stranger, rs256, &elsewhere, |_| {}),
        ),
        (
            "another account's keys",
            token(&stranger, rs256, &batch, |it| {
                it["iss"] = issuer.url().into();
            }),
        ),
        (
            "an algorithm AWS does not use",
            token(&issuer, Algorithm::Es256, &batch, |_| {}),
        ),
        (
            "expired",
            token(&issuer, rs256, &batch, |it| it["exp"] = 1.into()),
        ),
        (
            "no claim of AWS",
            token(&issuer, rs256, &batch, |it| {
                it.as_object_mut().unwrap().remove(AWS_CLAIMS);
            }),
        ),
    ] {
        let answer = ask(&bad).await;
        assert_eq!(answer.status, 401, "{what}");
        assert_eq!(
            answer.header("x-warifu-reason"),
            Some("invalid-token"),
            "{what}"
        );
    }
    assert!(
        stranger.asked().is_empty(),
        "an issuer that nobody pinned is never asked"
    );
}

//! Claims AWS makes, and claims that pose as such.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;
use crate::jwt::{KeySet, Profile, SigningKey, sign, verify};

const NOW: u64 = 1_795_000_000;
const ACCOUNT: &str = "123456789012";
const ISSUER: &str = "https://11111111.tokens.sts.global.api.aws";
const AUDIENCE: &str = "warifu:example.org:call:payments";
const ROLE: &str = "arn:aws:iam::123456789012:role/team/batch";

fn good() -> Value {
    json!({
        "iss": ISSUER, "sub": ROLE, "aud": AUDIENCE, "iat": NOW, "exp": NOW + 300, "jti": "1",
        AWS_CLAIM: {
            "aws_account": ACCOUNT, "source_region": "eu-west-1", "principal_id": ROLE,
            "org_id": "o-abc1234567", "ou_path": ["o-abc1234567/r-ab12/ou-ab12-11111111/"],
            "principal_tags": {"team": "shop"}, "request_tags": {"team": "admin", "admin": "true"},
            "lambda_source_function_arn": "arn:aws:lambda:eu-west-1:123456789012:function:batch",
        },
    })
}

/// The claims of a verified token that says this.
fn verified(claims: &Value) -> Claims {
    let key = SigningKey::generate_rsa();
    let keys = KeySet::new(vec![key.public().clone()]);
    let profile = Profile::aws_web_identity(ISSUER, AUDIENCE);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    verify(&sign(&key, "JWT", claims), &profile, &keys, now).unwrap()
}

fn read(change: impl FnOnce(&mut Value)) -> Result<WebIdentity, WebIdentityError> {
    let mut claims = good();
    change(&mut claims);
    WebIdentity::from_claims(&verified(&claims), ACCOUNT, Some("o-abc1234567"))
}

#[test]
fn a_token_of_aws_says_which_role_holds_it() {
    let identity = read(|_| {}).unwrap();
    assert_eq!(identity.role_arn, ROLE);
    assert_eq!(
        (identity.partition.as_str(), identity.account.as_str()),
        ("aws", ACCOUNT)
    );
    assert_eq!(
        (identity.role_path.as_str(), identity.role_name.as_str()),
        ("/team/", "batch")
    );
    assert_eq!(identity.org_id.as_deref(), Some("o-abc1234567"));
    assert_eq!(identity.ou_path, ["o-abc1234567/r-ab12/ou-ab12-11111111/"]);
    assert_eq!(identity.source_region.as_deref(), Some("eu-west-1"));
    let one = read(|claims| claims[AWS_CLAIM]["ou_path"] = json!("o-a/r-b/")).unwrap();
    assert_eq!(one.ou_path, ["o-a/r-b/"]);
}

#[test]
fn s08_request_tags_are_not_read() {
    let identity = read(|_| {}).unwrap();
    assert_eq!(
        identity.principal_tags,
        BTreeMap::from([("team".to_owned(), json!("shop"))])
    );
    let none = read(|claims| {
        let aws = claims[AWS_CLAIM].as_object_mut().unwrap();
        aws.remove("principal_tags");
    });
    assert_eq!(none.unwrap().principal_tags, BTreeMap::new());
    assert!(!format!("{identity:?}").contains("admin"));
}

#[test]
fn s08_another_account_than_the_pinned_one_is_refused() {
    let other = "arn:aws:iam::210987654321:role/team/batch";
    let whole = read(|claims| {
        claims["sub"] = json!(other);
        claims[AWS_CLAIM]["principal_id"] = json!(other);
        claims[AWS_CLAIM]["aws_account"] = json!("210987654321");
    });
    let is_other = |verdict| matches!(verdict, Err(WebIdentityError::Account { .. }));
    assert!(is_other(whole));
    assert!(is_other(read(|claims| claims["sub"] = json!(other))));
    assert!(is_other(read(|claims| {
        claims[AWS_CLAIM]["aws_account"] = json!("210987654321");
    })));
    let contradicting = read(|claims| claims[AWS_CLAIM]["principal_id"] = json!(other));
    assert_eq!(contradicting, Err(WebIdentityError::Principal));
}

#[test]
fn s08_another_organisation_or_none_is_refused_where_one_is_pinned() {
    let other = read(|claims| claims[AWS_CLAIM]["org_id"] = json!("o-other"));
    assert_eq!(other, Err(WebIdentityError::Organisation));
    let none = read(|claims| claims[AWS_CLAIM]["org_id"] = Value::Null);
    assert_eq!(none, Err(WebIdentityError::Organisation));
    let unpinned = WebIdentity::from_claims(&verified(&good()), ACCOUNT, None);
    assert!(unpinned.is_ok());
}

#[test]
fn s08_what_is_no_role_proves_none() {
    for sub in [
        "arn:aws:iam::123456789012:user/batch",
        "arn:aws:iam::123456789012:root",
        "arn:aws:sts::123456789012:assumed-role/batch/session",
        "arn:aws:sts::123456789012:federated-user/batch",
        "batch",
    ] {
        let verdict = read(|claims| {
            claims["sub"] = json!(sub);
            claims[AWS_CLAIM]["principal_id"] = json!(sub);
        });
        assert_eq!(verdict, Err(WebIdentityError::NoRole), "{sub}");
    }
}

#[test]
fn s08_a_token_that_is_not_of_sts_proves_no_role() {
    for claim in [
        Value::Null,
        json!("123456789012"),
        json!({}),
        json!({"aws_account": 123_456_789_012_u64}),
        json!({"aws_account": ACCOUNT, "principal_tags": ["team"]}),
    ] {
        let verdict = read(|claims| claims[AWS_CLAIM] = claim);
        assert_eq!(verdict, Err(WebIdentityError::NoClaim));
    }
}

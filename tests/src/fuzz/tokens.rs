//! Tokens, by every profile.

use std::{str, sync::LazyLock, time::SystemTime};

use base64::{Engine, engine::general_purpose};
use warifu::{
    SpiffeId,
    jwt::{self, Algorithm, AudienceRule, Claims, Confirmation, HmacKey, Profile, SigningKey},
};

use super::{KEY, KEYS, NOW};
use crate::jose::{Choices, Keys, judge};

const ISSUER: &str = "https://issuer.example";
const SIGNER: &str =
    "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188";

/// A token as it came, and a token whose payload came from a stranger though its signature is good.
pub fn jwt(bytes: &[u8]) {
    for profile in &profiles() {
        if let Ok(text) = str::from_utf8(bytes) {
            let claims = jwt::verify(text, profile, &KEYS, *NOW);
            assert!(
                claims.is_err(),
                "nobody signed this, and it verifies: {text}"
            );
            assert!(jwt::verify_hs256(text, profile, &[secret()], *NOW).is_err());
        }
        for typ in [profile.typ[0], "at+jwt"] {
            if let Ok(claims) = jwt::verify(&signed_for(profile, typ, bytes), profile, &KEYS, *NOW)
            {
                assert_eq!(typ, profile.typ[0]);
                check_claims(&claims, profile);
            }
        }
    }
}

/// A token that was right, changed as these bytes have it: what passes is what the rules allow, and what
/// `jsonwebtoken` takes.
pub fn jose(bytes: &[u8]) {
    static SIGNERS: LazyLock<Keys> = LazyLock::new(Keys::new);
    let verdict = judge(&SIGNERS, Choices::new(bytes), SystemTime::now());
    assert!(verdict.is_sound(), "{verdict:#?}");
}

fn profiles() -> [Profile; 9] {
    let ours = || vec!["payments".to_owned()];
    let mut bound = Profile::access_token(ISSUER, ours(), Algorithm::ALL);
    bound.confirmation = Confirmation::Certificate;
    let mut cognito = Profile::cognito_access(ISSUER, ours());
    let mut cognito_id = Profile::cognito_id(ISSUER, ours());
    // Of RSA we have no key here, and it would be slow.
    cognito.algorithms = Algorithm::ALL.into();
    cognito_id.algorithms = Algorithm::ALL.into();
    [
        Profile::jwt_svid(ours()),
        Profile::internal("warifu-context+jwt", "warifu-agent", "warifu-app"),
        Profile::oidc_evidence(ISSUER, "payments"),
        Profile::oidc(ISSUER, ours(), Algorithm::ALL),
        bound,
        cognito,
        cognito_id,
        Profile::alb(ISSUER, vec![SIGNER.to_owned()], ours()),
        Profile::kubernetes(ISSUER, ours()),
    ]
}

fn secret() -> HmacKey {
    HmacKey::new(&warifu::Secret::new(vec![7; 32])).expect("32 bytes")
}

fn check_claims(claims: &Claims, profile: &Profile) {
    assert!(claims.expires_at + profile.skew > *NOW);
    let names_us = claims
        .audiences
        .iter()
        .any(|it| profile.audiences.contains(it));
    let may_be_absent = profile.audience_rule == AudienceRule::MayBeAbsent;
    assert!(names_us || may_be_absent && !claims.all.contains_key("aud"));
    assert!(profile.audience_rule != AudienceRule::OnlyOne || claims.audiences.len() == 1);
    let said_in_header = profile.load_balancer.is_some() && claims.issuer.is_none();
    assert!(profile.issuer.is_none() || claims.issuer == profile.issuer || said_in_header);
    assert!(!claims.subject.is_empty());
    assert!(claims.all.contains_key("exp") || profile.load_balancer.is_some());
    assert!(claims.scopes.iter().all(|scope| !scope.is_empty()));
    let is_bound = claims.all.contains_key("cnf") && profile.confirmation != Confirmation::Document;
    assert_eq!(claims.certificate_thumbprint().is_some(), is_bound);
    if let Some(clients) = &profile.clients {
        let client = claims.all["client_id"].as_str().expect("a client");
        assert!(clients.iter().any(|it| it == client));
    }
    if let Some(token_use) = profile.token_use {
        assert_eq!(claims.all["token_use"], token_use);
    }
    if profile.issuer.is_none() {
        let id = SpiffeId::new(&claims.subject).expect("the subject of a JWT-SVID");
        assert_eq!(id.to_string(), claims.subject);
    }
}

/// A token with this payload, whatever it is, that [`KEYS`] verifies.
pub(super) fn signed(typ: &str, payload: &[u8]) -> String {
    let kid = KEY.public().kid();
    let header = format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"{typ}"}}"#);
    encoded(&KEY, &general_purpose::URL_SAFE_NO_PAD, &header, payload)
}

/// The same, with what a load balancer says beside it where the profile wants that.
fn signed_for(profile: &Profile, typ: &str, payload: &[u8]) -> String {
    if profile.load_balancer.is_none() && !typ.is_empty() {
        return signed(typ, payload);
    }
    let kid = KEY.public().kid();
    match &profile.load_balancer {
        None => {
            let header = format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#);
            encoded(&KEY, &general_purpose::URL_SAFE_NO_PAD, &header, payload)
        }
        Some(_) => {
            let header = format!(
                r#"{{"alg":"ES256","client":"payments","exp":1800000300,"iss":"{ISSUER}","kid":"{kid}","signer":"{SIGNER}","typ":"{typ}"}}"#
            );
            encoded(&KEY, &general_purpose::URL_SAFE, &header, payload)
        }
    }
}

fn encoded(key: &SigningKey, engine: &impl Engine, header: &str, payload: &[u8]) -> String {
    let signed = [header.as_bytes(), payload]
        .map(|it| engine.encode(it))
        .join(".");
    let signature = engine.encode(key.sign_raw(signed.as_bytes()));
    format!("{signed}.{signature}")
}

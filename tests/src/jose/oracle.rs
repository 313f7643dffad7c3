//! What the design says of tokens (S9), and the specifications of each kind, written apart from the verifier: of
//! members that are known, instead of bytes that have to be read.

use std::{collections::BTreeSet, time::SystemTime};

use serde_json::{Map, Value};

use super::{
    Kind,
    token::{ALB, AUDIENCE, CLIENT, HASH, ID, ISSUER, Member, Signature, Token, seconds},
};

/// Seconds clocks may differ.
const SKEW: u64 = 5;
/// The last second of 9999.
const LAST: f64 = 253_402_300_799.0;
const LONGEST_NAME: usize = 2_048;
const LONGEST_TOKEN: usize = 8 * 1024;

type Rule = Result<(), &'static str>;

/// Whether the token may pass, and why not.
pub(super) fn rules(token: &Token, text: &str, is_own_form: bool, now: SystemTime) -> Rule {
    ensure(text.len() <= LONGEST_TOKEN, "length")?;
    ensure(is_own_form, "form")?;
    ensure(token.signature == Signature::Good, "signature")?;
    let header = members(&token.header)?;
    let claims = members(&token.claims)?;
    let now = seconds(now);
    check_header(token, &header, now)?;
    check_dates(token.kind, &header, &claims, now)?;
    check_names(token.kind, &claims)?;
    check_audience(token.kind, claims.get("aud"))?;
    check_subject(token.kind, &claims)?;
    check_binding(token.kind, claims.get("cnf"))
}

fn ensure(holds: bool, rule: &'static str) -> Rule {
    if holds { Ok(()) } else { Err(rule) }
}

/// The members, where each is JSON with one reading, and no name is there twice.
fn members(members: &[Member]) -> Result<Map<String, Value>, &'static str> {
    let mut names = BTreeSet::new();
    let mut all = Map::new();
    for (name, value) in members {
        let name: String = serde_json::from_str(name).map_err(|_| "json")?;
        ensure(names.insert(name.clone()), "duplicate")?;
        // Those among the changes that name a member twice inside.
        let is_twice = ["\"a\":1,\"a\":", "\"a\":1,\"\\u0061\":"]
            .iter()
            .any(|twice| value.contains(twice));
        ensure(!is_twice, "duplicate")?;
        let value: Value = serde_json::from_str(value).map_err(|_| "json")?;
        ensure(depth(&value) < 32, "depth")?;
        all.insert(name, value);
    }
    Ok(all)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn check_header(token: &Token, header: &Map<String, Value>, now: u64) -> Rule {
    let kind = token.kind;
    let allowed: &[&str] = match kind {
        Kind::Oidc | Kind::OidcEvidence | Kind::AccessToken | Kind::BoundAccessToken => {
            &["alg", "kid", "typ", "x5t", "x5t#S256"]
        }
        Kind::Alb => &["alg", "kid", "typ", "iss", "client", "signer", "exp"],
        _ => &["alg", "kid", "typ"],
    };
    ensure(
        header.keys().all(|name| allowed.contains(&name.as_str())),
        "header member",
    )?;
    for name in ["x5t", "x5t#S256"] {
        ensure(header.get(name).is_none_or(Value::is_string), "header type")?;
    }
    let types: &[Option<&str>] = match kind {
        Kind::JwtSvid => &[None, Some("JWT"), Some("JOSE")],
        Kind::AccessToken | Kind::BoundAccessToken => &[Some("at+jwt"), Some("application/at+jwt")],
        Kind::Alb => &[Some("JWT")],
        _ => &[None, Some("JWT")],
    };
    let typ = header.get("typ");
    let is_typ = |it: &Option<&str>| typ.map(|typ| typ.as_str()) == it.map(Some);
    ensure(types.iter().any(is_typ), "typ")?;
    // Whoever signed did so with the one key and the one algorithm it is of.
    ensure(
        header.get("alg").is_some_and(|it| it == token.signer),
        "alg",
    )?;
    match kind {
        Kind::Hs256 => ensure(header.get("kid").is_none_or(Value::is_string), "kid")?,
        _ => ensure(
            header.get("kid").is_some_and(|it| it == token.signer),
            "kid",
        )?,
    }
    if kind == Kind::Alb {
        for (name, expected) in [("iss", ISSUER), ("client", CLIENT), ("signer", ALB)] {
            ensure(
                header.get(name).is_some_and(|it| it == expected),
                "load balancer",
            )?;
        }
        let exp = header.get("exp").and_then(Value::as_u64);
        ensure(exp.is_some_and(|exp| now < exp + SKEW), "load balancer")?;
    }
    Ok(())
}

fn check_dates(
    kind: Kind,
    header: &Map<String, Value>,
    claims: &Map<String, Value>,
    now: u64,
) -> Rule {
    let fractional = matches!(kind, Kind::Oidc | Kind::OidcEvidence);
    let date = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(date)) if date.is_u64() || fractional => match date.as_f64() {
            Some(date) if (0.0..=LAST).contains(&date) => Ok(Some(date)),
            _ => Err("date"),
        },
        Some(_) => Err("date"),
    };
    let (exp, nbf, iat) = (date("exp")?, date("nbf")?, date("iat")?);
    let now = now as f64;
    let late = now + SKEW as f64;
    match exp {
        Some(exp) => ensure(now < exp + SKEW as f64, "expired")?,
        None => ensure(header.contains_key("exp") && kind == Kind::Alb, "no exp")?,
    }
    ensure(nbf.is_none_or(|nbf| nbf <= late), "nbf")?;
    ensure(iat.is_none_or(|iat| iat <= late), "iat")?;
    let needs_iat = !matches!(kind, Kind::JwtSvid | Kind::Alb | Kind::Hs256);
    ensure(iat.is_some() || !needs_iat, "no iat")?;
    if kind == Kind::BoundAccessToken {
        let life = exp.zip(iat).map(|(exp, iat)| exp - iat);
        ensure(life.is_some_and(|life| life <= 3_600.0), "lifetime")?;
    }
    Ok(())
}

/// `iss`, `jti`, `client_id`, `token_use` and `scope`.
fn check_names(kind: Kind, claims: &Map<String, Value>) -> Rule {
    let said = |name: &str| claims.get(name);
    let is_name = |value: &Value| {
        let text = value.as_str();
        text.is_some_and(|text| (1..=LONGEST_NAME).contains(&text.len()))
    };
    let issuer = match (said("iss"), kind) {
        (None, Kind::JwtSvid | Kind::Alb) => true,
        (Some(Value::String(iss)), Kind::JwtSvid) => iss.len() <= LONGEST_NAME,
        (issuer, _) => issuer.is_some_and(|it| it == ISSUER),
    };
    ensure(issuer, "iss")?;
    ensure(said("jti").is_none_or(is_name), "jti")?;
    ensure(said("scope").is_none_or(Value::is_string), "scope")?;
    match kind {
        Kind::AccessToken | Kind::BoundAccessToken => {
            ensure(said("jti").is_some(), "no jti")?;
            ensure(said("client_id").is_some_and(is_name), "client_id")
        }
        Kind::CognitoAccess => {
            ensure(
                said("token_use").is_some_and(|it| it == "access"),
                "token_use",
            )?;
            ensure(
                said("client_id").is_some_and(|it| it == CLIENT),
                "client_id",
            )
        }
        Kind::CognitoId => ensure(said("token_use").is_some_and(|it| it == "id"), "token_use"),
        _ => Ok(()),
    }
}

fn check_audience(kind: Kind, aud: Option<&Value>) -> Rule {
    let listed = match aud {
        None if matches!(kind, Kind::CognitoAccess | Kind::Alb) => return Ok(()),
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(list)) if list.len() <= 32 => {
            let texts: Option<Vec<_>> = list.iter().map(Value::as_str).collect();
            texts.ok_or("aud")?
        }
        _ => return Err("aud"),
    };
    match kind {
        // Where nobody said which would do, none does.
        Kind::CognitoAccess | Kind::Alb => Err("aud"),
        Kind::CognitoId => ensure(listed == [CLIENT], "aud"),
        Kind::OidcEvidence | Kind::AwsWebIdentity => ensure(listed == [AUDIENCE], "aud"),
        _ => ensure(listed.contains(&AUDIENCE), "aud"),
    }
}

fn check_subject(kind: Kind, claims: &Map<String, Value>) -> Rule {
    let subject = claims.get("sub").and_then(Value::as_str).ok_or("sub")?;
    ensure((1..=LONGEST_NAME).contains(&subject.len()), "sub")?;
    match kind {
        // Of those among the changes, the one.
        Kind::JwtSvid => ensure(subject == ID, "sub"),
        Kind::Kubernetes => {
            let named = claims.get("kubernetes.io").ok_or("kubernetes.io")?;
            let account = (
                named["namespace"].as_str(),
                named["serviceaccount"]["name"].as_str(),
            );
            let (Some(namespace), Some(name)) = account else {
                return Err("kubernetes.io");
            };
            ensure(
                subject == format!("system:serviceaccount:{namespace}:{name}"),
                "sub",
            )
        }
        _ => Ok(()),
    }
}

fn check_binding(kind: Kind, cnf: Option<&Value>) -> Rule {
    match (cnf, kind) {
        (None, _) => Ok(()),
        (Some(Value::Object(cnf)), Kind::BoundAccessToken) => {
            let is_hash = cnf.get("x5t#S256").is_some_and(|it| it == HASH);
            ensure(is_hash && cnf.len() == 1, "cnf")
        }
        _ => Err("cnf"),
    }
}

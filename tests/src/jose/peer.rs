//! `jsonwebtoken`, with all that it can be told to look at.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::Jwk};
use serde_json::{Map, Value};

use super::{
    Keys, Kind,
    token::{AUDIENCE, CLIENT, ISSUER, Token},
};

/// Whether it takes the token; `None` where it can't be asked.
pub(super) fn accepts(keys: &Keys, token: &Token, text: &str) -> Option<bool> {
    // It has no ES512, and reads no padded base64url.
    if token.kind == Kind::Alb || token.signer == "ES512" {
        return None;
    }
    Some(asked(keys, token.kind, text).is_some())
}

fn asked(keys: &Keys, kind: Kind, text: &str) -> Option<Map<String, Value>> {
    let (key, algorithm) = match kind {
        Kind::Hs256 => (
            DecodingKey::from_secret(keys.secret_bytes()),
            Algorithm::HS256,
        ),
        _ => {
            let kid = decode_header(text).ok()?.kid?;
            let jwk: Jwk = serde_json::from_value(keys.jwk(&kid)?.clone()).ok()?;
            (DecodingKey::from_jwk(&jwk).ok()?, kid.parse().ok()?)
        }
    };
    let mut validation = Validation::new(algorithm);
    let mut required = vec!["exp", "sub"];
    match kind {
        Kind::CognitoAccess => validation.validate_aud = false,
        Kind::CognitoId => validation.set_audience(&[CLIENT]),
        _ => validation.set_audience(&[AUDIENCE]),
    }
    if kind != Kind::CognitoAccess {
        required.push("aud");
    }
    if kind != Kind::JwtSvid {
        validation.set_issuer(&[ISSUER]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation.validate_nbf = true;
    validation.leeway = 5;
    decode::<Map<String, Value>>(text, &key, &validation)
        .ok()
        .map(|decoded| decoded.claims)
}

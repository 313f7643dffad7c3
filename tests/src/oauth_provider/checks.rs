//! RFC 6749 §2.3 and §4.4.2, RFC 7523 §3 (and its successor), RFC 8705 §2.1, draft-ietf-oauth-spiffe-client-auth.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, jwk::Jwk};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value};
use warifu::{
    jwt::{self, Profile},
    tls,
};

use super::Registered;

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// Longest life of an assertion.
const LONGEST: u64 = 5 * 60;

/// A scope, or an error code and why.
pub(super) type Verdict<T = Option<String>> = Result<T, (&'static str, String)>;

/// A request, taken apart.
pub(super) struct Asked {
    basic: Option<(String, String)>,
    form: BTreeMap<String, String>,
    pub(super) scope: Option<String>,
}

fn request(why: &str) -> (&'static str, String) {
    ("invalid_request", why.to_owned())
}

fn client(why: impl Into<String>) -> (&'static str, String) {
    ("invalid_client", why.into())
}

impl Asked {
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Verdict<Self> {
        let kind = headers.get(header::CONTENT_TYPE).map(|it| it.as_bytes());
        if kind != Some(b"application/x-www-form-urlencoded") {
            return Err(request("it is no form"));
        }
        let body = std::str::from_utf8(body).map_err(|_| request("it is no text"))?;
        let mut form = BTreeMap::new();
        for pair in body.split('&') {
            let (name, value) = pair.split_once('=').ok_or(request("no ="))?;
            if form.insert(decoded(name)?, decoded(value)?).is_some() {
                return Err(request("a parameter is there twice"));
            }
        }
        if form.get("grant_type").map(String::as_str) != Some("client_credentials") {
            return Err(("unsupported_grant_type", "not client_credentials".into()));
        }
        let mut lines = headers.get_all(header::AUTHORIZATION).iter();
        let basic = match lines.next() {
            None => None,
            Some(line) => Some(basic(line.to_str().unwrap_or_default())?),
        };
        if lines.next().is_some() {
            return Err(request("two Authorization headers"));
        }
        let scope = form.get("scope").cloned();
        if scope.as_ref().is_some_and(|it| it.contains("forbidden")) {
            return Err(("invalid_scope", "not for this client".into()));
        }
        Ok(Self { basic, form, scope })
    }

    pub(super) fn authenticate(
        &self,
        issuer: &str,
        clients: &BTreeMap<String, Registered>,
        seen: &mut BTreeSet<String>,
        peer: &[CertificateDer<'static>],
    ) -> Verdict<()> {
        let text = |name: &str| self.form.get(name).map(String::as_str);
        let assertion = text("client_assertion");
        let ways = [
            self.basic.is_some(),
            text("client_secret").is_some(),
            assertion.is_some(),
        ];
        if ways.iter().filter(|it| **it).count() > 1 {
            return Err(request("it authenticates in more than one way"));
        }
        if assertion.is_some() != text("client_assertion_type").is_some() {
            return Err(request("an assertion has a type, and a type an assertion"));
        }
        if let Some((id, secret)) = &self.basic {
            return match clients.get(id) {
                Some(Registered::Basic(secrets)) if secrets.contains(secret) => Ok(()),
                _ => Err(client("wrong by HTTP Basic")),
            };
        }
        if let Some(secret) = text("client_secret") {
            return match clients.get(text("client_id").unwrap_or_default()) {
                Some(Registered::Post(secrets)) if secrets.contains(&secret.to_owned()) => Ok(()),
                _ => Err(client("wrong by client_secret")),
            };
        }
        match (text("client_assertion_type"), assertion) {
            (Some(JWT_BEARER), Some(assertion)) => {
                let id = private_key_jwt(assertion, issuer, clients, seen)?;
                match text("client_id") {
                    Some(named) if named != id => Err(client("client_id is another")),
                    _ => Ok(()),
                }
            }
            (Some(JWT_SPIFFE), Some(assertion)) => {
                let id = spiffe_jwt(assertion, issuer, clients)?;
                match text("client_id") {
                    Some(named) if named != id => Err(client("client_id is another")),
                    _ => Ok(()),
                }
            }
            (Some(_), _) => Err(client("an unknown type of assertion")),
            (None, _) => tls_client_auth(text("client_id").unwrap_or_default(), clients, peer),
        }
    }
}

fn private_key_jwt(
    assertion: &str,
    issuer: &str,
    clients: &BTreeMap<String, Registered>,
    seen: &mut BTreeSet<String>,
) -> Verdict<String> {
    let wrong = |why: &str| client(format!("private_key_jwt: {why}"));
    let head = decode_header(assertion).map_err(|why| wrong(&why.to_string()))?;
    // Before its signature: which key? Nothing else is believed of it yet.
    let said = jsonwebtoken::dangerous::insecure_decode::<Map<String, Value>>(assertion);
    let said = said.map_err(|why| wrong(&why.to_string()))?.claims;
    let id = said.get("iss").and_then(Value::as_str).unwrap_or_default();
    let Some(Registered::PrivateKeyJwt { jwk, algorithm }) = clients.get(id) else {
        return Err(wrong("no such client"));
    };
    if head.alg != *algorithm {
        return Err(wrong("another algorithm than is registered"));
    }
    if !matches!(
        head.typ.as_deref(),
        Some("client-authentication+jwt" | "JWT")
    ) {
        return Err(wrong("typ"));
    }
    if head.kid.as_deref() != jwk["kid"].as_str() {
        return Err(wrong("no key with this kid"));
    }
    let jwk: Jwk = serde_json::from_value(jwk.clone()).map_err(|why| wrong(&why.to_string()))?;
    let key = DecodingKey::from_jwk(&jwk).map_err(|why| wrong(&why.to_string()))?;
    let mut validation = Validation::new(*algorithm);
    validation.set_audience(&[issuer]);
    validation.set_issuer(&[id]);
    validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
    validation.leeway = 0;
    let claims = decode::<Map<String, Value>>(assertion, &key, &validation);
    let claims = claims.map_err(|why| wrong(&why.to_string()))?.claims;
    // A string, and no list: for nobody else (the successor of RFC 7523, §4).
    if claims.get("aud").and_then(Value::as_str) != Some(issuer) {
        return Err(wrong("aud is not the issuer identifier alone"));
    }
    if claims.get("sub") != claims.get("iss") {
        return Err(wrong("sub is not iss"));
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let seconds = |name: &str| claims.get(name).and_then(Value::as_u64).unwrap_or_default();
    if seconds("exp") > now + LONGEST || seconds("iat") > now || seconds("iat") + LONGEST < now {
        return Err(wrong("it lives too long, or is of another time"));
    }
    let jti = claims
        .get("jti")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if jti.len() < 16 || !seen.insert(jti.to_owned()) {
        return Err(wrong("jti is missing, guessable, or was seen before"));
    }
    Ok(id.to_owned())
}

fn spiffe_jwt(
    assertion: &str,
    issuer: &str,
    clients: &BTreeMap<String, Registered>,
) -> Verdict<String> {
    let wrong = |why: &str| client(format!("jwt-spiffe: {why}"));
    let spiffe = clients.values().filter_map(|it| match it {
        Registered::SpiffeJwt { id, keys } => Some((id, keys)),
        _ => None,
    });
    for (id, keys) in spiffe {
        let profile = Profile::jwt_svid(vec![issuer.to_owned()]);
        let Ok(claims) = jwt::verify(assertion, &profile, keys, SystemTime::now()) else {
            continue;
        };
        if claims.audiences != [issuer] {
            return Err(wrong("aud is not the issuer identifier alone"));
        }
        if claims.subject == id.to_string() {
            return Ok(claims.subject);
        }
    }
    Err(wrong("no client verifies it"))
}

fn tls_client_auth(
    id: &str,
    clients: &BTreeMap<String, Registered>,
    peer: &[CertificateDer<'static>],
) -> Verdict<()> {
    let Some(Registered::Tls { id, roots }) = clients.get(id) else {
        return Err(client("no client authentication"));
    };
    let found = peer.first().and_then(tls::peer_id);
    if found.as_ref() != Some(id) {
        return Err(client(format!("the TLS peer is {found:?}, not {id}")));
    }
    tls::verify(peer, id, roots, SystemTime::now())
        .map_err(|why| client(format!("the TLS peer's chain: {why}")))
}

fn basic(line: &str) -> Verdict<(String, String)> {
    let encoded = line.strip_prefix("Basic ").ok_or(client("no HTTP Basic"))?;
    let pair = STANDARD.decode(encoded).map_err(|_| client("no base64"))?;
    let pair = String::from_utf8(pair).map_err(|_| client("no text"))?;
    let (id, secret) = pair.split_once(':').ok_or(client("no pair"))?;
    Ok((decoded(id)?, decoded(secret)?))
}

fn decoded(text: &str) -> Verdict<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let pair: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&pair, 16).map_err(|_| request("a wrong escape"))?
            }
            plain => plain,
        });
    }
    String::from_utf8(decoded).map_err(|_| request("no UTF-8"))
}

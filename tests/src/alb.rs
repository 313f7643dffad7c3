//! A stand-in for the load balancers of a region: they sign who the user is that one of them signed in, with keys that
//! are published by name, in PEM. <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html>

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::oidc::{Answer, Server, unix, uuid};

/// How long what an ALB says of a user is good.
const LIFE: Duration = Duration::from_secs(120);

/// The load balancers of a region, and where their keys are.
#[derive(Debug)]
pub struct LoadBalancers {
    server: Server,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug)]
struct Told {
    /// What each name is answered with.
    published: BTreeMap<String, String>,
    signing: (String, EcdsaKeyPair),
    away: bool,
    asked: Vec<String>,
}

/// What an ALB says: the header and the claims of its token.
#[derive(Debug, Clone)]
pub struct Said {
    /// `alg`, `kid`, `signer`, `iss`, `client`, `exp`.
    pub header: Value,
    /// `sub`, what the identity provider knows of the user, `iss`, `exp`.
    pub claims: Value,
}

impl LoadBalancers {
    /// With one key.
    pub async fn start() -> Self {
        let (name, key) = key();
        let told = Arc::new(Mutex::new(Told {
            published: BTreeMap::from([(format!("/{name}"), pem(&key))]),
            signing: (name, key),
            away: false,
            asked: Vec::new(),
        }));
        let shared = Arc::clone(&told);
        let server = Server::plain(move |request| answer(&request, &shared)).await;
        Self { server, told }
    }

    /// Where the keys are, by name.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// From now on another key signs; the old one stays published.
    pub fn rotate(&self) {
        let (name, key) = key();
        let mut told = self.told.lock().unwrap();
        told.published.insert(format!("/{name}"), pem(&key));
        told.signing = (name, key);
    }

    /// From now on the keys can't be had (503), or can again.
    pub fn is_away(&self, away: bool) {
        self.told.lock().unwrap().away = away;
    }

    /// The paths that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.told.lock().unwrap().asked.clone()
    }

    /// What `signer` says of a user whom it signed in by `issuer` as the client `client`.
    pub fn says(&self, signer: &str, issuer: &str, client: &str, user: Value) -> Said {
        let ends = unix(SystemTime::now() + LIFE);
        let name = self.told.lock().unwrap().signing.0.clone();
        let mut claims = json!({"exp": ends, "iss": issuer});
        if let (Some(claims), Value::Object(user)) = (claims.as_object_mut(), user) {
            claims.extend(user);
        }
        Said {
            header: json!({
                "typ": "JWT", "kid": name, "alg": "ES256", "iss": issuer, "client": client,
                "signer": signer, "exp": ends,
            }),
            claims,
        }
    }

    /// The value of `x-amzn-oidc-data`: each part in base64 with its padding, as an ALB alone has it.
    pub fn sign(&self, said: &Said) -> String {
        sign(said, &self.told.lock().unwrap().signing.1)
    }

    /// The same by a key of somebody else, whatever the header says of it.
    pub fn sign_by_another(&self, said: &Said) -> String {
        sign(said, &key().1)
    }
}

fn sign(said: &Said, key: &EcdsaKeyPair) -> String {
    let parts = [&said.header, &said.claims].map(|part| URL_SAFE.encode(part.to_string()));
    let signed = parts.join(".");
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE.encode(signature.as_ref()))
}

fn key() -> (String, EcdsaKeyPair) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    (uuid(), key)
}

fn pem(key: &EcdsaKeyPair) -> String {
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let base64 = STANDARD.encode(der.as_ref());
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let lines = lines.join("\n");
    format!("-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n")
}

fn answer(request: &Request<Bytes>, told: &Mutex<Told>) -> Answer {
    let path = request.uri().path().to_owned();
    let mut told = told.lock().unwrap();
    told.asked.push(path.clone());
    let (status, body) = match (told.away, told.published.get(&path)) {
        (true, _) => (503, "later".to_owned()),
        (false, Some(pem)) => (200, pem.clone()),
        (false, None) => (404, "no such key".to_owned()),
    };
    let answer = Response::builder().status(status).body(body.into());
    Box::pin(std::future::ready(answer.unwrap()))
}

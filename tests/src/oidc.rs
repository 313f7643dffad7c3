//! A stand-in OIDC issuer: real keys, discovery, JWKS, and whatever can go wrong with them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, header};
use serde_json::{Value, json};

mod keys;
mod server;

pub use keys::Algorithm;
pub(crate) use keys::uuid;
pub(crate) use server::{Answer, PeerCertificates, Server};

use keys::{Keys, encode};

/// OIDC Discovery §4.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Where AWS has it.
const JWKS: &str = "/.well-known/jwks.json";

/// How it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Well,
    /// 503.
    Failing,
    /// Never.
    Hanging,
    /// As it should, but only after this.
    Slow(Duration),
    /// As it should, and then ever more: 64 MiB.
    Huge,
    /// 302 to here.
    Redirecting(String),
    /// No JSON.
    Garbled,
    /// Discovery names this `issuer`.
    Posing(String),
}

/// An issuer on loopback.
pub struct Issuer {
    server: Server,
    told: Arc<Mutex<Told>>,
}

struct Told {
    url: String,
    mood: Mood,
    /// The last signs; all are published.
    keys: Vec<Keys>,
    generation: usize,
    asked: Vec<String>,
}

impl Issuer {
    /// Over plain HTTP, which loopback may have.
    pub async fn start() -> Self {
        let told = Arc::new(Mutex::new(Told::new()));
        let shared = Arc::clone(&told);
        let server = Server::plain(move |request| answer(&request, &shared)).await;
        Self::of(server, told)
    }

    /// Over TLS, by a CA of its own.
    pub async fn start_with_tls() -> Self {
        let told = Arc::new(Mutex::new(Told::new()));
        let shared = Arc::clone(&told);
        let server = Server::tls(move |request| answer(&request, &shared)).await;
        Self::of(server, told)
    }

    fn of(server: Server, told: Arc<Mutex<Told>>) -> Self {
        told.lock().unwrap().url = server.url();
        Self { server, told }
    }

    /// `iss` of its tokens.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Its keys' address.
    pub fn jwks_url(&self) -> String {
        format!("{}{JWKS}", self.url())
    }

    /// The CA of its certificate, where it has one.
    pub fn ca_pem(&self) -> Option<&str> {
        self.server.ca_pem()
    }

    /// From now on it answers like this; what hangs goes on hanging.
    pub fn is(&self, mood: Mood) {
        self.told.lock().unwrap().mood = mood;
    }

    /// A token of these claims, `iss` among them only if they have it.
    pub fn sign(&self, algorithm: Algorithm, claims: &Value) -> String {
        let header = self.header(algorithm);
        self.sign_as_is(algorithm, &header.to_string(), &claims.to_string())
    }

    /// The header it signs with.
    pub fn header(&self, algorithm: Algorithm) -> Value {
        let kid = self.told.lock().unwrap().signer().kid(algorithm);
        json!({"alg": algorithm.name(), "kid": kid, "typ": "JWT"})
    }

    /// Signs this very header and payload: for tokens no honest issuer makes.
    pub fn sign_as_is(&self, algorithm: Algorithm, header: &str, payload: &str) -> String {
        let signed = signed_part(header, payload);
        let signature = self
            .told
            .lock()
            .unwrap()
            .signer()
            .sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", encode(&signature))
    }

    /// The well-known forgery: HS256 with the public RSA key as the secret.
    pub fn sign_with_public_key(&self, claims: &Value) -> String {
        let told = self.told.lock().unwrap();
        let kid = told.signer().kid(Algorithm::Rs256);
        let header = json!({"alg": "HS256", "kid": kid, "typ": "JWT"});
        let signed = signed_part(&header.to_string(), &claims.to_string());
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &told.signer().rsa_der());
        let tag = hmac::sign(&secret, signed.as_bytes());
        format!("{signed}.{}", encode(tag.as_ref()))
    }

    /// The other one: no signature.
    pub fn unsigned(&self, claims: &Value) -> String {
        let header = json!({"alg": "none", "typ": "JWT"});
        format!("{}.", signed_part(&header.to_string(), &claims.to_string()))
    }

    /// New keys sign; the old stay published.
    pub fn rotate(&self) {
        let mut told = self.told.lock().unwrap();
        told.generation += 1;
        let keys = Keys::generate(told.generation);
        told.keys.push(keys);
    }

    /// Publishes the newest keys only.
    pub fn retire(&self) {
        let mut told = self.told.lock().unwrap();
        let newest = told.keys.len() - 1;
        told.keys.drain(..newest);
    }

    /// How often its keys were fetched.
    pub fn jwks_fetches(&self) -> usize {
        self.asked().iter().filter(|path| *path == JWKS).count()
    }

    /// What was asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.told.lock().unwrap().asked.clone()
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

impl Told {
    fn new() -> Self {
        Self {
            url: String::new(),
            mood: Mood::Well,
            keys: vec![Keys::generate(0)],
            generation: 0,
            asked: Vec::new(),
        }
    }

    fn signer(&self) -> &Keys {
        self.keys.last().unwrap()
    }

    fn document(&self, path: &str) -> Option<Value> {
        let issuer = match &self.mood {
            Mood::Posing(as_issuer) => as_issuer,
            _ => &self.url,
        };
        match path {
            DISCOVERY => Some(json!({
                "issuer": issuer,
                "jwks_uri": format!("{}{JWKS}", self.url),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256", "ES384"],
            })),
            JWKS => {
                let keys: Vec<Value> = self.keys.iter().flat_map(Keys::jwks).collect();
                Some(json!({"keys": keys}))
            }
            _ => None,
        }
    }
}

fn answer(request: &Request<Bytes>, told: &Mutex<Told>) -> Answer {
    let path = request.uri().path().to_owned();
    let (mood, document) = {
        let mut told = told.lock().unwrap();
        told.asked.push(path.clone());
        (told.mood.clone(), told.document(&path))
    };
    Box::pin(async move {
        let Some(document) = document else {
            return status(404, "not here");
        };
        match mood {
            Mood::Well | Mood::Posing(_) => {}
            Mood::Failing => return status(503, "later"),
            Mood::Hanging => std::future::pending().await,
            Mood::Slow(wait) => tokio::time::sleep(wait).await,
            Mood::Huge => {
                let mut body = document.to_string();
                body.push_str(&" ".repeat(64 * 1024 * 1024));
                return Response::new(body.into());
            }
            Mood::Redirecting(to) => {
                let answer = Response::builder().status(302).header(header::LOCATION, to);
                return answer.body(Bytes::new()).unwrap();
            }
            Mood::Garbled => return Response::new("<html>sign in</html>".into()),
        }
        let answer = Response::builder().header(header::CONTENT_TYPE, "application/json");
        answer.body(document.to_string().into()).unwrap()
    })
}

fn status(code: u16, text: &'static str) -> Response<Bytes> {
    Response::builder().status(code).body(text.into()).unwrap()
}

fn signed_part(header: &str, payload: &str) -> String {
    format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(payload.as_bytes())
    )
}

/// The payload of a token, whoever signed it.
pub(crate) fn payload(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("three parts");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&payload).expect("JSON")
}

/// Seconds since 1970.
pub fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Claims of a token that is good now, for five minutes: `iss`, `sub`, `aud`, and `more`.
pub fn claims(issuer: &Issuer, subject: &str, audience: &str, more: Value) -> Value {
    let now = unix(SystemTime::now());
    let mut claims = json!({
        "iss": issuer.url(), "sub": subject, "aud": audience,
        "iat": now, "nbf": now, "exp": now + 300, "jti": uuid(),
    });
    if let (Some(claims), Value::Object(more)) = (claims.as_object_mut(), more) {
        claims.extend(more.into_iter().collect::<BTreeMap<_, _>>());
    }
    claims
}

//! Stand-in upstreams that look at what an agent attaches: a service that knows a secret header alone, and a user pool of
//! Amazon Cognito that checks SECRET_HASH (which no emulator does).

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::oidc::{Answer, Server};

/// A service that takes requests with one of some values in a header, and refuses all others.
#[derive(Debug)]
pub struct Keyed {
    server: Server,
    told: Arc<Mutex<KeyedTold>>,
}

#[derive(Debug, Default)]
struct KeyedTold {
    takes: BTreeSet<String>,
    asked: usize,
    refused: usize,
    last: HeaderMap,
}

impl Keyed {
    /// Looks at the header `name`; refuses with `status`.
    pub async fn start(name: &'static str, status: u16) -> Self {
        let told = Arc::new(Mutex::new(KeyedTold::default()));
        let shared = Arc::clone(&told);
        let server = Server::plain(move |request| keyed(name, status, &request, &shared)).await;
        Self { server, told }
    }

    /// For `upstream:`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// From now on it takes these and no others.
    pub fn takes(&self, values: &[&str]) {
        let values = values.iter().map(|it| (*it).to_owned()).collect();
        self.told.lock().unwrap().takes = values;
    }

    /// Requests so far, and how many of them it refused.
    pub fn asked(&self) -> (usize, usize) {
        let told = self.told.lock().unwrap();
        (told.asked, told.refused)
    }

    /// The headers of the last request.
    pub fn last(&self) -> HeaderMap {
        self.told.lock().unwrap().last.clone()
    }
}

fn keyed(
    name: &str,
    status: u16,
    request: &Request<Bytes>,
    told: &Arc<Mutex<KeyedTold>>,
) -> Answer {
    let mut told = told.lock().unwrap();
    told.asked += 1;
    told.last = request.headers().clone();
    let mut lines = request.headers().get_all(name).iter();
    let value = lines.next().and_then(|it| it.to_str().ok());
    let taken = lines.next().is_none() && value.is_some_and(|it| told.takes.contains(it));
    if !taken {
        told.refused += 1;
    }
    let status = if taken { 200 } else { status };
    let mut response = Response::new(Bytes::from_static(b"{}"));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    Box::pin(async move { response })
}

/// A user pool with one app client that has a secret.
#[derive(Debug)]
pub struct UserPool {
    server: Server,
    told: Arc<Mutex<PoolTold>>,
}

#[derive(Debug)]
struct PoolTold {
    client_id: String,
    secrets: BTreeSet<String>,
    /// Action and body of each request whose hash was right.
    taken: Vec<(String, Value)>,
    refused: usize,
}

impl UserPool {
    /// With this app client, and any of its secrets.
    pub async fn start(client_id: &str, secret: &str) -> Self {
        let told = Arc::new(Mutex::new(PoolTold {
            client_id: client_id.to_owned(),
            secrets: BTreeSet::from([secret.to_owned()]),
            taken: Vec::new(),
            refused: 0,
        }));
        let shared = Arc::clone(&told);
        let server = Server::plain(move |request| {
            let response = pool(&request, &mut shared.lock().unwrap());
            Box::pin(async move { response })
        })
        .await;
        Self { server, told }
    }

    /// Where it listens, as the `upstream:` of a route.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        let url = self.url();
        url.trim_start_matches("http://").parse().unwrap()
    }

    /// From now on it takes these secrets.
    pub fn takes(&self, secrets: &[&str]) {
        let secrets = secrets.iter().map(|it| (*it).to_owned()).collect();
        self.told.lock().unwrap().secrets = secrets;
    }

    /// Action and body of each request it took.
    pub fn taken(&self) -> Vec<(String, Value)> {
        self.told.lock().unwrap().taken.clone()
    }

    /// How many it refused.
    pub fn refused(&self) -> usize {
        self.told.lock().unwrap().refused
    }
}

/// As Cognito answers: a hash that is missing or wrong is a 400 that says so.
fn pool(request: &Request<Bytes>, told: &mut PoolTold) -> Response<Bytes> {
    let target = request.headers().get("x-amz-target");
    let target = target.and_then(|it| it.to_str().ok()).unwrap_or_default();
    let action = target.rsplit('.').next().unwrap_or_default().to_owned();
    let Ok(body) = serde_json::from_slice::<Value>(request.body()) else {
        return says("SerializationException", "no JSON");
    };
    let (user, hash) = match action.as_str() {
        "InitiateAuth" => ("/AuthParameters/USERNAME", "/AuthParameters/SECRET_HASH"),
        "RespondToAuthChallenge" => (
            "/ChallengeResponses/USERNAME",
            "/ChallengeResponses/SECRET_HASH",
        ),
        _ => ("/Username", "/SecretHash"),
    };
    let text = |at: &str| body.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let client = told.client_id.clone();
    if text("/ClientId").as_ref() != Some(&client) {
        return says("ResourceNotFoundException", "no such client");
    }
    let (user, hash) = (text(user).unwrap_or_default(), text(hash));
    let right = told.secrets.iter().any(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, format!("{user}{client}").as_bytes());
        hash.as_deref() == Some(STANDARD.encode(tag.as_ref()).as_str())
    });
    if !right {
        told.refused += 1;
        let why = format!("Unable to verify secret hash for client {client}");
        return says("NotAuthorizedException", &why);
    }
    told.taken.push((action, body));
    Response::new(Bytes::from_static(b"{}"))
}

fn says(kind: &str, message: &str) -> Response<Bytes> {
    let body = json!({"__type": kind, "message": message});
    Response::builder()
        .status(400)
        .header("x-amzn-errortype", format!("{kind}:"))
        .header("x-amzn-errormessage", message)
        .body(Bytes::from(body.to_string()))
        .unwrap()
}

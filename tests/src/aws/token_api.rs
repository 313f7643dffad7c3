//! A service that is called with bearer tokens, and says what they say.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION};
use serde_json::Value;

use crate::oidc::{Answer, Server};

/// The service.
#[derive(Debug)]
pub struct TokenApi {
    server: Server,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    /// Different ones, in order.
    tokens: Vec<String>,
    refused: BTreeSet<String>,
    refuses_all: bool,
    calls: usize,
}

impl TokenApi {
    /// One that takes every token.
    pub async fn start() -> Self {
        let told = Arc::<Mutex<Told>>::default();
        let shared = Arc::clone(&told);
        let server = Server::plain(move |request| answer(&request, &shared)).await;
        Self { server, told }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// How many different tokens it was called with.
    pub fn tokens(&self) -> usize {
        self.told.lock().unwrap().tokens.len()
    }

    /// How often it was called.
    pub fn calls(&self) -> usize {
        self.told.lock().unwrap().calls
    }

    /// Header and claims of the last new token.
    pub fn last(&self) -> (Value, Value) {
        let told = self.told.lock().unwrap();
        let token = told.tokens.last().expect("a token");
        let part = |n: usize| {
            let part = URL_SAFE_NO_PAD.decode(token.split('.').nth(n).unwrap());
            serde_json::from_slice(&part.unwrap()).unwrap()
        };
        (part(0), part(1))
    }

    /// From now on the tokens it has seen are answered 401.
    pub fn refuse_those_seen(&self) {
        let mut told = self.told.lock().unwrap();
        told.refused = told.tokens.iter().cloned().collect();
    }

    /// From now on every token is.
    pub fn refuse_all(&self) {
        self.told.lock().unwrap().refuses_all = true;
    }
}

fn answer(request: &Request<Bytes>, told: &Mutex<Told>) -> Answer {
    let token = request.headers().get(AUTHORIZATION);
    let token = token.and_then(|it| it.to_str().ok()?.strip_prefix("Bearer "));
    let token = token.unwrap_or_default().to_owned();
    let mut told = told.lock().unwrap();
    told.calls += 1;
    let is_refused = token.is_empty() || told.refuses_all || told.refused.contains(&token);
    if !token.is_empty() && !told.tokens.contains(&token) {
        told.tokens.push(token);
    }
    let status = if is_refused { 401 } else { 200 };
    Box::pin(async move {
        let answer = Response::builder().status(status);
        answer.body(Bytes::from_static(b"{}")).unwrap()
    })
}

//! A stand-in authorization server that gives tokens for client credentials, and looks at them as strictly as the RFCs
//! say: one way of authenticating, no parameter twice, an assertion once, its audience exactly, its times. And whatever
//! can go wrong with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use warifu::{SpiffeId, jwt::KeySet};

use crate::oidc::{Answer, PeerCertificates, Server};

mod checks;

use checks::Verdict;

/// A client, as it is registered.
#[derive(Debug, Clone)]
pub enum Registered {
    /// `client_secret_basic`, with any of these.
    Basic(Vec<String>),
    /// `client_secret_post`, with any of these.
    Post(Vec<String>),
    /// `private_key_jwt`: this public key (a JWK) with this algorithm.
    PrivateKeyJwt {
        /// Its JWK.
        jwk: serde_json::Value,
        /// The one algorithm.
        algorithm: jsonwebtoken::Algorithm,
    },
    /// A JWT-SVID of this workload, by these keys.
    SpiffeJwt {
        /// Who it must be.
        id: SpiffeId,
        /// The trust domain's keys.
        keys: KeySet,
    },
    /// `tls_client_auth` by the URI SAN, under these roots.
    Tls {
        /// Who it must be.
        id: SpiffeId,
        /// The trust domain's roots.
        roots: Vec<CertificateDer<'static>>,
    },
}

/// What it does instead of answering as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing is wrong.
    None,
    /// This status, and this body.
    Says(u16, String),
    /// 429 with `Retry-After: 1`.
    Throttles,
    /// No answer.
    Hangs,
    /// Half of an answer.
    Torn,
    /// A megabyte.
    Oversized,
    /// 307 to here.
    Redirects(String),
    /// Answers as it should, after this.
    Slow(Duration),
}

/// A token endpoint on loopback.
#[derive(Debug)]
pub struct Provider {
    server: Server,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug)]
struct Told {
    issuer: String,
    clients: BTreeMap<String, Registered>,
    assertions: BTreeSet<String>,
    trouble: Trouble,
    expires_in: Option<u64>,
    asked: usize,
    issued: Vec<String>,
    refused: Vec<String>,
}

impl Provider {
    /// Over plain HTTP, which loopback may have.
    pub async fn start() -> Self {
        let told = Arc::new(Mutex::new(Told::new()));
        let shared = Arc::clone(&told);
        let server = Server::plain(move |request| answer(request, &shared)).await;
        Self::of(server, told)
    }

    /// Over TLS, by a CA of its own, asking for client certificates.
    pub async fn start_with_tls() -> Self {
        let told = Arc::new(Mutex::new(Told::new()));
        let shared = Arc::clone(&told);
        let server = Server::mutual_tls(move |request| answer(request, &shared)).await;
        Self::of(server, told)
    }

    fn of(server: Server, told: Arc<Mutex<Told>>) -> Self {
        told.lock().unwrap().issuer = server.url();
        Self { server, told }
    }

    /// Its issuer identifier.
    pub fn issuer(&self) -> String {
        self.server.url()
    }

    /// Its token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}/token", self.issuer())
    }

    /// The CA of its certificate.
    pub fn ca_pem(&self) -> &str {
        self.server.ca_pem().expect("it has TLS")
    }

    /// From now on it knows this client.
    pub fn register(&self, id: &str, client: Registered) {
        self.told
            .lock()
            .unwrap()
            .clients
            .insert(id.to_owned(), client);
    }

    /// From now on it has this trouble.
    pub fn has(&self, trouble: Trouble) {
        self.told.lock().unwrap().trouble = trouble;
    }

    /// From now on its tokens live so many seconds.
    pub fn expires_in(&self, seconds: Option<u64>) {
        self.told.lock().unwrap().expires_in = seconds;
    }

    /// Requests to the token endpoint so far.
    pub fn asked(&self) -> usize {
        self.told.lock().unwrap().asked
    }

    /// The tokens it gave, in order.
    pub fn issued(&self) -> Vec<String> {
        self.told.lock().unwrap().issued.clone()
    }

    /// Why it refused, in order.
    pub fn refused(&self) -> Vec<String> {
        self.told.lock().unwrap().refused.clone()
    }
}

impl Told {
    fn new() -> Self {
        Self {
            issuer: String::new(),
            clients: BTreeMap::new(),
            assertions: BTreeSet::new(),
            trouble: Trouble::None,
            expires_in: Some(300),
            asked: 0,
            issued: Vec::new(),
            refused: Vec::new(),
        }
    }
}

fn answer(request: Request<Bytes>, told: &Arc<Mutex<Told>>) -> Answer {
    let told = Arc::clone(told);
    Box::pin(async move {
        let trouble = {
            let mut told = told.lock().unwrap();
            told.asked += 1;
            told.trouble.clone()
        };
        match trouble {
            Trouble::None => {}
            Trouble::Slow(wait) => tokio::time::sleep(wait).await,
            Trouble::Hangs => std::future::pending().await,
            Trouble::Says(status, body) => return plain(status, "application/json", body),
            Trouble::Throttles => {
                let mut response = plain(429, "application/json", String::new());
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, "1".parse().unwrap());
                return response;
            }
            Trouble::Torn => {
                let half = r#"{"access_token":"torn","token_ty"#;
                return plain(200, "application/json", half.to_owned());
            }
            Trouble::Oversized => {
                let padding = "x".repeat(1 << 20);
                let body = json!({"access_token": "big", "token_type": "Bearer", "x": padding});
                return plain(200, "application/json", body.to_string());
            }
            Trouble::Redirects(to) => {
                let mut response = plain(307, "text/plain", String::new());
                let headers = response.headers_mut();
                headers.insert(header::LOCATION, to.parse().unwrap());
                return response;
            }
        }
        let (head, body) = request.into_parts();
        let peer = head.extensions.get::<PeerCertificates>().cloned();
        let mut told = told.lock().unwrap();
        let verdict = match (head.method.as_str(), head.uri.path()) {
            ("POST", "/token") => told.judge(&head.headers, &body, peer.as_ref()),
            _ => Err(("invalid_request", "it is no POST to /token".to_owned())),
        };
        match verdict {
            Ok(scope) => {
                let token = format!("at.{}.{}", told.issued.len(), crate::oidc::uuid());
                told.issued.push(token.clone());
                let mut body = json!({"access_token": token, "token_type": "Bearer"});
                if let Some(seconds) = told.expires_in {
                    body["expires_in"] = seconds.into();
                }
                if let Some(scope) = scope {
                    body["scope"] = scope.into();
                }
                plain(200, "application/json", body.to_string())
            }
            Err((error, why)) => {
                told.refused.push(why.clone());
                let status = if error == "invalid_client" { 401 } else { 400 };
                let body = json!({"error": error, "error_description": why});
                plain(status, "application/json", body.to_string())
            }
        }
    })
}

impl Told {
    /// The scope it grants, or the error.
    fn judge(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        peer: Option<&PeerCertificates>,
    ) -> Verdict {
        let asked = checks::Asked::read(headers, body)?;
        asked.authenticate(
            &self.issuer,
            &self.clients,
            &mut self.assertions,
            peer.map(|it| it.0.as_slice()).unwrap_or_default(),
        )?;
        Ok(asked.scope)
    }
}

fn plain(status: u16, content_type: &str, body: String) -> Response<Bytes> {
    Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CACHE_CONTROL, "no-store")
        .body(Bytes::from(body))
        .unwrap()
}

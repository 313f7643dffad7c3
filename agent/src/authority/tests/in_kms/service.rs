//! A KMS on loopback with true P-256 keys and AES-GCM, which can be away, or wrong. It looks at no signature of a
//! request: ministack does, in the scenarios.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use aws_types::SdkConfig;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{aws, config::aws::Aws};

pub(super) const WRAP: &str = "alias/warifu-wrap";

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Fine,
    /// Breaks every connection.
    Away,
    /// Signs something else than it is asked to.
    Lies,
    /// Refuses this action, with this error.
    Refuses(&'static str, &'static str),
}

#[derive(Debug)]
pub(super) struct Service {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    mood: Mutex<Mood>,
    keys: Mutex<HashMap<String, EcdsaKeyPair>>,
    calls: Mutex<BTreeMap<String, usize>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("mood", &self.mood)
            .finish_non_exhaustive()
    }
}

impl Service {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            mood: Mutex::new(Mood::Fine),
            keys: Mutex::default(),
            calls: Mutex::default(),
        });
        let served = Arc::clone(&state);
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&served);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            address,
            state,
            server,
        }
    }

    pub(super) fn set(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
    }

    /// How often an action was asked for.
    pub(super) fn calls(&self, action: &str) -> usize {
        *self.state.calls.lock().unwrap().get(action).unwrap_or(&0)
    }

    /// What clients of it are made of.
    pub(super) async fn sdk(&self) -> SdkConfig {
        let aws = Aws {
            region: Some("eu-west-1".into()),
            ..Aws::default()
        };
        let keys = Credentials::new("AKIA", "in_kms-secret", None, None, "test");
        let keys = SharedCredentialsProvider::new(keys);
        let sdk = aws::sdk_at(&aws, keys, &format!("http://{}", self.address)).await;
        let once = aws_config::retry::RetryConfig::disabled();
        sdk.unwrap().into_builder().retry_config(once).build()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let target = request.headers()["x-amz-target"]
        .to_str()
        .unwrap()
        .to_owned();
    let action = target.strip_prefix("TrentService.").unwrap().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let asked: Value = serde_json::from_slice(&body).unwrap();
    *state
        .calls
        .lock()
        .unwrap()
        .entry(action.clone())
        .or_default() += 1;
    let mood = *state.mood.lock().unwrap();
    let (status, body) = match mood {
        Mood::Away => return Err(std::io::ErrorKind::ConnectionAborted.into()),
        Mood::Refuses(refused, code) if refused == action => (
            400,
            json!({"__type": code, "message": "as the test wants it"}),
        ),
        _ => (200, state.answer(&action, &asked, mood)),
    };
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.1");
    Ok(response.body(Full::from(body.to_string())).unwrap())
}

impl State {
    fn answer(&self, action: &str, asked: &Value, mood: Mood) -> Value {
        let id = asked["KeyId"].as_str().unwrap();
        let arn = match id.starts_with("arn:") {
            true => id.to_owned(),
            false => format!(
                "arn:aws:kms:eu-west-1:123456789012:key/{}",
                id.replace('/', "-")
            ),
        };
        let bytes = |field: &str| STANDARD.decode(asked[field].as_str().unwrap()).unwrap();
        match action {
            "DescribeKey" => {
                let (spec, usage) = match id == WRAP {
                    true => ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"),
                    false => ("ECC_NIST_P256", "SIGN_VERIFY"),
                };
                json!({"KeyMetadata": {
                    "KeyId": arn, "Arn": arn, "Enabled": true, "KeyState": "Enabled",
                    "KeySpec": spec, "KeyUsage": usage,
                }})
            }
            "GetPublicKey" => {
                let mut keys = self.keys.lock().unwrap();
                let key = keys.entry(arn.clone()).or_insert_with(new_key);
                use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
                let spki: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
                json!({"KeyId": arn, "PublicKey": STANDARD.encode(spki.as_ref())})
            }
            "Sign" => {
                assert_eq!(asked["MessageType"], "DIGEST");
                assert_eq!(asked["SigningAlgorithm"], "ECDSA_SHA_256");
                let mut digest = bytes("Message");
                if mood == Mood::Lies {
                    digest[0] ^= 1;
                }
                let keys = self.keys.lock().unwrap();
                let digest = aws_lc_rs::digest::Digest::import_less_safe(
                    &digest,
                    &aws_lc_rs::digest::SHA256,
                );
                let key = &keys[&arn];
                let signature = key.sign_digest(&digest.unwrap()).unwrap();
                json!({"KeyId": arn, "Signature": STANDARD.encode(signature)})
            }
            // Enough to notice another context or other bytes.
            "Encrypt" => {
                let context = asked["EncryptionContext"].to_string();
                let sealed = [context.as_bytes(), b"\n", &bytes("Plaintext")].concat();
                json!({"KeyId": arn, "CiphertextBlob": STANDARD.encode(sealed)})
            }
            "Decrypt" => {
                let context = asked["EncryptionContext"].to_string();
                let sealed = bytes("CiphertextBlob");
                let plain = sealed.strip_prefix(format!("{context}\n").as_bytes());
                let plain = STANDARD.encode(plain.expect("the context it was sealed with"));
                json!({"KeyId": arn, "Plaintext": plain})
            }
            other => panic!("nobody should ask for {other}"),
        }
    }
}

fn new_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()
}

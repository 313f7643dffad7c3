//! `sts:GetCallerIdentity`, signed and never sent: the authority presents the signature to STS, is told whose it is, and
//! answers with an access token. The contract is `docs/issuing-api.md`; nothing here outlives one exchange but the key.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Authority, Role, SessionKeys, TokenError,
    cache::{Mint, Minted, Minting},
    https::{Answer, Connection, Failed},
    region::sts_host,
    sigv4::{Signing, timestamp},
};
use crate::{Secret, jwt::SigningKey};

/// The body of the request that is signed, and its type: the authority makes the same.
const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// What the authority calls a challenge that was too old, or used, when it was presented.
const INVALID_CHALLENGE: &str = "invalid_challenge";

/// Most of the authority's words that an error repeats.
const MAX_WORDS: usize = 1000;

/// Access tokens for one audience.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) role: Role,
    pub(super) authority: Authority,
    pub(super) audience: String,
    pub(super) scopes: Vec<String>,
    /// What evidence is bound to, so that it is worth nothing to whoever else sees it.
    pub(super) key: SigningKey,
}

#[derive(Deserialize)]
struct Challenge {
    challenge: String,
    /// The authority's clock.
    time: u64,
}

#[derive(Serialize)]
struct Request<'a> {
    challenge: &'a str,
    evidence: Evidence<'a>,
    renewal_key: Value,
    audience: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    scopes: &'a [String],
    proof: String,
}

#[derive(Serialize)]
struct Evidence<'a> {
    kind: &'static str,
    region: &'a str,
    access_key_id: &'a str,
    date: &'a str,
    session_token: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct AccessToken {
    token: String,
    /// By the authority's clock.
    expires_at: u64,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    message: String,
}

impl Mint for Exchange {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async {
            let keys = self.role.credentials.keys().await?;
            match self.once(&keys).await {
                Err(TokenError::Refused { code, .. }) if code == INVALID_CHALLENGE => {
                    self.once(&keys).await
                }
                outcome => outcome,
            }
        })
    }
}

impl Exchange {
    async fn once(&self, keys: &SessionKeys) -> Result<Minted, TokenError> {
        let Authority { origin, tls, .. } = &self.authority;
        let mut connection = Connection::open(origin, tls.clone())
            .await
            .map_err(|why| self.failed(why))?;
        let given: Challenge = self
            .post(&mut connection, "/v1/challenge", Bytes::new())
            .await?;
        let body = self.request(keys, &given.challenge)?;
        let granted: AccessToken = self.post(&mut connection, "/v1/exchange", body).await?;
        Ok(Minted {
            token: Secret::new(granted.token),
            // Both by one clock, which need not be ours.
            life: Duration::from_secs(granted.expires_at.saturating_sub(given.time)),
        })
    }

    fn request(&self, keys: &SessionKeys, challenge: &str) -> Result<Bytes, TokenError> {
        let public = self.key.public();
        let binding = format!(
            "{}.{challenge}",
            URL_SAFE_NO_PAD.encode(public.spki_sha256())
        );
        let (host, date) = (sts_host(&self.role.region), timestamp(SystemTime::now()));
        let token = keys.session_token.expose();
        let signing = Signing {
            keys,
            region: &self.role.region,
            service: "sts",
            date: &date,
        };
        let headers = [
            ("content-type", FORM),
            ("host", &host),
            ("x-amz-date", &date),
            ("x-amz-security-token", token),
            ("x-warifu-binding", &binding),
        ];
        let signature = signing.signature(&headers, BODY);
        let transcript = self.transcript(challenge, &public.thumbprint(), &signature);
        let request = Request {
            challenge,
            evidence: Evidence {
                kind: "aws-caller-identity",
                region: &self.role.region,
                access_key_id: &keys.access_key_id,
                date: &date,
                session_token: token,
                signature: &signature,
            },
            renewal_key: public.to_json("sig"),
            audience: &self.audience,
            scopes: &self.scopes,
            proof: URL_SAFE_NO_PAD.encode(self.key.sign_raw(transcript.as_bytes())),
        };
        let body = serde_json::to_vec(&request)
            .map_err(|why| TokenError::setting(format!("the request can't be written: {why}")))?;
        Ok(body.into())
    }

    /// What the key signs: a line for each thing that is asked for.
    fn transcript(&self, challenge: &str, thumbprint: &str, signature: &str) -> String {
        let mut text = format!(
            "warifu issuing api v1: exchange\n{}\n{}\n{thumbprint}\naws-caller-identity {}\n{}\n",
            self.authority.trust_domain,
            hash(challenge),
            hash(signature),
            hash(&self.audience),
        );
        for scope in &self.scopes {
            text.push_str(&hash(scope));
            text.push('\n');
        }
        text
    }

    async fn post<A: DeserializeOwned>(
        &self,
        connection: &mut Connection,
        path: &'static str,
        body: Bytes,
    ) -> Result<A, TokenError> {
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, json)]);
        let answer = connection.post(path, headers, body).await;
        let answer = answer.map_err(|why| self.failed(why))?;
        if answer.status.is_success() {
            // What is not understood may hold a token: serde's words would show a part of it.
            return serde_json::from_slice(&answer.body).map_err(|_| TokenError::NotUnderstood {
                by: self.name(),
                why: format!("{path}: not the JSON that it has"),
            });
        }
        Err(self.refused(path, &answer))
    }

    fn refused(&self, path: &str, answer: &Answer) -> TokenError {
        let by = self.name();
        let status = answer.status;
        let Ok(ErrorBody { error, message }) = serde_json::from_slice(&answer.body) else {
            let why = format!("{path}: {status}");
            return TokenError::NotUnderstood { by, why };
        };
        let message: String = message.chars().take(MAX_WORDS).collect();
        let passes = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
        match passes {
            true => TokenError::Unavailable {
                by,
                code: error,
                message,
                retry_after: answer.retry_after,
            },
            false => TokenError::Refused {
                by,
                code: error,
                message,
            },
        }
    }

    fn failed(&self, why: Failed) -> TokenError {
        let url = self.authority.origin.to_string();
        match why {
            Failed::Unreachable(why) => TokenError::Unreachable {
                whom: self.name(),
                why,
                check: "does it run, and may this program connect to it?",
            },
            Failed::Untrusted(why) => TokenError::NotTheAuthority {
                url,
                trust_domain: self.authority.trust_domain.to_string(),
                why,
            },
        }
    }

    fn name(&self) -> String {
        format!("the authority at {}", self.authority.origin)
    }
}

fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

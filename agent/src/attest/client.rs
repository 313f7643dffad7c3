//! The agent's side of the issuing API.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;
use warifu::{
    SpiffeId, TrustDomain,
    identity::TrustBundle,
    jwt::SigningKey,
    tls::{self, Anchors},
};

use super::{
    AnchorError, ClientError, anchors,
    connection::{self, Connected, Sender, Target},
    proof,
    skew::Skew,
    wire::{self, Base64, ErrorCode, Evidence},
};
use crate::{
    config::agent::AuthorityRef,
    revocation::{List, Published},
};

mod admin;
mod tokens;

pub use tokens::{AccessToken, AccessTokenKeys, MintedJwt};

/// Time from a request to its whole answer. Above the server's own limits, so that it is the one who says why.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest `Retry-After` we heed: an authority that asks for more is asked again anyway.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// "Not known" in [`Client::skew_ms`].
const NO_SKEW: i64 = i64::MIN;

/// Makes evidence for a challenge: only some kinds sign it. Called again for another challenge.
pub type MakeEvidence = dyn Fn(&str) -> Result<Evidence, ClientError> + Send + Sync;

/// Evidence that is the same whatever the challenge: a token.
pub fn bearer(evidence: Evidence) -> Box<MakeEvidence> {
    Box::new(move |_| Ok(evidence.clone()))
}

/// Talks to one authority. All methods may be called at once; they share one connection.
#[derive(Debug)]
pub struct Client {
    target: Target,
    trust_domain: TrustDomain,
    /// `spiffe://TD/warifu/authority`.
    expected: SpiffeId,
    /// Trusted whatever happens: the configuration's.
    configured: Anchors,
    /// For the next connection: `configured` and the bundle's roots.
    tls: ArcSwap<ClientConfig>,
    /// Whose keys an authority's chain must not hold.
    revoked: ArcSwap<List>,
    connection: tokio::sync::Mutex<Option<Kept>>,
    connections: AtomicU64,
    /// The authority's clock minus ours, milliseconds.
    skew_ms: AtomicI64,
}

/// The connection that is kept.
#[derive(Debug)]
struct Kept {
    id: u64,
    connected: Connected,
}

/// What the authority granted: everything but the private key, which never left.
#[derive(Debug)]
pub struct Credentials {
    /// Leaf, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Of the workload's further identities.
    pub further: Vec<FurtherChain>,
    /// The trust bundle.
    pub bundle: TrustBundle,
    /// The attestation record.
    pub record: String,
    /// When the record expires.
    pub record_expires_at: SystemTime,
}

/// The certificates of a further identity, for the same key.
#[derive(Debug)]
pub struct FurtherChain {
    /// Leaf, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// What it is for.
    pub hint: Option<String>,
}

impl Client {
    /// A client for the configured authority. Connects when first used.
    ///
    /// # Errors
    /// When `authority.bundle` can't be read, or there is nothing to know the authority by.
    pub fn new(trust_domain: &TrustDomain, authority: &AuthorityRef) -> Result<Self, AnchorError> {
        let configured = anchors::load(authority)?;
        let expected = authority_id(trust_domain).ok_or(AnchorError::None)?;
        let tls = tls_config(&configured, &expected).map_err(|_| AnchorError::None)?;
        Ok(Self {
            target: Target {
                url: format!("https://{}:{}", authority.url.host, authority.url.port),
                origin: authority.url.clone(),
                trust_domain: trust_domain.to_string(),
            },
            trust_domain: trust_domain.clone(),
            expected,
            configured,
            tls: ArcSwap::from_pointee(tls),
            revoked: ArcSwap::default(),
            connection: tokio::sync::Mutex::new(None),
            connections: AtomicU64::new(0),
            skew_ms: AtomicI64::new(NO_SKEW),
        })
    }

    /// The trust domain it asks for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// From now on accepts an authority under the roots of `bundle`, too: how an agent follows a
    /// root rotation without new pins.
    pub fn trust(&self, bundle: &TrustBundle) {
        let mut anchors = self.configured.clone();
        anchors
            .roots
            .extend(bundle.x509_authorities.iter().cloned());
        match tls_config(&anchors, &self.expected) {
            Ok(config) => self.tls.store(Arc::new(config)),
            Err(why) => tracing::warn!(%why, "the bundle's roots cannot verify the authority"),
        }
    }

    /// From now on accepts no authority whose chain has a key that `list` revokes: a stolen intermediate can
    /// sign a certificate of the authority's name, too.
    pub fn distrust(&self, list: List) {
        self.revoked.store(Arc::new(list));
    }

    /// The authority's URL, for messages.
    pub fn authority(&self) -> &str {
        &self.target.url
    }

    /// Attests with what `evidence` makes of a challenge; what is issued is bound to `renewal_key`. `record`
    /// is that of an earlier attestation, whose lineage may go on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn attest(
        &self,
        evidence: &MakeEvidence,
        record: Option<&str>,
        csr: &[u8],
        renewal_key: &SigningKey,
    ) -> Result<Credentials, ClientError> {
        let public = renewal_key.public();
        let issued = self
            .challenged(wire::ATTEST, |challenge| {
                let evidence = evidence(&challenge)?;
                let transcript = proof::attest(
                    &self.trust_domain,
                    &challenge,
                    csr,
                    &public.thumbprint(),
                    &evidence,
                    record,
                );
                Ok(wire::AttestRequest {
                    proof: Base64(renewal_key.sign_raw(&transcript)),
                    challenge,
                    evidence,
                    csr: Base64(csr.to_vec()),
                    renewal_key: public.to_json("sig"),
                    record: record.map(str::to_owned),
                })
            })
            .await?;
        self.credentials(issued)
    }

    /// Renews the lineage of `record`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn renew(
        &self,
        record: &str,
        csr: &[u8],
        renewal_key: &SigningKey,
    ) -> Result<Credentials, ClientError> {
        let issued = self
            .challenged(wire::RENEW, |challenge| {
                let transcript = proof::renew(&self.trust_domain, &challenge, csr, record);
                Ok(wire::RenewRequest {
                    proof: Base64(renewal_key.sign_raw(&transcript)),
                    challenge,
                    record: record.to_owned(),
                    csr: Base64(csr.to_vec()),
                })
            })
            .await?;
        self.credentials(issued)
    }

    /// The trust bundle and its `ETag`; `None` if it is still the one with this `etag`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn bundle(
        &self,
        etag: Option<&HeaderValue>,
    ) -> Result<Option<(TrustBundle, Option<HeaderValue>)>, ClientError> {
        let Some((body, etag)) = self.get(wire::BUNDLE, etag).await? else {
            return Ok(None);
        };
        let bundle = TrustBundle::from_json(self.trust_domain.clone(), &body)
            .map_err(|why| self.target.broken(why))?;
        Ok(Some((bundle, etag)))
    }

    /// The bundles of all trust domains the authority knows, its own among them, and their `ETag`; `None`
    /// if they are still those with this `etag`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn bundles(
        &self,
        etag: Option<&HeaderValue>,
    ) -> Result<Option<(Vec<TrustBundle>, Option<HeaderValue>)>, ClientError> {
        let Some((body, etag)) = self.get(wire::BUNDLES, etag).await? else {
            return Ok(None);
        };
        let bundles = TrustBundle::map_from_json(&body).map_err(|why| self.target.broken(why))?;
        Ok(Some((bundles, etag)))
    }

    /// The revocation list and its `ETag`; `None` if it is still the one with this `etag`. `bundle` has the
    /// key that signed it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn revocations(
        &self,
        etag: Option<&HeaderValue>,
        bundle: &TrustBundle,
    ) -> Result<Option<(Published, Option<HeaderValue>)>, ClientError> {
        let Some((body, etag)) = self.get(wire::REVOCATIONS, etag).await? else {
            return Ok(None);
        };
        let broken = |why: String| self.target.broken(format!("{}: {why}", wire::REVOCATIONS));
        let jws = std::str::from_utf8(&body).map_err(|why| broken(why.to_string()))?;
        let keys = &bundle.jwt_authorities;
        let (published, unknown) =
            Published::verify(jws, keys, &self.trust_domain, SystemTime::now())
                .map_err(|why| broken(why.to_string()))?;
        if unknown > 0 {
            tracing::warn!(
                unknown,
                "the revocation list has entries this version does not know; upgrade this agent"
            );
        }
        Ok(Some((published, etag)))
    }

    /// How this machine's clock compares with the authority's; `None` while that is unknown or
    /// they agree.
    pub fn skew(&self) -> Option<Skew> {
        match self.skew_ms.load(Ordering::Relaxed) {
            NO_SKEW => None,
            millis => Skew::of(millis),
        }
    }

    /// Gets a challenge, sends what `make` makes of it; once more if the challenge was too old by then.
    async fn challenged<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &'static str,
        make: impl Fn(String) -> Result<Q, ClientError>,
    ) -> Result<A, ClientError> {
        match self.challenged_once(path, &make).await {
            Err(ClientError::Refused {
                code: ErrorCode::InvalidChallenge,
                ..
            }) => self.challenged_once(path, &make).await,
            answer => answer,
        }
    }

    async fn challenged_once<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &'static str,
        make: impl Fn(String) -> Result<Q, ClientError>,
    ) -> Result<A, ClientError> {
        let challenge: wire::Challenge = self.post(wire::CHALLENGE, Bytes::new()).await?;
        self.note_time(challenge.time);
        let body = serde_json::to_vec(&make(challenge.challenge)?)
            .map_err(|why| ClientError::Local(format!("writing a request: {why}")))?;
        self.post(path, body.into()).await
    }

    /// What is published at `path` and its `ETag`; `None` if it is still the one with this `etag`.
    async fn get(
        &self,
        path: &str,
        etag: Option<&HeaderValue>,
    ) -> Result<Option<(Bytes, Option<HeaderValue>)>, ClientError> {
        let mut request = self.request(Method::GET, path, Bytes::new())?;
        if let Some(etag) = etag {
            let headers = request.headers_mut();
            headers.insert(header::IF_NONE_MATCH, etag.clone());
        }
        let answer = self.send(request).await?;
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let answer = self.granted(answer)?;
        let etag = answer.headers().get(header::ETAG).cloned();
        Ok(Some((answer.into_body(), etag)))
    }

    async fn post<A: DeserializeOwned>(&self, path: &str, body: Bytes) -> Result<A, ClientError> {
        let request = self.request(Method::POST, path, body)?;
        let answer = self.send(request).await?;
        let answer = self.granted(answer)?;
        serde_json::from_slice(answer.body())
            .map_err(|why| self.target.broken(format!("{path}: {why}")))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.url))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|why| ClientError::Local(format!("authority.url: {why}")))
    }

    /// Sends over the kept connection, or a new one. Every request of this API can be repeated, so
    /// one that failed on a connection which may have been dead already is sent once more.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, ClientError> {
        let (id, sender, reused) = self.sender().await?;
        match self.exchange(sender, request.clone()).await {
            Err(_) if reused => {
                self.forget(id).await;
                let (id, sender, _) = self.sender().await?;
                let answer = self.exchange(sender, request).await;
                if answer.is_err() {
                    self.forget(id).await;
                }
                answer
            }
            Err(why) => {
                self.forget(id).await;
                Err(why)
            }
            answer => answer,
        }
    }

    /// The kept connection, or a new one; and which.
    async fn sender(&self) -> Result<(u64, Sender, bool), ClientError> {
        // Held while connecting: those who come meanwhile share the new connection.
        let mut slot = self.connection.lock().await;
        let revoked = self.revoked.load_full();
        if let Some(Kept { id, connected }) = slot.as_ref()
            && !connected.sender.is_closed()
            && connected.is_trusted(&revoked)
        {
            return Ok((*id, connected.sender.clone(), true));
        }
        *slot = None;
        let connected = connection::open(&self.target, self.tls.load_full()).await?;
        if !connected.is_trusted(&revoked) {
            return Err(self.target.revoked());
        }
        let sender = connected.sender.clone();
        let id = self.connections.fetch_add(1, Ordering::Relaxed);
        *slot = Some(Kept { id, connected });
        Ok((id, sender, false))
    }

    /// Drops the kept connection if it is still this one.
    async fn forget(&self, id: u64) {
        let mut slot = self.connection.lock().await;
        if slot.as_ref().is_some_and(|kept| kept.id == id) {
            *slot = None;
        }
    }

    async fn exchange(
        &self,
        mut sender: Sender,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, ClientError> {
        let exchange = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|why| self.target.broken(why))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, wire::MAX_RESPONSE)
                .collect()
                .await
                .map_err(|why| self.target.broken(why))?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        timeout(REQUEST_TIMEOUT, exchange).await.map_err(|_| {
            self.target
                .broken(format!("none within {REQUEST_TIMEOUT:?}"))
        })?
    }

    /// The answer, if it grants; else the error it is.
    fn granted(&self, answer: Response<Bytes>) -> Result<Response<Bytes>, ClientError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let retry_after = answer
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
        let Ok(wire::ErrorBody { error, message }) = serde_json::from_slice(answer.body()) else {
            return Err(self
                .target
                .broken(format!("HTTP status {status} without an explanation")));
        };
        let passes = status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            );
        Err(if passes {
            ClientError::Unavailable {
                authority: self.target.url.clone(),
                code: error,
                message,
                retry_after,
            }
        } else {
            ClientError::Refused {
                authority: self.target.url.clone(),
                code: error,
                message,
            }
        })
    }

    fn credentials(&self, issued: wire::Issued) -> Result<Credentials, ClientError> {
        let bundle = issued.bundle.get().as_bytes();
        let chain = |chain: Vec<Base64>| {
            let chain = chain.into_iter();
            chain.map(|der| CertificateDer::from(der.0)).collect()
        };
        let further = issued.further.into_iter().map(|it| FurtherChain {
            chain: chain(it.chain),
            hint: it.hint,
        });
        Ok(Credentials {
            further: further.collect(),
            chain: chain(issued.chain),
            bundle: TrustBundle::from_json(self.trust_domain.clone(), bundle)
                .map_err(|why| self.target.broken(why))?,
            record: issued.record,
            record_expires_at: self.time(issued.record_expires_at)?,
        })
    }

    fn time(&self, unix: u64) -> Result<SystemTime, ClientError> {
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(unix))
            .ok_or_else(|| self.target.broken("a time beyond the calendar"))
    }

    fn note_time(&self, theirs: u64) {
        let ours = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        let skew = i128::from(theirs) * 1000 - i128::try_from(ours).unwrap_or(i128::MAX);
        let skew = i64::try_from(skew).unwrap_or(i64::MAX).max(NO_SKEW + 1);
        self.skew_ms.store(skew, Ordering::Relaxed);
    }
}

/// The SPIFFE ID the authority of `trust_domain` presents. `None` never happens for a valid domain.
fn authority_id(trust_domain: &TrustDomain) -> Option<SpiffeId> {
    SpiffeId::new(format!("spiffe://{trust_domain}/warifu/authority")).ok()
}

fn tls_config(anchors: &Anchors, expected: &SpiffeId) -> Result<ClientConfig, tls::TlsError> {
    let mut config = tls::bootstrap_client_config(anchors, expected)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

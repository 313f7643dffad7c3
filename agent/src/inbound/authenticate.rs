//! Who sends a request: what the connection proved, and what the request proves beside it.
//!
//! One proof of a subject a request, in the header that is its kind's alone. Each that is presented must verify: a bad
//! token is refused beside a good certificate, too.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use warifu::{
    Caller,
    caller::{self, CallerError, Subject},
    identity::Identity,
};

use super::{
    CALLER, Environment, StartError,
    cache::{Cache, Key, Remembered},
    certificate::{Proved, hex, sha256},
    issuers::Keys,
    record::TokenMetrics,
    refusal::Refusal,
};
use crate::{
    config::inbound::{self as config, Accept},
    http::server::Refused,
    identity,
    policy::Evidence,
    revocation::{List, Origin, Provenance},
};
use secret::SecretHeader;
pub(super) use verifier::TokenError;
use verifier::{Verified, Verifier};

mod secret;
mod verifier;

/// Where an Application Load Balancer says whom it signed in.
const OIDC_DATA: HeaderName = HeaderName::from_static("x-amzn-oidc-data");

/// A caller and the headers that tell the app of it; made once, for many requests.
#[derive(Debug)]
pub(super) struct Authenticated {
    who: Caller,
    /// What rules see of it beyond that.
    evidence: Evidence,
    /// [`CALLER`].
    header: HeaderValue,
    claims: Vec<(HeaderName, HeaderValue)>,
    /// The SPIFFE ID of the peer, as the audit log shows it.
    pub(super) peer: Option<String>,
    /// The SHA-256 of the token, as the audit log shows it.
    pub(super) token: Option<String>,
    /// The SHA-256 of the peer's certificate, or zeros.
    certificate: [u8; 32],
    /// What the peer's certificate goes back to …
    peer_is: Option<Arc<Provenance>>,
    /// … and what the token does.
    token_is: Option<Provenance>,
    /// The number of the revocation list that has neither: asked once per list, not once per request.
    cleared: AtomicU64,
    /// What the configuration said of whatever proved the subject.
    proved_by: Option<Arc<Accept>>,
}

/// How callers of a listener prove themselves inside a request.
#[derive(Debug)]
pub(super) struct Authenticator {
    identity: identity::Current,
    accept: Vec<Arc<Accept>>,
    verifiers: Vec<Verifier>,
    secrets: Vec<SecretHeader>,
    /// Headers that proofs come in: ours to read, and to remove.
    headers: Vec<HeaderName>,
    /// Claim → header.
    forward_claims: BTreeMap<String, HeaderName>,
    verified: Cache,
    metrics: TokenMetrics,
}

/// What proved a subject, for those who are told of it.
struct Proof<'a> {
    /// The entry of `accept` …
    accept: &'a Arc<Accept>,
    /// … and its name.
    name: &'a str,
    subject: Subject,
    claims: Map<String, Value>,
    role: Option<String>,
    goes_back_to: Provenance,
    /// SHA-256 of the token, where there is one.
    token: Option<[u8; 32]>,
}

impl Authenticated {
    /// Whom a certificate proved.
    pub(super) fn by_certificate(proved: Proved) -> Result<Self, Refused> {
        let unusable = Refused("the client's SPIFFE ID is too long to be passed on");
        let peer_id = proved.peer.spiffe_id.to_string();
        let who = Caller {
            peer: Some(proved.peer),
            subject: None,
        };
        Ok(Self {
            header: caller::encode(&who).map_err(|_| unusable)?,
            who,
            evidence: Evidence::default(),
            claims: Vec::new(),
            peer: Some(peer_id),
            token: None,
            certificate: proved.certificate,
            peer_is: Some(Arc::new(proved.provenance)),
            token_is: None,
            cleared: AtomicU64::new(0),
            proved_by: None,
        })
    }

    /// The same, and what a request proved.
    fn with_subject(
        peer: Option<&Self>,
        mut proof: Proof<'_>,
        forward: &BTreeMap<String, HeaderName>,
    ) -> Result<Self, CallerError> {
        let (forwarded, headers) = forwarded(forward, &proof.claims);
        proof.subject.claims = forwarded;
        let who = Caller {
            peer: peer.and_then(|peer| peer.who.peer.clone()),
            subject: Some(proof.subject),
        };
        Ok(Self {
            header: caller::encode(&who)?,
            who,
            evidence: Evidence {
                claims: proof.claims,
                accept: Some(proof.name.to_owned()),
                role: proof.role,
            },
            claims: headers,
            peer: peer.and_then(|peer| peer.peer.clone()),
            token: proof.token.map(|token| hex(&token)),
            certificate: peer.map(|peer| peer.certificate).unwrap_or_default(),
            peer_is: peer.and_then(|peer| peer.peer_is.clone()),
            token_is: Some(proof.goes_back_to),
            cleared: AtomicU64::new(0),
            proved_by: Some(Arc::clone(proof.accept)),
        })
    }

    /// The caller.
    pub(super) fn who(&self) -> &Caller {
        &self.who
    }

    /// What was proved of it beyond that.
    pub(super) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Refuses a caller whose certificate or token goes back to what `list` revokes.
    pub(super) fn refuse_revoked(&self, list: &List) -> Result<(), Refusal> {
        // Number 0 is empty: nothing was ever revoked.
        if list.number() == self.cleared.load(Ordering::Relaxed) || list.is_empty() {
            return Ok(());
        }
        if let Some(kind) = self.peer_is.as_ref().and_then(|it| list.revokes(it)) {
            return Err(Refusal::PeerRevoked(kind));
        }
        if let Some(kind) = self.token_is.as_ref().and_then(|it| list.revokes(it)) {
            return Err(Refusal::TokenRevoked(kind));
        }
        self.cleared.store(list.number(), Ordering::Relaxed);
        Ok(())
    }

    /// Tells the app.
    pub(super) fn insert(&self, headers: &mut HeaderMap) {
        headers.insert(CALLER, self.header.clone());
        for (name, value) in &self.claims {
            headers.insert(name, value.clone());
        }
    }
}

impl Authenticator {
    pub(super) fn new(
        config: &config::Inbound,
        environment: &Environment,
    ) -> Result<Self, StartError> {
        let Environment {
            identity,
            issuers,
            secrets,
            metrics,
            ..
        } = environment;
        let accept: Vec<Arc<Accept>> = config.accept.iter().cloned().map(Arc::new).collect();
        let (mut verifiers, mut secret_headers) = (Vec::new(), Vec::new());
        for accept in &accept {
            let of_entry = Verifier::of(accept, issuers, secrets);
            verifiers.extend(of_entry.map_err(|why| StartError::Issuer {
                accept: accept.name().unwrap_or_default().to_owned(),
                why: why.to_string(),
            })?);
            secret_headers.extend(SecretHeader::of(accept, secrets));
        }
        let of_load_balancers = verifiers.iter().any(Verifier::is_of_load_balancers);
        let bearer = verifiers.iter().any(|it| !it.is_of_load_balancers());
        let mut headers: Vec<HeaderName> = secret_headers
            .iter()
            .map(|it| it.header.clone())
            .chain(bearer.then_some(AUTHORIZATION))
            .chain(of_load_balancers.then_some(OIDC_DATA))
            .collect();
        headers.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        headers.dedup();
        Ok(Self {
            identity: identity.clone(),
            accept,
            verifiers,
            secrets: secret_headers,
            headers,
            forward_claims: config.forward_claims.clone(),
            verified: Cache::default(),
            metrics: metrics.tokens.clone(),
        })
    }

    /// Has all at hand that callers are verified with, as far as it can be had: an issuer that is away keeps its own
    /// tokens out and nobody else's.
    pub(super) async fn prepare(&self) -> Result<(), StartError> {
        for secret in &self.secrets {
            secret.prepare().await?;
        }
        for verifier in &self.verifiers {
            verifier.prepare().await?;
        }
        let published = self.verifiers.iter().filter_map(Verifier::published_keys);
        let tried = published.cloned().map(Keys::try_once);
        let tried: JoinSet<()> = tried.collect();
        tried.join_all().await;
        Ok(())
    }

    /// Refuses a caller whose proof of a subject is none here, whatever it was when it was presented.
    pub(super) fn refuse_unaccepted(&self, caller: &Authenticated) -> Result<(), Refusal> {
        let Some(by) = &caller.proved_by else {
            return Ok(());
        };
        let same = |accept: &Arc<Accept>| Arc::ptr_eq(accept, by) || accept == by;
        match self.accept.iter().any(same) {
            true => Ok(()),
            false => Err(Refusal::BadToken(TokenError::NoEntry)),
        }
    }

    /// Whether `authorization` is ours to read, and to remove. The other headers that proofs come in always go.
    pub(super) fn takes_tokens(&self) -> bool {
        self.headers.contains(&AUTHORIZATION)
    }

    /// Who sends a request with `headers` over a connection that proved `peer`.
    pub(super) async fn authenticate(
        &self,
        peer: Option<&Arc<Authenticated>>,
        headers: &HeaderMap,
    ) -> Result<Arc<Authenticated>, Refusal> {
        let mut presented = self
            .headers
            .iter()
            .filter(|name| headers.contains_key(*name));
        let (name, line) = match (presented.next(), presented.next()) {
            (None, _) => return peer.cloned().ok_or(Refusal::Unauthenticated),
            (Some(_), Some(_)) => return Err(Refusal::TwoProofs),
            (Some(name), None) => {
                let mut lines = headers.get_all(name).iter();
                match (lines.next(), lines.next()) {
                    (Some(line), None) => (name, line),
                    _ if name == AUTHORIZATION => return Err(Refusal::TwoAuthorizations),
                    _ => return Err(Refusal::TwoProofs),
                }
            }
        };
        let peer = peer.map(|peer| &**peer);
        let verdict = match name == AUTHORIZATION || name == OIDC_DATA {
            true => self.by_token(peer, name, line).await,
            false => self.by_secret(peer, name, line).await,
        };
        if let Err(Refusal::BadToken(_) | Refusal::BadSecret) = &verdict {
            self.metrics.refused.inc();
        }
        verdict
    }

    /// Whom the token in `line` proves, together with `peer`.
    async fn by_token(
        &self,
        peer: Option<&Authenticated>,
        name: &HeaderName,
        line: &HeaderValue,
    ) -> Result<Arc<Authenticated>, Refusal> {
        let is_bearer = name == AUTHORIZATION;
        let token = match is_bearer {
            true => bearer(line),
            false => line.to_str().map_err(|_| TokenError::NotText),
        };
        let token = token.map_err(Refusal::BadToken)?;
        let hash = sha256(token.as_bytes());
        let certificate = peer.and_then(|peer| peer.who.peer.as_ref().map(|_| peer.certificate));
        let key = Key {
            proof: hash,
            certificate: certificate.unwrap_or_default(),
            is_bearer,
        };
        let now = SystemTime::now();
        let identity = self.identity.borrow().clone();
        let identity = identity.as_deref();
        if let Some(known) = self.verified.find(&key, now)
            && let Some(verifier) = self.verifiers.get(known.verifier)
            && verifier.generation(identity, now).await == Some(known.generation)
        {
            self.metrics.remembered.inc();
            return Ok(known.caller);
        }

        // On the heap: it is rare, and would be a part of what every request carries.
        Box::pin(self.verify(peer, token, key, identity, now)).await
    }

    /// As [`by_token`](Self::by_token), for a token that is not remembered.
    async fn verify(
        &self,
        peer: Option<&Authenticated>,
        token: &str,
        key: Key,
        identity: Option<&Identity>,
        now: SystemTime,
    ) -> Result<Arc<Authenticated>, Refusal> {
        let index = match key.is_bearer {
            true => verifier::choose(&self.verifiers, token).map_err(Refusal::BadToken)?,
            false => self.of_load_balancers()?,
        };
        let verifier = self.verifiers.get(index);
        let verifier = verifier.ok_or(Refusal::BadToken(TokenError::NoEntry))?;
        // Before it is verified: what the keys of before verified is not remembered under those of after.
        let generation = verifier.generation(identity, now).await;
        let certificate = peer.and_then(|peer| peer.who.peer.as_ref().map(|_| &peer.certificate));
        let verified = verifier.verify(token, certificate, identity, now);
        let verified = verified.await?;
        let until = verified.claims.expires_at;
        let proof = of_token(verifier, verified, key.proof);
        let caller = Authenticated::with_subject(peer, proof, &self.forward_claims)?;
        let caller = Arc::new(caller);
        if let Some(generation) = generation {
            let remembered = Remembered {
                caller: Arc::clone(&caller),
                verifier: index,
                generation,
            };
            self.verified.insert(key, remembered, until);
        }
        self.metrics.verified.inc();
        Ok(caller)
    }

    /// At most one: the configuration was checked.
    fn of_load_balancers(&self) -> Result<usize, Refusal> {
        let mut verifiers = self.verifiers.iter();
        let index = verifiers.position(Verifier::is_of_load_balancers);
        index.ok_or(Refusal::BadToken(TokenError::NoEntry))
    }

    /// Whom the secret in `line` proves, together with `peer`.
    async fn by_secret(
        &self,
        peer: Option<&Authenticated>,
        name: &HeaderName,
        line: &HeaderValue,
    ) -> Result<Arc<Authenticated>, Refusal> {
        let mut known = None;
        let mut trouble = None;
        // All of them, also after one fits: time says nothing of which.
        for entry in self.secrets.iter().filter(|it| it.header == name) {
            match entry.is(line).await {
                Ok(true) => known = known.or(Some(entry)),
                Ok(false) => {}
                Err(why) => trouble = Some(why),
            }
        }
        let Some(entry) = known else {
            return Err(trouble.unwrap_or(Refusal::BadSecret));
        };
        let caller = Authenticated::with_subject(peer, of_secret(entry), &self.forward_claims)?;
        self.metrics.verified.inc();
        Ok(Arc::new(caller))
    }
}

/// What a verified token proved.
fn of_token(verifier: &Verifier, verified: Verified, token: [u8; 32]) -> Proof<'_> {
    let Verified { claims, role } = verified;
    let mut goes_back_to = Provenance::of_token(&claims);
    if let Some(role) = &role {
        goes_back_to.role = Some(Origin::hash_of_role(role).into());
    }
    Proof {
        accept: &verifier.accept,
        name: &verifier.name,
        subject: Subject {
            proof: verifier.proof.to_owned(),
            // A role goes by its account and name: its path is no part of what it is.
            subject: role.clone().unwrap_or(claims.subject),
            issuer: claims.issuer,
            scopes: claims.scopes,
            claims: BTreeMap::new(),
        },
        claims: claims.all,
        role,
        goes_back_to,
        token: Some(token),
    }
}

/// What a secret proved. Its hash is kept nowhere: a short secret could be found by it.
fn of_secret(entry: &SecretHeader) -> Proof<'_> {
    let subject = Value::from(entry.subject.as_str());
    Proof {
        accept: &entry.accept,
        name: &entry.name,
        subject: Subject {
            proof: secret::PROOF.to_owned(),
            subject: entry.subject.clone(),
            issuer: None,
            scopes: Vec::new(),
            claims: BTreeMap::new(),
        },
        claims: Map::from_iter([("sub".to_owned(), subject)]),
        role: None,
        goes_back_to: Provenance::default(),
        token: None,
    }
}

/// The claims that the app is told, and the headers they go into.
fn forwarded(
    forward: &BTreeMap<String, HeaderName>,
    claims: &Map<String, Value>,
) -> (BTreeMap<String, String>, Vec<(HeaderName, HeaderValue)>) {
    let mut forwarded = BTreeMap::new();
    let mut headers = Vec::new();
    for (claim, name) in forward {
        let Some(text) = claims.get(claim).and_then(as_text) else {
            continue;
        };
        // A value no header can hold (a line end) is left out; the app sees no header then.
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            headers.push((name.clone(), value));
        }
        forwarded.insert(claim.clone(), text);
    }
    (forwarded, headers)
}

/// The token of `authorization: Bearer TOKEN` (RFC 6750 §2.1); the scheme in any case (RFC 9110 §11.1).
fn bearer(line: &HeaderValue) -> Result<&str, TokenError> {
    let line = line.to_str().map_err(|_| TokenError::NotText)?;
    let (scheme, token) = line.split_once(' ').ok_or(TokenError::Scheme)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(TokenError::Scheme);
    }
    Ok(token.trim_start_matches(' '))
}

/// A claim as header text: strings as they are, lists joined by spaces as `scope` is, others as JSON.
fn as_text(claim: &Value) -> Option<String> {
    match claim {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.iter().all(Value::is_string) => Some(
            items
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
impl Authenticated {
    pub(super) fn example() -> Self {
        Self::by_certificate(Proved::example()).unwrap()
    }
}
